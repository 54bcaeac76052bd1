package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var dryRun = []string{metav1.DryRunAll}

// webhook rewrites each Service of a test's namespace that is updated, until the test ends. It
// returns how many updates it has rewritten, those without an effect left out.
func (e *env) webhook(patch string) (rewritten func() int32) {
	e.Helper()
	certificate, ca := selfSigned(e.T)
	var count atomic.Int32
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	server := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		ErrorLog:  log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var review admissionv1.AdmissionReview
			if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
				http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
				return
			}
			if review.Request.DryRun == nil || !*review.Request.DryRun {
				count.Add(1)
			}
			kind := admissionv1.PatchTypeJSONPatch
			review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: []byte(patch), PatchType: &kind}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(review)
		}),
	}
	go server.ServeTLS(listener, "", "")
	e.Cleanup(func() { server.Close() })

	url, none, fail := "https://"+listener.Addr().String()+"/", registrationv1.SideEffectClassNone, registrationv1.Fail
	_, err = e.local.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(e.ctx, &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: e.id},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name:                    e.id + ".example.com",
			ClientConfig:            registrationv1.WebhookClientConfig{URL: &url, CABundle: ca},
			Rules:                   []registrationv1.RuleWithOperations{services(registrationv1.Update)},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: e.id}},
			SideEffects:             &none,
			FailurePolicy:           &fail,
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.Cleanup(func() {
		e.local.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(context.Background(), e.id, metav1.DeleteOptions{})
	})
	return count.Load
}

func services(operation registrationv1.OperationType) registrationv1.RuleWithOperations {
	return registrationv1.RuleWithOperations{
		Operations: []registrationv1.OperationType{operation},
		Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}},
	}
}

// deny has a ValidatingAdmissionPolicy refuse an operation on a Service of the test's namespace,
// until allow is called or the test ends. Both return once that is in effect.
func (e *env) deny(operation registrationv1.OperationType, service string) (allow func()) {
	e.Helper()
	policies, bindings := e.local.AdmissionregistrationV1().ValidatingAdmissionPolicies(), e.local.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	name := metav1.ObjectMeta{Name: e.id}
	_, err := policies.Create(e.ctx, &registrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: name,
		Spec: registrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &registrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: e.id}},
				ResourceRules:     []registrationv1.NamedRuleWithOperations{{RuleWithOperations: services(operation)}},
			},
			Validations: []registrationv1.Validation{{Expression: `object.metadata.name != "` + service + `"`, Message: "not this one"}},
		},
	}, metav1.CreateOptions{})
	e.must(err)
	_, err = bindings.Create(e.ctx, &registrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: name,
		Spec:       registrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: e.id, ValidationActions: []registrationv1.ValidationAction{registrationv1.Deny}},
	}, metav1.CreateOptions{})
	e.must(err)
	remove := func() {
		bindings.Delete(context.Background(), e.id, metav1.DeleteOptions{})
		policies.Delete(context.Background(), e.id, metav1.DeleteOptions{})
	}
	e.Cleanup(remove)
	inEffect := func(want bool) func() error {
		return func() error {
			if denied, err := e.tries(operation, service); denied != want {
				return fmt.Errorf("denied: %v, want %v (%v)", denied, want, err)
			}
			return nil
		}
	}
	e.eventually(30*time.Second, "the policy in effect", inEffect(true))
	return func() {
		e.Helper()
		remove()
		e.eventually(30*time.Second, "no policy in effect", inEffect(false))
	}
}

// tries reports whether an operation on a Service is refused, in a dry run.
func (e *env) tries(operation registrationv1.OperationType, service string) (denied bool, err error) {
	api := e.local.CoreV1().Services(e.id)
	if operation == registrationv1.Create {
		_, err = api.Create(e.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: service}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{DryRun: dryRun})
		return apierrors.IsInvalid(err), err
	}
	svc, err := api.Get(e.ctx, service, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	_, err = api.Update(e.ctx, svc, metav1.UpdateOptions{DryRun: dryRun})
	return apierrors.IsInvalid(err), err
}

// A webhook that rewrites a field of the mirror Service has the daemon back off from that
// Service alone: its Endpoints follow the gateway.
func TestWebhookDoesNotDelayTheEndpoints(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	rewritten := e.webhook(`[{"op": "replace", "path": "/spec/sessionAffinity", "value": "ClientIP"}]`)
	e.eventually(30*time.Second, "the webhook in effect", func() error {
		svc, err := london.CoreV1().Services(e.id).Update(e.ctx, e.service(r.mirror("bar")), metav1.UpdateOptions{DryRun: dryRun})
		if err == nil && svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
			err = fmt.Errorf("session affinity is %s", svc.Spec.SessionAffinity)
		}
		return err
	})
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	// After the fifth try it waits for longer than the Endpoints may.
	e.eventually(40*time.Second, "the daemon backs off", func() error {
		if n := rewritten(); n < 5 {
			return fmt.Errorf("%d updates were rewritten", n)
		}
		return nil
	})
	e.soon("the reason", d.measures(map[string]float64{r.problem("Overwritten"): 1}))
	for i := range 3 {
		address := fmt.Sprintf("203.0.113.%d", 2+i)
		r.gateway(address)
		e.eventually(10*time.Second, "the Endpoints at "+address, r.leads("bar", to("http:8080", address)...))
	}
	if n := rewritten(); n > 8 {
		t.Errorf("the Service was updated %d times: moves of the gateway must not count for it", n)
	}
}

// A policy that refuses updates of the mirror Service does not let edits of its Endpoints persist.
func TestRejectedServiceDoesNotDelayTheEndpoints(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	name := r.mirror("bar")
	allow := e.deny(registrationv1.Update, name)
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	rejected := d.measures(map[string]float64{r.problem("Rejected"): 1})
	e.soon("the update is rejected", rejected)
	right := r.leads("bar", to("http:8080", "203.0.113.1")...)
	for range 3 {
		endpoints := e.endpoints(name)
		endpoints.Subsets[0].Addresses[0].IP = "192.0.2.1"
		_, err := london.CoreV1().Endpoints(e.id).Update(e.ctx, endpoints, metav1.UpdateOptions{})
		e.must(err)
		e.soon("the edit of the Endpoints is undone", right)
	}
	e.must(london.CoreV1().Endpoints(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}))
	e.soon("the deleted Endpoints", right)
	r.gateway("203.0.113.2")
	e.soon("the gateway's new address", r.leads("bar", to("http:8080", "203.0.113.2")...))
	e.must(rejected())
	allow()
	e.eventually(45*time.Second, "the update, once it is allowed", r.mirrored("bar", "203.0.113.2"))
	e.soon("nothing is wrong", d.measures(map[string]float64{r.problem("Rejected"): 0}))
}

// Once the policy that refused a mirror is gone, the mirror appears without a change elsewhere.
func TestRefusedMirrorAppearsOnceItIsAllowed(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	allow := e.deny(registrationv1.Create, r.mirror("bar"))
	r.export("bar")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("it is rejected", d.measures(map[string]float64{r.problem("Rejected"): 1, r.state("refused"): 1}))
	e.soon("nothing is left of it", r.gone("bar"))
	allow()
	e.eventually(45*time.Second, "the mirror", r.mirrored("bar", "203.0.113.1"))
	e.soon("nothing is wrong", d.measures(map[string]float64{r.problem("Rejected"): 0, r.state("mirrored"): 1}))
}
