package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// A watch that has one event and fails, in other words each time, is a few lines, and no mirror is touched.
func TestWatchThatFailsAfterEachEvent(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	f := r.behindFront(func(*httptest.Server) {})
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	since := london.mark(t)
	var opened atomic.Int32
	f.fail(exportsOnly(byVerb(map[verb]frontFault{streamedList: refuses(invalid), resumedWatch: func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		n := opened.Add(1)
		writeEvent(w, "BOOKMARK", corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: req.URL.Query().Get("resourceVersion")}})
		json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: 500, Reason: metav1.StatusReasonInternalError,
			Message: fmt.Sprintf("stream error: stream ID %d; INTERNAL_ERROR at %s", 2*n+1, time.Now().Format(time.RFC3339Nano)),
		}})
	}})))
	e.eventually(30*time.Second, "many watches", func() error {
		if n := opened.Load(); n < 15 {
			return fmt.Errorf("%d watches were opened", n)
		}
		return nil
	})
	if n := d.logged("stream error"); n == 0 || n > 3 {
		t.Errorf("%d watches failed, which is logged %d times", opened.Load(), n)
	}
	e.must(d.shows(r, "down", "stream error")())
	f.recover()
	e.eventually(lasting, "it is up again when that has lasted", d.shows(r, "up"))
	e.noWrites(since)
}

// A quota or a policy that refuses a Service leaves no Endpoints, whatever was there before, and is one problem.
func TestNothingIsLeftOfARefusedMirror(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(e *env) (allow func()){"a quota": (*env).quota, "a policy": (*env).policy} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			r := e.remote(paris)
			r.gateway("203.0.113.1")
			r.export("before")
			d := e.daemon([]*remote{r}, listening...)
			e.soon("a mirror", r.mirrored("before", "203.0.113.1"))
			allow := refuse(e)
			r.export("bar")
			e.soon("it is refused", d.measures(map[string]float64{r.state("refused"): 1, r.state("mirrored"): 1, r.problem("Rejected"): 1, r.problem("WriteFailed"): 0}))
			e.soon("nothing is left", r.gone("bar"))
			e.stays("nothing is left", r.gone("bar"), r.mirrored("before", "203.0.113.1"))
			d.stop()
			e.must(london.CoreV1().Services(e.id).Delete(e.ctx, r.mirror("before"), metav1.DeleteOptions{}))
			d = e.daemon([]*remote{r}, listening...)
			e.soon("both are refused", d.measures(map[string]float64{r.state("refused"): 2, r.problem("Rejected"): 2}))
			e.soon("nothing is left of them", r.gone("bar"), r.gone("before"))
			for _, one := range []string{"bar", "before"} {
				e.logs(d, "has a problem", r.mirror(one))
				if n := d.logged("has a problem", r.mirror(one)); n != 1 {
					t.Errorf("%s is logged %d times", one, n)
				}
			}
			allow()
			e.eventually(45*time.Second, "both, once they are allowed", r.mirrored("bar", "203.0.113.1"))
			e.eventually(45*time.Second, "both, once they are allowed", r.mirrored("before", "203.0.113.1"))
		})
	}
}

// quota allows no further Service in the test's namespace.
func (e *env) quota() (allow func()) {
	e.Helper()
	quotas := e.local.CoreV1().ResourceQuotas(e.id)
	none := corev1.ResourceList{corev1.ResourceServices: resource.MustParse("0")}
	_, err := quotas.Create(e.ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: none}}, metav1.CreateOptions{})
	e.must(err)
	e.soon("the quota's status", func() error { // as its controller writes it, which does not run; the API server does, too
		quota, err := quotas.Get(e.ctx, "none", metav1.GetOptions{})
		if err != nil {
			return err
		}
		quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
		_, err = quotas.UpdateStatus(e.ctx, quota, metav1.UpdateOptions{})
		return err
	})
	e.refusesServices()
	return func() { e.must(quotas.Delete(e.ctx, "none", metav1.DeleteOptions{})) }
}

// policy denies the creation of Services in the test's namespace.
func (e *env) policy() (allow func()) {
	e.Helper()
	fail := admissionv1.Fail
	policies, bindings := e.local.AdmissionregistrationV1().ValidatingAdmissionPolicies(), e.local.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err := policies.Create(e.ctx, &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: e.id}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: &fail,
		MatchConstraints: &admissionv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: e.id}},
			ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}},
			}}},
		},
		Validations: []admissionv1.Validation{{Expression: "false", Message: "no Services here", Reason: ptr(metav1.StatusReasonForbidden)}},
	}}, metav1.CreateOptions{})
	e.must(err)
	_, err = bindings.Create(e.ctx, &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: e.id}, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: e.id, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}, metav1.CreateOptions{})
	e.must(err)
	remove := func(ctx context.Context) {
		bindings.Delete(ctx, e.id, metav1.DeleteOptions{})
		policies.Delete(ctx, e.id, metav1.DeleteOptions{})
	}
	e.Cleanup(func() { remove(context.Background()) })
	e.refusesServices()
	return func() { remove(e.ctx) }
}

func ptr[T any](v T) *T { return &v }

