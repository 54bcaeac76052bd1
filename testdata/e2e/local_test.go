package e2e

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

func TestLocalDrift(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	e.daemon([]*remote{r})
	right := r.mirrored("bar", "203.0.113.1")
	e.soon("the mirror", right)
	name := r.mirror("bar")
	clusterIP := e.service(name).Spec.ClusterIP
	editEndpoints := func(change func(*corev1.Endpoints)) {
		t.Helper()
		e.soon("an edit of the Endpoints", func() error { // which Kubernetes may delete a little after their Service
			endpoints, err := london.CoreV1().Endpoints(e.id).Get(e.ctx, name, metav1.GetOptions{})
			if err == nil && len(endpoints.Subsets) == 0 {
				err = errors.New("they are empty")
			}
			if err != nil {
				return err
			}
			change(endpoints)
			_, err = london.CoreV1().Endpoints(e.id).Update(e.ctx, endpoints, metav1.UpdateOptions{})
			return err
		})
	}
	for what, drift := range map[string]func(){
		"the Service deleted": func() { e.remove(london, name) },
		"the Endpoints deleted": func() {
			e.soon("a deletion of the Endpoints", func() error {
				return london.CoreV1().Endpoints(e.id).Delete(e.ctx, name, metav1.DeleteOptions{})
			})
		},
		"a port edited": func() { e.change(london, name, func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 8888 }) },
		"a selector added": func() {
			e.change(london, name, func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "none"} })
		},
		"the type changed": func() {
			e.change(london, name, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
		},
		"the type changed to LoadBalancer": func() {
			e.change(london, name, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
		},
		"the family policy changed": func() {
			e.change(london, name, func(svc *corev1.Service) {
				single := corev1.IPFamilyPolicySingleStack
				svc.Spec.IPFamilyPolicy = &single
			})
		},
		"an address edited": func() {
			editEndpoints(func(endpoints *corev1.Endpoints) { endpoints.Subsets[0].Addresses[0].IP = "192.0.2.1" })
		},
		"an address added": func() {
			editEndpoints(func(endpoints *corev1.Endpoints) {
				endpoints.Subsets[0].Addresses = append(endpoints.Subsets[0].Addresses, corev1.EndpointAddress{IP: "192.0.2.1"})
			})
		},
	} {
		drift()
		time.Sleep(20 * time.Millisecond) // the check could pass before the edit arrives
		e.soon(what, right)
	}
	if now := e.service(name).Spec.ClusterIP; now != clusterIP {
		t.Errorf("the ClusterIP was %s and is %s", clusterIP, now)
	}

	e.change(london, name, func(svc *corev1.Service) {
		svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	})
	e.soon("the type changed to ExternalName", right)

	// What would stop traffic is removed; what is not ours stays.
	e.change(london, name, func(svc *corev1.Service) {
		svc.Labels["service.kubernetes.io/service-proxy-name"] = "other"
		svc.Labels["team"] = "theirs"
		svc.Annotations["service-mirror.io/remote-service"] = "somewhere/else"
		svc.Annotations["note"] = "theirs"
	})
	editEndpoints(func(endpoints *corev1.Endpoints) { endpoints.Labels[discoveryv1.LabelSkipMirror] = "true" })
	e.soon("labels and annotations", func() error {
		svc := e.service(name)
		endpoints, err := london.CoreV1().Endpoints(e.id).Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err // Kubernetes deletes them a little after their Service
		}
		_, proxyName := svc.Labels["service.kubernetes.io/service-proxy-name"]
		_, skip := endpoints.Labels[discoveryv1.LabelSkipMirror]
		if proxyName || skip || svc.Labels["team"] != "theirs" || svc.Annotations["note"] != "theirs" ||
			svc.Annotations["service-mirror.io/remote-service"] != e.id+"/bar" {
			return fmt.Errorf("labels %v, annotations %v, Endpoints' labels %v", svc.Labels, svc.Annotations, endpoints.Labels)
		}
		return nil
	})
}

// Each round has a mirror of its own: a slice that is deleted before the
// EndpointSlice controller has handled the response to its create stays in that
// controller's tracker, and it never writes a slice for that Service again.
func TestSelectorWithPodsBehindIt(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	d := e.daemon([]*remote{r})
	e.readyPod("web", "10.1.2.3")

	for round := range 3 {
		bar := fmt.Sprintf("bar-%d", round)
		r.export(bar)
		right, slicesRight := r.mirrored(bar, "203.0.113.1"), r.slicesLead(bar, to("http:8080", "203.0.113.1")...)
		e.soon("the mirror", right, slicesRight)
		d.signal(syscall.SIGSTOP) // so that the controllers see the selector
		e.change(london, r.mirror(bar), func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "web"} })
		e.soon("the local pod in the slices", r.slicesLead(bar, "10.1.2.3 http:80"))
		d.signal(syscall.SIGCONT)
		e.soon("no selector, and the gateway alone", right, slicesRight)
		e.stays("the gateway alone", right, slicesRight)
	}
}

