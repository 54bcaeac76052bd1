package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/testdata/harness"
)

// settledDaemon is a local cluster with n mirrors and the daemon that made them.
func (b *bench) settledDaemon(ctx context.Context, n int, args ...string) (*cluster, string, *daemon, error) {
	london, account, err := b.newLondon(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	d, err := b.run(account, b.mirrors(n, args...)...)
	if err == nil {
		if err = b.settled(ctx, d, n); err == nil {
			return london, account, d, nil
		}
		d.stop()
	}
	london.stop()
	return nil, "", nil, err
}

// middle is a size that is neither small nor large.
func (b *bench) middle() int { return b.sizes[len(b.sizes)/2] }

// restart counts what a daemon asks for that finds all in order.
func (b *bench) restart(ctx context.Context) error {
	n := b.middle()
	london, account, d, err := b.settledDaemon(ctx, n)
	if err != nil {
		return err
	}
	defer london.stop()
	d.stop()
	since, err := b.mark(london)
	if err != nil {
		return err
	}
	if d, err = b.run(account, b.mirrors(n)...); err != nil {
		return err
	}
	err = b.settled(ctx, d, n)
	if err == nil {
		err = pause(ctx, 10*time.Second)
	}
	d.stop() // which ends its watches, and so has them logged
	if err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	ours, theirs, err := since.requests()
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Concat(ours, theirs), isRead)
	return b.note(result{What: fmt.Sprintf("restart with all in order, %d mirrors", n), Goal: "no write; the lists and watches only",
		Measured: fmt.Sprintf("London: %s; Paris: %s", summary(ours), summary(theirs)), Met: len(others) == 0})
}

// isRead tells the lists and watches, and the look at who a cluster is.
func isRead(r request) bool {
	return r.Verb == "list" || r.Verb == "watch" || r.Verb == "get" && r.ObjectRef.Resource == "namespaces" && r.ObjectRef.Name == "kube-system"
}

// idleRow counts what a daemon asks for to which nothing happens.
func (b *bench) idleRow(ctx context.Context) error {
	n := b.middle()
	london, _, d, err := b.settledDaemon(ctx, n, "--leader-elect", "--leader-elect-lease=service-mirror/service-mirror")
	if err != nil {
		return err
	}
	defer london.stop()
	defer d.stop()
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	since, err := b.mark(london)
	if err != nil {
		return err
	}
	before, err := d.cpu()
	if err != nil {
		return err
	}
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	ours, theirs, err := since.requests()
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Concat(ours, theirs), func(r request) bool {
		return r.Verb == "watch" || r.ObjectRef.Resource == "leases"
	})
	share := (after - before).Seconds() / b.idle.Seconds()
	return b.note(
		result{What: fmt.Sprintf("idle for %v, %d mirrors, requests", b.idle, n), Goal: "watches and the lease only",
			Measured: fmt.Sprintf("London: %s; Paris: %s", orNone(summary(ours)), orNone(summary(theirs))), Met: len(others) == 0},
		result{What: fmt.Sprintf("idle for %v, %d mirrors, CPU", b.idle, n), Goal: "< 0.1 % of a core", Measured: fmt.Sprintf("%.3f %%", 100*share), Met: share < 0.001})
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

const kb, mb = 1 << 10, 1 << 20

// settling is how long an idle Go program takes to give its garbage back: it collects every two
// minutes.
const settling = 150 * time.Second

// memory is what the mirrors take. The sizes are measured at once: they mostly wait.
func (b *bench) memory(ctx context.Context) error {
	sizes := append([]int{0}, b.sizes[1:]...)
	made, restarted := make([]footprint, len(sizes)), make([]footprint, len(sizes))
	if err := inParallel(len(sizes), len(sizes), func(i int) error {
		n := sizes[i]
		london, account, d, err := b.settledDaemon(ctx, n)
		if err != nil {
			return err
		}
		defer london.stop()
		made[i], err = d.footprint(ctx)
		d.stop()
		if err != nil {
			return err
		}
		if d, err = b.run(account, b.mirrors(n)...); err != nil {
			return err
		}
		defer d.stop()
		if err := b.settled(ctx, d, n); err != nil {
			return err
		}
		restarted[i], err = d.footprint(ctx)
		return err
	}); err != nil {
		return err
	}
	var results []result
	for i, n := range sizes {
		goal := int64(40*mb + 5*kb*n)
		for _, one := range []struct {
			when string
			footprint
		}{{"after they were made", made[i]}, {"after a restart", restarted[i]}} {
			results = append(results, result{What: fmt.Sprintf("memory, %d mirrors, %s", n, one.when), Mirrors: n, Goal: fmt.Sprintf("≤ %d MB", goal/mb),
				Measured: fmt.Sprintf("%d MB, %d MB of it the program itself; at most %d MB on the way", one.now/mb, one.file/mb, one.peak/mb), Met: one.now <= goal})
		}
	}
	b.empty = restarted[0].now
	return b.note(results...)
}