// refusesServices waits until a Service is refused.
func (e *env) refusesServices() {
	e.Helper()
	e.eventually(30*time.Second, "that a Service is refused", func() error {
		_, err := e.local.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "tried"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// A leader that was suspended shows at once that it may not write, notices with its next renewal that another
// leads, and does not log what it could not write.
func TestSuspendedLeaderIsQuiet(t *testing.T) {
	const duration = 6 * time.Second
	rs := newReplicas(t, duration)
	r := rs.remote(paris)
	r.gateway("203.0.113.1")
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("bar%d", i))
		r.export(names[i])
	}
	a := rs.start("a", nil, r)
	rs.soon("a leads", a.leads())
	b := rs.start("b", nil, r)
	rs.eventually(30*time.Second, "the mirrors", r.mirrored(names[len(names)-1], "203.0.113.1"))
	rs.soon("b is a standby", b.isStandby())
	a.signal(syscall.SIGSTOP)
	rs.eventually(2*duration+10*time.Second, "b leads", b.leads())
	r.gateway("203.0.113.2") // which the one that is suspended wants to write, too
	for _, name := range names {
		rs.soon("b has written", r.mirrored(name, "203.0.113.2"))
	}
	a.signal(syscall.SIGCONT)
	rs.must(a.isStandby()()) // from the first answer on
	rs.soon("it notices", func() error {
		if a.logged("Lost the Lease") != 1 {
			return fmt.Errorf("it is not logged")
		}
		return nil
	})
	rs.stays("it stays a standby", a.isStandby(), b.leads())
	for _, text := range []string{"a problem", "nothing is written until this one has the Lease again", "Unable to write event", "rejected event"} {
		if n := a.logged(text); n > 0 {
			t.Errorf("%q is logged %d times", text, n)
		}
	}
	a.stop()
	b.stop()
}

// The status page is served under addresses, localhost and the names that the flags list: to whoever looks at it
// through the API server, too.
func TestHostsOfTheStatusPage(t *testing.T) {
	e := newEnv(t)
	address := e.healthyAddress()
	d := e.inPod(nil, "--leader-elect", "--leader-elect-lease", e.id+"/x", "--listen", address+":0", "--listen-host", "london.example.com,sm.example.com")
	served := d.serves()
	pods := e.local.CoreV1().Pods(e.id)
	pod, err := pods.Get(e.ctx, "daemon", metav1.GetOptions{})
	e.must(err)
	pod.Status.PodIP, pod.Status.PodIPs = address, []corev1.PodIP{{IP: address}}
	_, err = pods.UpdateStatus(e.ctx, pod, metav1.UpdateOptions{})
	e.must(err)
	_, port, _ := strings.Cut(served, ":")
	proxied := e.local.config.Host + "/api/v1/namespaces/" + e.id + "/pods/daemon:" + port + "/proxy"
	admin, err := rest.HTTPClientFor(e.local.config)
	e.must(err)
	for _, test := range []struct {
		url, host string
		want      int
	}{
		{"http://" + served, "", 200}, {"http://" + served, "localhost:8080", 200}, {"http://" + served, "sm.example.com", 200},
		{"http://" + served, "evil.example.com", 421}, {"http://" + served, "evil.example.com:8080", 421},
		{proxied, "", 200}, {proxied, "london.example.com:6443", 200}, {proxied, "evil.example.com", 421},
	} {
		for _, path := range []string{"/", "/status.json", "/metrics", "/healthz"} {
			want := test.want
			if path == "/healthz" { // a probe
				want = 200
			}
			e.soon(fmt.Sprintf("%s%s as %q", test.url, path, test.host), func() error {
				req, err := http.NewRequestWithContext(e.ctx, http.MethodGet, test.url+path, nil)
				if err != nil {
					return err
				}
				req.Host = test.host
				client := http.DefaultClient
				if test.url == proxied {
					client = admin
				}
				resp, err := client.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if resp.StatusCode != want {
					return fmt.Errorf("status %d, want %d: %.300s", resp.StatusCode, want, body)
				}
				return err
			})
		}
	}
}

// What --check cannot read, and whose answer is not Paris's, must be fixed.
func TestCheckDoesNotMislead(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	d.stop()
	failing := func(got ran, words ...string) {
		t.Helper()
		if got.code != 1 || !slices.ContainsFunc(got.marked("-"), func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		}) {
			t.Errorf("%v\nwant exit code 1, and a line with - and %q", got, words)
		}
		if strings.Contains(got.stdout, "credentials") || strings.ContainsAny(got.stdout, "\x1b\r") {
			t.Errorf("%q", got.stdout)
		}
	}
	kept := r.kubeconfig
	b := e.remote(berlin)
	b.gateway("203.0.113.1")
	r.kubeconfig = b.kubeconfig
	failing(e.once([]*remote{r}, "--check"), "remote "+r.name, "points to the cluster with UID", "its mirrors are from the cluster with UID", "uid=")
	r.kubeconfig = kept

	f := r.behindFront(func(*httptest.Server) {})
	f.fail(answers("text/html", "<title>Sign in\x1b[2J\r\n+ all is well</title>"))
	got := e.once([]*remote{r}, "--check")
	failing(got, "remote "+r.name, "<title>Sign in", "login page")
	f.fail(exportsOnly(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }))
	failing(e.once([]*remote{r}, "--check"), "remote "+r.name, "exported Services cannot be read")
}
