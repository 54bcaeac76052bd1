package plan

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDiff(t *testing.T) {
	live, desired := storedBar(), storedBar()
	service := func(change func(*corev1.Service)) Objects {
		out := Objects{Service: desired.Service.DeepCopy(), Endpoints: desired.Endpoints}
		change(out.Service)
		return out
	}
	endpoints := func(change func(*corev1.Endpoints)) Objects {
		out := Objects{Service: desired.Service, Endpoints: desired.Endpoints.DeepCopy()}
		change(out.Endpoints)
		return out
	}
	const (
		nothing = iota
		theService
		theEndpoints
	)
	for _, test := range []struct {
		name    string
		desired Objects
		update  int
	}{
		{"the same", desired, nothing},
		{"status and managed fields are not ours", service(func(s *corev1.Service) {
			s.Status.Conditions = []metav1.Condition{{Type: "x"}}
			s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x"}}
		}), nothing},
		{"a label", service(func(s *corev1.Service) { s.Labels["a"] = "b" }), theService},
		{"an annotation", service(func(s *corev1.Service) { delete(s.Annotations, ClusterUIDAnnotation) }), theService},
		{"a port", service(func(s *corev1.Service) { s.Spec.Ports[0].Port++ }), theService},
		{"a selector", service(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"a": "b"} }), theService},
		{"an empty selector is none", service(func(s *corev1.Service) { s.Spec.Selector = map[string]string{} }), nothing},
		{"a label of the Endpoints", endpoints(func(e *corev1.Endpoints) { e.Labels["a"] = "b" }), theEndpoints},
		{"an annotation of the Endpoints", endpoints(func(e *corev1.Endpoints) { e.Annotations["a"] = "b" }), theEndpoints},
		{"no annotations of the Endpoints", endpoints(func(e *corev1.Endpoints) { e.Annotations = map[string]string{} }), theEndpoints},
		{"an address", endpoints(func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = "192.0.2.2" }), theEndpoints},
		{"an endpoint port", endpoints(func(e *corev1.Endpoints) { e.Subsets[0].Ports[1].Port++ }), theEndpoints},
		{"no subsets", endpoints(func(e *corev1.Endpoints) { e.Subsets = nil }), theEndpoints},
		{"order of the endpoint ports", endpoints(func(e *corev1.Endpoints) {
			ports := e.Subsets[0].Ports
			ports[0], ports[1] = ports[1], ports[0]
		}), nothing},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want Changes
			switch test.update {
			case theService:
				want.Update.Service = test.desired.Service
			case theEndpoints:
				want.Update.Endpoints = test.desired.Endpoints
			}
			got := Diff(live, test.desired)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", text(got), text(want))
			}
			if got.Empty() != (test.update == nothing) {
				t.Errorf("Empty is %v", got.Empty())
			}
		})
	}
}

func TestDiffOfAbsentObjects(t *testing.T) {
	live, desired := storedBar(), mirrorOfBar()
	for _, test := range []struct {
		name          string
		live, desired Objects
		want          Changes
	}{
		{"nothing", Objects{}, Objects{}, Changes{}},
		{"create", Objects{}, desired, Changes{Create: desired}},
		{"delete, the live objects for their UID", live, Objects{}, Changes{Delete: live}},
		{"delete half a pair", Objects{Endpoints: live.Endpoints}, Objects{}, Changes{Delete: Objects{Endpoints: live.Endpoints}}},
		{"create the Service", Objects{Endpoints: live.Endpoints}, Objects{Service: desired.Service, Endpoints: live.Endpoints},
			Changes{Create: Objects{Service: desired.Service}}},
		{"create the Endpoints", Objects{Service: live.Service}, Objects{Service: live.Service, Endpoints: desired.Endpoints},
			Changes{Create: Objects{Endpoints: desired.Endpoints}}},
	} {
		if got := Diff(test.live, test.desired); got != test.want {
			t.Errorf("%s: got  %s\nwant %s", test.name, text(got), text(test.want))
		}
	}
}

// What changes on the remote's side, and writes nothing here.
func TestRemoteChangesThatWriteNothing(t *testing.T) {
	for name, change := range map[string]func(*Candidate){
		"ports in another order": func(s *Candidate) {
			ports := s.Service.Spec.Ports
			ports[0], ports[1] = ports[1], ports[0]
		},
		"another nodePort":   func(s *Candidate) { s.Service.Spec.Ports[0].NodePort = 31111 },
		"another targetPort": func(s *Candidate) { s.Service.Spec.Ports[0].TargetPort.StrVal = "other" },
		"another ClusterIP":  func(s *Candidate) { s.Service.Spec.ClusterIP = "10.9.9.9" },
		"another type":       func(s *Candidate) { s.Service.Spec.Type = corev1.ServiceTypeNodePort },
		"another selector":   func(s *Candidate) { s.Service.Spec.Selector = nil },
		"other labels":       func(s *Candidate) { s.Service.Labels = nil },
		"a new UID":          func(s *Candidate) { s.Service.UID = "other" },
		"gateway ports in another order": func(s *Candidate) {
			s.Gateway.Ports[0], s.Gateway.Ports[1] = s.Gateway.Ports[1], s.Gateway.Ports[0]
		},
		"an unknown gateway": func(s *Candidate) { s.Gateway = nil },
	} {
		live, source := storedBar(), parisBar()
		change(&source)
		desired, err := Policy{}.Desired(source, live, nil, nil)
		if changes := Diff(live, desired); err != nil || !changes.Empty() {
			t.Errorf("%s: %v, %s", name, err, text(changes))
		}
	}
}

func TestTrimExported(t *testing.T) {
	policy := Policy{CopyLabels: []string{"team"}, CopyAnnotations: []string{"note"}}
	exported := exportedBar()
	exported.Labels[ClusterLabel] = "berlin"
	exported.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "bar", UID: "remote-uid", ResourceVersion: "77",
			Labels:      map[string]string{"team": "blue", ClusterLabel: "berlin"},
			Annotations: map[string]string{"note": "hello"},
		},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports:           mirrorOfBar().Service.Spec.Ports,
		},
	}
	if got := policy.TrimExported(exported); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", text(got), text(want))
	}
	exported.Spec.ClusterIP = corev1.ClusterIPNone
	if got := policy.TrimExported(exported); got.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Errorf("it is not headless any more: %s", text(got))
	}
}

func TestTrimLocal(t *testing.T) {
	ours := storedBar().Service
	ours.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "service-mirror"}}
	if got := TrimLocal(ours.DeepCopy()); !reflect.DeepEqual(got, storedBar().Service) {
		t.Errorf("of ours all stays that an update sends back: got %s", text(got))
	}
	stranger := exportedBar()
	want := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "bar", UID: "remote-uid", ResourceVersion: "77", Labels: stranger.Labels,
	}}
	if got := TrimLocal(stranger); !reflect.DeepEqual(got, want) {
		t.Errorf("stranger: got  %s\nwant %s", text(got), text(want))
	}
}
