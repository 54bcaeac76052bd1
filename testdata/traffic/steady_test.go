package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const bar = "http://bar-paris.default.svc.cluster.local/"

// steady is how many requests per second and family are under way while things
// happen, each on a connection of its own.
const steady = 50

// under runs f while pods of London call bar, one over each of these networks,
// and returns the count.
//
// The pods are new ones. An attempt to connect while a gateway was not there yet,
// of which other tests make many, stays in the node's connection tracking for
// two minutes, with the address that it was led to; a later connection of the
// same pod from the same port would be led there too.
func (s *scene) under(f func(), networks ...string) tally {
	s.Helper()
	var loads []*load
	for _, network := range networks {
		l := s.startLoad(network)
		defer l.cmd.Wait()
		defer l.stdin.Close()
		loads = append(loads, l)
	}
	f()
	all := tally{Backends: map[string]int{}}
	for i, l := range loads {
		result, err := l.end()
		s.must(err)
		if result.Sent < 10 || result.Backends["bar of paris"]+result.Failed != result.Sent {
			s.Errorf("over %s not what was to be sent: %+v", networks[i], result)
		}
		all.Sent, all.Failed = all.Sent+result.Sent, all.Failed+result.Failed
		all.FailedFor = max(all.FailedFor, result.FailedFor)
		all.Errors = append(all.Errors, result.Errors...)
	}
	return all
}

// none is for what no request may notice.
func (s *scene) none(what string, result tally) {
	s.Helper()
	s.Logf("%s: of %d requests %d failed", what, result.Sent, result.Failed)
	if result.Failed > 0 {
		s.Errorf("%d requests failed, within %v: %q", result.Failed, result.FailedFor, result.Errors)
	}
}

// load is a pod that calls bar at a steady rate.
type load struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

func (s *scene) startLoad(network string) *load {
	s.Helper()
	return s.startLoadOf("--network", network, "--rate", fmt.Sprint(steady), "--timeout", "2s", bar)
}

// startLoadOf has a new pod be a client with these arguments.
func (s *scene) startLoadOf(args ...string) *load {
	s.Helper()
	self, err := os.Executable()
	s.must(err)
	pod, err := s.world.london.pod("default", fmt.Sprintf("foo-%d", s.world.london.used))
	s.must(err)
	l := &load{cmd: pod.command(self, append([]string{"client"}, args...)...)}
	l.stdin, err = l.cmd.StdinPipe()
	s.must(err)
	l.stdout, err = l.cmd.StdoutPipe()
	s.must(err)
	s.must(l.cmd.Start())
	return l
}

func (l *load) end() (result tally, err error) {
	l.stdin.Close()
	out, err := io.ReadAll(l.stdout)
	if err != nil {
		return tally{}, err
	}
	return result, json.Unmarshal(out, &result)
}

// switchOver gives the gateway other addresses while the first ones end: new
// connections follow.
func (s *scene) switchOver() {
	// Else Paris would not lead the new addresses anywhere, whatever London does.
	s.must(s.world.paris.service("default", "sign-of-life", false, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort)}
	}))
	s.must(eventually("Paris's kube-proxy sees changes", func() error { return s.world.paris.leads("sign-of-life/tcp/http {") }))
	s.must(s.world.paris.CoreV1().Services("default").Delete(s.Context(), "sign-of-life", metav1.DeleteOptions{}))

	took := map[*cluster]time.Duration{}
	result := s.under(func() {
		s.servesBoth()
		begin := time.Now()
		s.must(s.world.paris.loadBalancer("gateway", "gateway", parisSecond, parisSecond6))
		s.must(eventually("kube-proxy on both sides knows the new address, and no more the old one", func() error {
			var missing error
			for _, c := range []*cluster{s.world.london, s.world.paris} {
				if took[c] > 0 {
					continue
				}
				if err := errors.Join(c.leads(parisSecond), c.leads(parisSecond6),
					// The names of chains that are not in use any more have the old address for a while.
					c.leadsNot(parisAddress+":"), c.leadsNot(parisAddress+" "), c.leadsNot(parisAddress6)); err != nil {
					missing = errors.Join(missing, err)
					continue
				}
				took[c] = time.Since(begin)
			}
			return missing
		}))
		s.servesBoth()
	}, "tcp4", "tcp6")
	s.Logf("the gateway's addresses changed at once: London's kube-proxy followed after %v, Paris's own after %v; of %d requests, %d a second, %d failed, within %v: %q",
		took[s.world.london].Round(10*time.Millisecond), took[s.world.paris].Round(10*time.Millisecond), result.Sent, steady,
		result.Failed, result.FailedFor.Round(10*time.Millisecond), result.Errors)
	if result.FailedFor > 10*time.Second {
		s.Errorf("requests failed for %v", result.FailedFor)
	}
}

// remoteDown takes Paris's control plane away: nothing happens to requests.
func (s *scene) remoteDown() {
	result := s.under(func() {
		s.servesBoth()
		noticed := s.logged("mirrors are kept unchanged")
		s.world.paris.Stop()
		s.must(eventually("the daemon notices", func() error {
			if s.logged("mirrors are kept unchanged") == noticed {
				return errors.New("it does not")
			}
			return nil
		}))
		s.servesBoth()
		s.must(s.world.paris.startServer())
		s.lives()
	}, "tcp4", "tcp6")
	s.none("Paris's API server was away and came back", result)
	// Paris's own kube-proxy comes back to it by itself, but takes up to a minute.
	s.must(s.world.paris.startProxy())
}

// daemonKilled kills the daemon and starts it again: nothing happens to requests.
func (s *scene) daemonKilled() {
	result := s.under(func() {
		s.servesBoth()
		s.world.daemon.stop(syscall.SIGKILL)
		s.servesBoth()
		s.must(s.world.startDaemon())
		s.lives()
	}, "tcp4", "tcp6")
	s.none("the daemon was killed and came back", result)
}

// lives waits until the daemon has carried a change over from Paris.
func (s *scene) lives() {
	s.Helper()
	s.must(eventually("an export", func() error { return s.world.paris.export("private", true) }))
	s.must(eventually("a mirror of private", func() error { // the name alone may be remembered from the last time
		if s.world.london.gone("private-paris") == nil {
			return errors.New("it is not there")
		}
		return nil
	}))
	s.serves("http://private-paris.default.svc.cluster.local/")
	s.must(s.world.paris.export("private", false))
	s.must(eventually("no mirror of private", func() error { return s.world.london.gone("private-paris") }))
}