// readyPod makes a pod that looks ready on a node that exists.
func (e *env) readyPod(app, ip string) {
	e.Helper()
	e.must(london.CreateReadyPod(e.ctx, harness.Pod{Namespace: e.id, App: app, Node: e.id, IP: ip}))
}

// A policy of the local cluster refuses a mirror, as one for names or labels may.
func TestPolicyRefusesAMirror(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	policies, bindings := london.AdmissionregistrationV1().ValidatingAdmissionPolicies(), london.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	name := metav1.ObjectMeta{Name: e.id}
	_, err := policies.Create(e.ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: name,
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: `object.metadata.name != "` + r.mirror("denied") + `"`, Message: "no such name here"}},
		},
	}, metav1.CreateOptions{})
	e.must(err)
	defer policies.Delete(e.ctx, e.id, metav1.DeleteOptions{})
	_, err = bindings.Create(e.ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: name,
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: e.id, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{})
	e.must(err)
	defer bindings.Delete(e.ctx, e.id, metav1.DeleteOptions{})
	e.eventually(30*time.Second, "the policy at work", func() error {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: r.mirror("denied")}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := london.CoreV1().Services(e.id).Create(e.ctx, svc, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); !apierrors.IsInvalid(err) {
			return fmt.Errorf("the Service is taken: %v", err)
		}
		return nil
	})
	d := e.daemon([]*remote{r})
	since := london.mark(t)
	r.export("denied")
	e.logs(d, "Rejected", "no such name here")
	r.export("bar")
	e.soon("another mirror", r.mirrored("bar", "203.0.113.1"))
	e.stays("nothing of it", r.gone("denied"))
	tries := 0
	for _, w := range london.writes(t, e.id, since) {
		if w.Verb == "create" && w.ObjectRef.Resource == "services" && w.ObjectRef.Name != r.mirror("bar") {
			tries++
		}
	}
	if tries < 2 || tries > 7 || d.logged("Rejected") != 1 {
		t.Errorf("tried %d times, want after 1, 2, 4 and 8 seconds; logged %d times, want once", tries, d.logged("Rejected"))
	}
	before := len(london.writes(t, e.id, since))
	e.change(paris, "denied", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 }) // it might be accepted now
	e.soon("another try", func() error {
		if d.logged("Rejected") == 0 || len(london.writes(t, e.id, since)) == before {
			return fmt.Errorf("writes %v", london.writes(t, e.id, since))
		}
		return nil
	})
}

func TestNamespaceComesAndGoes(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	other := e.id + "-other"
	e.makeNamespace(paris, other)
	bar := r.exported("bar", func(svc *corev1.Service) { svc.Namespace = other })
	_, err := paris.CoreV1().Services(other).Create(e.ctx, bar, metav1.CreateOptions{})
	e.must(err)
	d := e.daemon([]*remote{r})
	mirror := func() error {
		endpoints, err := london.CoreV1().Endpoints(other).Get(e.ctx, r.mirror("bar"), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if addresses, _ := contents(endpoints); !slices.Equal(addresses, []string{"203.0.113.1"}) {
			return fmt.Errorf("the mirror routes to %v", addresses)
		}
		_, err = london.CoreV1().Services(other).Get(e.ctx, r.mirror("bar"), metav1.GetOptions{})
		return err
	}
	namespaceIs := func(there bool) func() error {
		return func() error {
			if _, err := london.CoreV1().Namespaces().Get(e.ctx, other, metav1.GetOptions{}); (err == nil) != there {
				return fmt.Errorf("namespace there: %v (%v)", err == nil, err)
			}
			return nil
		}
	}
	e.logs(d, "NamespaceMissing", "bar")
	since := london.mark(t)
	e.stays("no namespace", namespaceIs(false))
	e.noWrites(since)
	e.must(e.create(london, other))
	e.soon("the mirror", mirror)

	since = london.mark(t)
	e.must(london.CoreV1().Namespaces().Delete(e.ctx, other, metav1.DeleteOptions{}))
	e.eventually(30*time.Second, "the namespace gone", namespaceIs(false))
	e.stays("no namespace", namespaceIs(false))
	if writes := london.writes(t, e.id, since); len(writes) > 4 {
		t.Errorf("writes while the namespace is being deleted: %v", writes)
	}
	e.must(e.create(london, other))
	e.soon("the mirror again", mirror)

	d.stop()
	e.must(london.CoreV1().Namespaces().Delete(e.ctx, other, metav1.DeleteOptions{}))
	e.daemon([]*remote{r}, "--create-namespaces")
	e.eventually(time.Minute, "the mirror in a namespace made for it", func() error {
		ns, err := london.CoreV1().Namespaces().Get(e.ctx, other, metav1.GetOptions{})
		if err == nil && ns.DeletionTimestamp != nil {
			err = fmt.Errorf("the old namespace still exists")
		}
		if err != nil {
			return err
		}
		return mirror()
	})
	e.Cleanup(func() {
		if err := london.CoreV1().Namespaces().Delete(e.ctx, other, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Log(err)
		}
	})
}
