package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

const (
	adminUser       = "admin"
	adminKubeconfig = "kubeconfig"
	logFile         = "cluster.log"
	lockFile        = "lock"

	// startLimit is many times what a start takes on a busy machine.
	startLimit = 3 * time.Minute
	// stopLimit is for all servers together. What has not ended by then ends with the process:
	// nothing is lost, since etcd has written all that was ever answered.
	stopLimit = 6 * time.Second
)

// enter makes dir the working directory, which all paths in this program are relative to, and
// keeps other processes like this one out of it until the process ends.
func enter(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	// Not an os.File: that would be closed, and so unlocked, when it is collected as garbage.
	lock, err := unix.Open(lockFile, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Join(dir, lockFile), err)
	}
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("a cluster is running in %s already", dir)
		}
		return fmt.Errorf("lock %s: %w", filepath.Join(dir, lockFile), err)
	}
	return nil
}

// run runs the cluster until ctx ends, which is no error, or one of its servers ends.
func run(ctx context.Context, opts options, out *console) error {
	// The servers' own commands do this, too: they use deprecated APIs on purpose.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	cluster := &cluster{opts: opts, out: out, fail: fail}

	if err := cluster.start(ctx); err != nil {
		// Servers that are stopped while they start give up in uproar. They end with the process.
		return stopReason(ctx, out, err)
	}
	<-ctx.Done()
	err := stopReason(ctx, out, context.Cause(ctx))
	cluster.stop()
	return err
}

// stopReason returns err unless it says that somebody wanted the cluster to stop.
func stopReason(ctx context.Context, out *console, err error) error {
	if ctx.Err() == nil || errors.As(err, new(*serverError)) {
		return err
	}
	out.printf("stopping: %v", err)
	return nil
}

// A cluster is the servers that run, in the order of their start.
type cluster struct {
	opts    options
	out     *console
	fail    context.CancelCauseFunc
	servers []*server
}

// start starts the servers one after the other and announces the cluster.
func (c *cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not ready within %s; see %s", startLimit, logFile))
	defer cancel()
	begin := time.Now()
	c.out.printf("starting in %s; the servers' own log is %s there", c.opts.dir, logFile)

	listener, err := listen(c.opts.bind, c.opts.port)
	if err != nil {
		return err
	}
	if err := c.writeFiles(portOf(listener)); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	client, err := newClient(adminKubeconfig)
	if err != nil {
		return err
	}

	for _, step := range c.steps(listener, client) {
		stepBegin := time.Now()
		c.servers = append(c.servers, launch(step.server, c.fail, step.run))
		if err := step.await(ctx); err != nil {
			return err
		}
		c.out.printf("%s ready in %.1fs", step.server, time.Since(stepBegin).Seconds())
	}
	c.out.printf("ready in %.1fs at %s", time.Since(begin).Seconds(), c.url(portOf(listener)))
	return c.out.announce(filepath.Join(c.opts.dir, adminKubeconfig))
}

// A step is the start of one server and the wait for it to work.
type step struct {
	server string
	run    func(context.Context) error
	await  func(context.Context) error
}

func (c *cluster) steps(listener net.Listener, client kubernetes.Interface) []step {
	etcdReady := make(chan struct{})
	return []step{{
		server: "etcd",
		run:    func(ctx context.Context) error { return runEtcd(ctx, func() { close(etcdReady) }) },
		await: func(ctx context.Context) error {
			select {
			case <-etcdReady:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
	}, {
		server: "kube-apiserver",
		run: func(ctx context.Context) error {
			return runAPIServer(ctx, apiServerArgs(c.opts, portOf(listener)), listener)
		},
		await: func(ctx context.Context) error { return awaitAPIServer(ctx, client) },
	}, {
		server: "kube-controller-manager",
		run:    func(ctx context.Context) error { return runControllers(ctx, controllersArgs()) },
		await:  func(ctx context.Context) error { return awaitControllers(ctx, client) },
	}}
}

func (c *cluster) url(port int) *url.URL {
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(c.opts.advertise.String(), strconv.Itoa(port))}
}

// writeFiles makes, or reads again, the keys and tokens and writes all that follows from them.
func (c *cluster) writeFiles(port int) error {
	ca, err := ensureAuthority(c.opts.name)
	if err != nil {
		return err
	}
	if err := ca.writeServingCert(servingNames(c.opts)); err != nil {
		return err
	}
	if err := ensureServiceAccountKey(); err != nil {
		return err
	}
	tokens := map[string]string{}
	for user, path := range map[string]string{adminUser: adminKubeconfig, controllersUser: controllersKubeconfig} {
		if tokens[user], err = token(user); err != nil {
			return err
		}
		kubeconfig := access{cluster: c.opts.name, server: c.url(port), ca: ca.certPEM(), user: user, token: tokens[user]}
		if err := kubeconfig.write(path); err != nil {
			return err
		}
	}
	if err := writeTokens(tokens); err != nil {
		return err
	}
	return os.WriteFile(auditPolicyFile, []byte(auditPolicy), 0o600)
}

// stop ends the servers, the last started first: each needs those before it to end well.
func (c *cluster) stop() {
	begin := time.Now()
	limit := time.After(stopLimit)
	for i := len(c.servers) - 1; i >= 0; i-- {
		s := c.servers[i]
		s.stop()
		select {
		case <-s.done:
		case <-limit:
			limit = time.After(0)
			c.out.printf("%s takes too long to stop; it ends with the process", s.name)
		}
	}
	c.out.printf("stopped in %.1fs", time.Since(begin).Seconds())
}

// A server is one of the components, running in a goroutine.
type server struct {
	name string
	stop context.CancelFunc
	done chan struct{}
}

// launch runs a server until its stop is called, and calls fail if it ends before.
func launch(name string, fail context.CancelCauseFunc, run func(context.Context) error) *server {
	ctx, stop := context.WithCancel(context.Background())
	s := &server{name: name, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		err := run(ctx)
		if ctx.Err() != nil {
			klog.InfoS("Stopped", "server", name, "err", err)
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		fail(&serverError{server: name, err: err})
	}()
	return s
}

// A serverError is the unasked end of a server.
type serverError struct {
	server string
	err    error
}

func (e *serverError) Error() string { return fmt.Sprintf("%s: %v; see %s", e.server, e.err, logFile) }
func (e *serverError) Unwrap() error { return e.err }
