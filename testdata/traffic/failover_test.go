package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

const (
	failoverAfter = time.Second // the default of --failover-after
	failbackAfter = 3 * time.Second
	// failoverLimit is how long errors may last in all. A second beyond failoverAfter is the goal; a machine that everything
	// shares needs more.
	failoverLimit = failoverAfter + 20*time.Second
)

// failing is a Service bar of London's own that fails over to Paris and, if Paris cannot, to Berlin.
type failing struct{ *called }

// failover kills London's last pod of bar under load, in each of the ways in which something else may be dead as well.
func (s *scene) failover() {
	s.install(s.world.paris, "nginx", parisAddresses)
	s.install(s.world.berlin, "nginx", []string{berlinAddress}, edit{"cluster.conf", "default paris;", "default berlin;"})
	flags := []string{"--probe=tcp", "--probe-period=500ms", "--probe-timeout=500ms", "--probe-threshold=3", "--failback-after=" + failbackAfter.String()}
	s.must(s.world.startDaemon(flags...))
	s.Cleanup(func() { s.must(s.world.startDaemon()) })
	s.localBar()
	mark, err := s.world.london.Mark()
	s.must(err)
	s.must(s.world.london.patch("default", "bar", map[string]any{"metadata": map[string]any{
		"labels":      map[string]any{"service-mirror.io/failover": "true"},
		"annotations": map[string]any{"service-mirror.io/failover": "paris,berlin"},
	}}))
	svc, err := s.world.london.CoreV1().Services("default").Get(s.Context(), "bar", metav1.GetOptions{})
	s.must(err)
	f := &failing{s.called(svc)}
	s.must(eventually("slices of both remotes, not ready", func() error {
		return errors.Join(f.steps.is("bar.paris.ipv4", false), f.steps.is("bar.berlin.ipv4", false))
	}))
	f.answeredBy("london")

	f.podDies()
	f.podComesBack()
	f.daemonDead(flags)
	f.remotesDead()
	f.ownersBytes(mark, svc)
	s.must(s.gateway.remove())
}

// podDies has the pod not ready any more: errors until Paris answers, and none after that.
func (f *failing) podDies() {
	load := f.load()
	f.answeredBy("london")
	begin := time.Now()
	f.localReady(false)
	f.answeredBy("paris")
	result := f.ended(load, "london", "paris")
	slice, err := f.steps.after(begin, "bar-", false)
	f.must(err)
	ours, err := f.steps.after(begin, "bar.paris.ipv4", true)
	f.must(err)
	failed := result.LastFailed.Sub(begin)
	f.Logf("London's last pod died: Kubernetes' slice said so after %v, the daemon's slice was ready after %v, the last request failed after %v; of %d, %d a second, %d failed",
		slice.Sub(begin).Round(time.Millisecond), ours.Sub(begin).Round(time.Millisecond), failed.Round(time.Millisecond), result.Sent, hurried, result.Failed)
	if failed > failoverLimit {
		f.Errorf("requests failed for %v: %q", failed, result.Errors)
	}
}

// podComesBack has no request notice that.
func (f *failing) podComesBack() {
	load := f.load()
	f.answeredBy("paris")
	begin := time.Now()
	f.localReady(true)
	f.idle()
	f.Logf("London's pod came back: the remote's slice was idle after %v", time.Since(begin).Round(time.Millisecond))
	f.answeredBy("london")
	f.none("London's pod came back", f.ended(load, "london", "paris"))
}

// daemonDead has no daemon: local pods are right all the same, and what had failed over stays so until one is back.
func (f *failing) daemonDead(flags []string) {
	f.world.daemon.stop(syscall.SIGKILL)
	load := f.load()
	for range 10 { // the load takes its time to begin
		f.answeredBy("london")
	}
	f.none("the daemon was dead", f.ended(load, "london"))
	f.localReady(false)
	f.refusedAll()
	f.localReady(true)
	f.answeredBy("london")
	f.must(f.world.startDaemon(flags...))

	f.localReady(false)
	f.answeredBy("paris")
	f.world.daemon.stop(syscall.SIGKILL)
	load = f.load()
	f.answeredBy("paris")
	f.localReady(true)
	f.must(eventually("an answer of London as well", func() error {
		got, err := f.world.call(f.url...)
		if err == nil && got.Backend != "bar of london" {
			err = errors.New(got.Backend + " answers")
		}
		return err
	}))
	f.none("the pod came back while the daemon was dead", f.ended(load, "london", "paris"))
	f.must(f.steps.is("bar.paris.ipv4", true))
	load = f.load()
	f.must(f.world.startDaemon(flags...))
	f.idle()
	f.none("the daemon came back", f.ended(load, "london", "paris"))
}

