package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// isWrite reports whether a request would change an object of some resource in a namespace.
func isWrite(r *http.Request, namespace, resource string) bool {
	return r.Method != http.MethodGet && strings.Contains(r.URL.Path+"/", "/namespaces/"+namespace+"/"+resource+"/")
}

// failed is how an API server answers that cannot reach its store.
var failed = metav1.Status{Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: "no leader"}

// withoutProblems checks that a daemon shows no problem of any mirror of a remote, in metrics
// and on the page.
func (r *remote) withoutProblems(d *daemon, mirrors ...string) func() error {
	return func() error {
		for _, reason := range []string{"WriteFailed", "Conflict", "Rejected", "Overwritten"} {
			if err := d.measures(map[string]float64{r.problem(reason): 0})(); err != nil {
				return err
			}
		}
		for _, name := range mirrors {
			if _, reasons, messages, err := d.problemsOf(r.mirror(name)); err != nil || len(reasons) > 0 {
				return fmt.Errorf("the page says of %s %v %q, %v", r.mirror(name), reasons, messages, err)
			}
		}
		return nil
	}
}

// namesLeader checks that the page of a standby has the command that opens the leader's. All replicas run on this host.
func (r *replica) namesLeader(namespace string) func() error {
	return func() error {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		_, text, err := r.get("/")
		_, port, _ := strings.Cut(r.serves(), ":")
		if want := fmt.Sprintf("Pod %s leads; open its page: <code>kubectl -n %s port-forward pod/%[1]s %[3]s</code>", host, namespace, port); err != nil || !strings.Contains(text, want) {
			return fmt.Errorf("the page of the standby lacks %q: %v", want, err)
		}
		return nil
	}
}

// A replica that no longer leads does not show the problems of its time: the new leader may
// have fixed them, and an alert on them would never end.
func TestFormerLeaderShowsNoOldProblems(t *testing.T) {
	const duration = 6 * time.Second
	t.Parallel()
	rs := newReplicas(t, duration)
	r := rs.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	r.export("theirs")
	rs.foreignService(r.mirror("theirs"))
	toA := newProxy(t, london)
	a := rs.start("a", toA, r)
	rs.soon("a leader", a.leads(), r.mirrored("bar", "203.0.113.1"), a.measures(map[string]float64{r.problem("Conflict"): 1}))
	b := rs.start("b", nil, r)
	rs.soon("a standby that names the leader", b.answers("/readyz", 200), b.isStandby(), b.namesLeader(rs.id))
	toA.intercept(func(w http.ResponseWriter, request *http.Request, plain http.Handler) {
		if isWrite(request, rs.id, "services") {
			respond(w, failed)
			return
		}
		plain.ServeHTTP(w, request)
	})
	rs.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	rs.soon("the leader cannot write", a.measures(map[string]float64{r.problem("WriteFailed"): 1}))

	toA.cut()
	rs.eventually(duration+10*time.Second, "the other leads", b.leads())
	rs.soon("the former leader is a standby and shows no problems", a.isStandby(), r.withoutProblems(a.daemon))
	rs.remove(london, r.mirror("theirs"))
	rs.soon("the other has fixed all", r.mirrored("bar", "203.0.113.1"), r.mirrored("theirs", "203.0.113.1"), r.withoutProblems(b.daemon, "bar", "theirs"))
	toA.redirect(london, "")
	toA.heal()
	caughtUp := a.measures(map[string]float64{r.state("mirrored"): 2, r.state("incomplete"): 0, r.state("conflict"): 0})
	rs.soon("the former leader has caught up", caughtUp)
	rs.stays("the former leader shows no problems", a.isStandby(), b.leads(), caughtUp, r.withoutProblems(a.daemon, "bar", "theirs"))
}

// through puts a proxy between a test's daemon and London.
func (e *env) through() *proxy {
	e.Helper()
	p := newProxy(e.T, london)
	direct := e.kubeconfig
	e.kubeconfig += ".proxied"
	e.writeKubeconfig(e.kubeconfig, "https://"+p.address, p.ca, e.tokenOf(direct))
	return p
}

// Between two failed writes there may be a conflict: it does not end the failure.
func TestConflictBetweenFailuresMakesNoSecondEvent(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	toLondon := e.through()
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	const failures = 6 // after each the daemon waits for longer
	var writes atomic.Int32
	toLondon.intercept(func(w http.ResponseWriter, request *http.Request, plain http.Handler) {
		if !isWrite(request, e.id, "services") {
			plain.ServeHTTP(w, request)
			return
		}
		switch n := writes.Add(1); {
		case n > failures:
			plain.ServeHTTP(w, request)
		case n%2 == 0:
			respond(w, metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: "the object has been modified"})
		default:
			respond(w, failed)
		}
	})
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.eventually(40*time.Second, "the mirror, when writes succeed", r.mirrored("bar", "203.0.113.1"))
	reported := e.hasEvent(e.id, "Service/"+r.mirror("bar"), "WriteFailed", "no leader")
	e.soon("the Event", reported, r.withoutProblems(d, "bar"))
	e.stays("one Event", reported)
	if n := writes.Load(); n <= failures {
		t.Errorf("%d writes, want more than %d", n, failures)
	}
}

// A deletion of what does not exist any more writes nothing, and is not counted.
func TestDeletionOfNothingIsNotCounted(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	r.export("other")
	toLondon := e.through()
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirrors", r.mirrored("bar", "203.0.113.1"), r.mirrored("other", "203.0.113.1"))
	toLondon.intercept(func(w http.ResponseWriter, request *http.Request, plain http.Handler) {
		if request.Method == http.MethodDelete && strings.HasSuffix(request.URL.Path, "/"+r.mirror("bar")) { // someone else is quicker
			options, ctx := metav1.DeleteOptions{}, context.Background()
			if strings.Contains(request.URL.Path, "/services/") {
				london.CoreV1().Services(e.id).Delete(ctx, r.mirror("bar"), options)
			} else {
				london.CoreV1().Endpoints(e.id).Delete(ctx, r.mirror("bar"), options)
			}
		}
		plain.ServeHTTP(w, request)
	})
	since := london.mark(t)
	e.remove(paris, "bar")
	e.remove(paris, "other")
	e.soon("both gone", r.gone("bar"), r.gone("other"), d.measures(map[string]float64{r.state("mirrored"): 0, r.state("orphan"): 0, "queue_depth": 0}))
	deleted := map[string]float64{}
	missing := 0
	for kind, resource := range map[string]string{"Service": "services", "Endpoints": "endpoints"} {
		counts := e.requestsFor(resource, since)
		deleted[fmt.Sprintf(`writes_total{kind=%q,verb="delete"}`, kind)] = float64(counts["delete 200"])
		missing += counts["delete 404"]
	}
	if missing == 0 {
		t.Error("no deletion was answered 404")
	}
	e.soon("deletions are counted as the API server has done them", d.measures(deleted))
}