// remotes has many of them in one process, and one that is dead.
func (b *bench) remotes(ctx context.Context) error {
	const count, each = 50, 100
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("remote-%02d", i))
	}
	if err := b.paris.namespaces(ctx, names); err != nil {
		return err
	}
	if err := inParallel(64, count*each, func(i int) error {
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("svc-%03d", i/count), Namespace: names[i%count], Labels: map[string]string{"bench-remotes": "true"}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}
		_, err := b.paris.CoreV1().Services(svc.Namespace).Create(ctx, svc, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	// run tells how long it takes to mirror all, and notes what the daemon takes then.
	run := func(dead bool, takes *footprint) (took time.Duration, err error) {
		london, account, err := b.newLondon(ctx)
		if err != nil {
			return 0, err
		}
		defer london.stop()
		if err := london.namespaces(ctx, names); err != nil {
			return 0, err
		}
		since, err := london.Mark()
		if err != nil {
			return 0, err
		}
		args := []string{"--export-selector=bench-remotes=true"}
		for i, name := range names {
			args = append(args, fmt.Sprintf("--remote=r%02d=%s,gateway=ingress/gateway,namespaces=%s", i, b.reader, name))
		}
		if dead { // an address that answers nothing
			path := filepath.Join(b.dir, "dead.kubeconfig")
			if err := harness.WriteKubeconfig(path, harness.Credentials{Server: "https://203.0.113.1:6443", Token: "none"}); err != nil {
				return 0, err
			}
			args = append(args, "--remote=dead="+path+",gateway=ingress/gateway")
		}
		d, err := b.run(account, args...)
		if err != nil {
			return 0, err
		}
		defer d.stop()
		if err := london.wrote(ctx, since, count*each, "create", "endpoints"); err != nil {
			return 0, err
		}
		all, err := london.writesOf(since)
		if err != nil {
			return 0, err
		}
		_, last := span(all)
		if takes != nil {
			*takes, err = d.footprint(ctx)
		}
		return last.Sub(d.started), err
	}
	if b.empty == 0 {
		london, _, d, err := b.settledDaemon(ctx, 0)
		if err != nil {
			return err
		}
		defer london.stop()
		defer d.stop()
		empty, err := d.footprint(ctx)
		if err != nil {
			return err
		}
		b.empty = empty.now
	}
	var full footprint
	beside, alone, err := b.alternate(b.runsOf(count*each), func() (time.Duration, error) { return run(true, nil) }, func() (time.Duration, error) {
		if full == (footprint{}) {
			return run(false, &full)
		}
		return run(false, nil)
	})
	if err != nil {
		return err
	}
	a := (full.now - b.empty) / count
	return b.note(
		result{What: fmt.Sprintf("%d remotes of %d Services, memory", count, each), Goal: "≤ 1024 KB a remote",
			Measured: fmt.Sprintf("%d KB a remote: %d MB, of one without Services %d MB", a/kb, full.now/mb, b.empty/mb), Met: a <= mb},
		compare(fmt.Sprintf("%d remotes of %d Services are mirrored beside a dead one", count, each), 0, 1.10, "without it", beside, alone))
}

// churn counts what a remote sends while its pods come and go.
func (b *bench) churn(ctx context.Context) error {
	server, err := url.Parse(b.paris.Config.Host)
	if err != nil {
		return err
	}
	meter, err := newMeter(server.Host)
	if err != nil {
		return err
	}
	defer meter.close()
	config, err := clientcmd.LoadFromFile(b.reader)
	if err != nil {
		return err
	}
	config.Clusters["c"].Server = "https://" + meter.address()
	config.Clusters["c"].TLSServerName = server.Hostname()
	through := filepath.Join(b.dir, "metered.kubeconfig")
	if err := clientcmd.WriteToFile(*config, through); err != nil {
		return err
	}
	n := b.sizes[0]
	london, account, err := b.newLondon(ctx)
	if err != nil {
		return err
	}
	defer london.stop()
	args := b.mirrors(n)
	args[0] = strings.Replace(args[0], b.reader, through, 1)
	d, err := b.run(account, args...)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := b.settled(ctx, d, n); err != nil {
		return err
	}
	filled := meter.bytes.Load()
	const minutes = 2
	var sent [2]int64
	var changes int64
	for i := range sent { // without and with
		stop, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		var failed error
		if i == 1 {
			wg.Go(func() { changes, failed = b.podsComeAndGo(stop) })
		}
		before := meter.bytes.Load()
		err := pause(ctx, minutes*time.Minute)
		sent[i] = meter.bytes.Load() - before
		cancel()
		wg.Wait()
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
	}
	return b.note(result{What: fmt.Sprintf("bytes from the remote in %d minutes while its pods churn", minutes), Goal: "bookmarks and pings only",
		Measured: fmt.Sprintf("%d bytes with %d changes, and %d bytes without churn; the first list had %d", sent[1], changes, sent[0], filled), Met: sent[1] <= sent[0]+sent[0]/2+4*kb})
}

// podsComeAndGo makes ready pods of exported Services and deletes them again, as fast as
// it can, and tells how often.
func (b *bench) podsComeAndGo(ctx context.Context) (int64, error) {
	pods := b.paris.CoreV1().Pods(b.namespaces()[0])
	var changes int64
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("pod-%d", i)
		pod, err := pods.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}, metav1.CreateOptions{})
		if err == nil {
			pod.Status.PodIP = fmt.Sprintf("10.1.%d.%d", i/250%250, i%250+1)
			pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
			pod.Status.Phase = corev1.PodRunning
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
			_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		}
		if err == nil {
			err = pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return changes, err
		}
		changes += 3
	}
	return changes, nil
}

// meter is a TCP proxy that counts what comes back.
type meter struct {
	listener net.Listener
	bytes    atomic.Int64
}

func newMeter(to string) (*meter, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &meter{listener: listener}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go m.serve(client, to)
		}
	}()
	return m, nil
}

func (m *meter) serve(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer server.Close()
		io.Copy(server, client)
	}()
	io.Copy(io.MultiWriter(client, m), server)
}

// Write counts.
func (m *meter) Write(p []byte) (int, error) {
	m.bytes.Add(int64(len(p)))
	return len(p), nil
}

func (m *meter) address() string { return m.listener.Addr().String() }
func (m *meter) close()          { m.listener.Close() }