// remotesDead has Paris without its API server, which changes nothing, and then without its gateway, and Berlin answers.
func (f *failing) remotesDead() {
	noticed := f.logged("mirrors are kept unchanged")
	f.world.paris.Stop()
	f.must(eventually("the daemon notices", func() error {
		if f.logged("mirrors are kept unchanged") == noticed {
			return errors.New("it does not")
		}
		return nil
	}))
	begin := time.Now()
	load := f.load()
	f.localReady(false)
	f.answeredBy("paris")
	result := f.ended(load, "london", "paris")
	f.Logf("the same without Paris's API server: the last request failed after %v", result.LastFailed.Sub(begin).Round(time.Millisecond))
	if failed := result.LastFailed.Sub(begin); failed > failoverLimit {
		f.Errorf("requests failed for %v: %q", failed, result.Errors)
	}

	load = f.load()
	f.answeredBy("paris")
	begin = time.Now()
	f.must(f.world.paris.silence(parisAddresses...))
	f.Cleanup(func() { f.must(f.world.paris.silence()) })
	f.answeredBy("berlin")
	result = f.ended(load, "paris", "berlin")
	f.Logf("Paris's gateway died as well: the last request failed that began after %v; of %d, %d failed", result.LastFailed.Sub(begin).Round(time.Millisecond), result.Sent, result.Failed)
	if failed := result.LastFailed.Sub(begin); failed > failoverLimit {
		f.Errorf("requests failed for %v: %q", failed, result.Errors)
	}

	load = f.load()
	f.localReady(true)
	f.idle()
	f.answeredBy("london")
	f.none("London's pod came back, from Berlin", f.ended(load, "london", "berlin"))
	f.must(f.world.paris.silence())
	f.must(f.world.paris.startServer())
	f.must(f.world.paris.startProxy())
	f.lives()
}

// ownersBytes has the audit log say that the daemon has written its own slices beside bar, and nothing else of it.
func (f *failing) ownersBytes(since harness.Mark, before *corev1.Service) {
	daemon := harness.ServiceAccountUser("default", "service-mirror")
	writes, err := f.world.london.Requests(since, daemon, func(r harness.Request) bool {
		return r.User.Username == daemon && r.Writes() && (r.ObjectRef.Resource == "endpointslices" || r.ObjectRef.Name == "bar")
	})
	f.must(err)
	for _, write := range writes {
		if write.Verb == "create" && write.ObjectRef.Resource == "endpointslices" && write.ObjectRef.Name == "" {
			continue // its name is in the body, and it changes nothing that exists
		}
		if write.ObjectRef.Resource != "endpointslices" || !strings.HasPrefix(write.ObjectRef.Name, "bar.paris.") && !strings.HasPrefix(write.ObjectRef.Name, "bar.berlin.") {
			f.Errorf("the daemon has written what is not its own: %v", write)
		}
	}
	if len(writes) < 8 {
		f.Errorf("the audit log has %d writes of the daemon's slices, and it has failed over and back more often: %v", len(writes), writes)
	}
	after, err := f.world.london.CoreV1().Services("default").Get(f.Context(), "bar", metav1.GetOptions{})
	f.must(err)
	if after.ResourceVersion != before.ResourceVersion {
		f.Errorf("the Service was changed: %v", after)
	}
	f.Logf("the daemon has written %d times, its own slices alone", len(writes))
}

// localReady does what a kubelet does when the readiness probe of London's bar fails or succeeds.
func (f *failing) localReady(ready bool) {
	f.Helper()
	pods := f.world.london.CoreV1().Pods("default")
	pod, err := pods.Get(f.Context(), "bar", metav1.GetOptions{})
	f.must(err)
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	_, err = pods.UpdateStatus(f.Context(), pod, metav1.UpdateOptions{})
	f.must(err)
}

// refusedAll waits until nobody answers.
func (f *failing) refusedAll() {
	f.Helper()
	f.must(eventually("no answer", func() error {
		got, err := f.world.call(f.url...)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			return fmt.Errorf("got %+v, %v", got, err)
		}
		return nil
	}))
}

// idle waits until no remote's slice is ready.
func (f *failing) idle() {
	f.Helper()
	f.must(eventually("idle slices", func() error {
		return errors.Join(f.steps.is("bar.paris.ipv4", false), f.steps.is("bar.berlin.ipv4", false))
	}))
}
