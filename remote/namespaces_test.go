package remote

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
)

// inNamespaces is a remote of which namespaces default and team are watched.
func inNamespaces() Spec {
	spec := through()
	spec.Namespaces = []string{"default", "team"}
	return spec
}

// exportsIn chooses the requests for a namespace's Services.
func exportsIn(namespace string, err error) func(clienttesting.Action) error {
	return func(action clienttesting.Action) error {
		if action.GetResource().Resource == "services" && action.GetNamespace() == namespace {
			return err
		}
		return nil
	}
}

func (r *rig) knows(want ...string) {
	r.Helper()
	view, _ := r.View()
	for _, namespace := range []string{"default", "team", "other"} {
		if got := len(view.Services) > 0 && view.Knows(namespace); got != slices.Contains(want, namespace) {
			r.Errorf("namespace %s is known: %v; log:\n%s", namespace, got, r.log)
		}
	}
}

// A namespace that may not be read does not hold up the others, and is named.
func TestForbiddenNamespace(t *testing.T) {
	connecting(t, inNamespaces(), false, func(r *rig) {
		r.a().refusing(exportsIn("team", errForbidden))
		r.pointTo("a.example.com")
		r.wait(reloadPeriod + gatewayGrace)
		r.knows("default")
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.logged(1, `mirrors are kept unchanged" cluster="paris" part="watch of exported Services in team"`)
		if s := r.Status(); s.State != Up || len(s.Problems) != 1 {
			r.Errorf("got %+v", s)
		}
		if err := r.Unknown(); err == nil || !strings.Contains(err.Error(), "in team: ") {
			r.Errorf("got %v, want team to be named", err)
		}
		if _, err := r.a().CoreV1().Services("default").Create(r.Context(), service("default", "foo"), metav1.CreateOptions{}); err != nil {
			r.Fatal(err)
		}
		r.wait(time.Millisecond)
		r.known("a-uid", "192.0.2.1", "default/bar", "default/foo")
		r.resyncs()
		r.a().refusing(nil)
		r.wait(4 * time.Second)
		r.knows("default", "team")
		if r.resyncs() == 0 {
			r.Error("no resync when team is known")
		}
		if err := r.Unknown(); err != nil {
			r.Error(err)
		}
	})
}

func TestAllNamespacesForbidden(t *testing.T) {
	connecting(t, inNamespaces(), false, func(r *rig) {
		r.a().refusing(func(action clienttesting.Action) error {
			if action.GetResource().Resource == "services" && action.GetNamespace() != "ingress" {
				return errForbidden
			}
			return nil
		})
		r.pointTo("a.example.com")
		r.wait(time.Minute)
		r.unknown()
		if s := r.Status(); s.State != Down || len(s.Problems) != 2 {
			r.Errorf("got %+v", s)
		}
	})
}

// A new connection replaces the old one when it knows as much, whatever neither knows.
func TestKubeconfigSwapWithAForbiddenNamespace(t *testing.T) {
	for _, test := range []struct {
		name         string
		old, new     error // for team
		after        time.Duration
		still, knows []string // before that, and then
	}{
		{"neither may read it", errForbidden, errForbidden, gatewayGrace, []string{"default"}, []string{"default"}},
		{"the new one may", errForbidden, nil, 0, []string{"default"}, []string{"default", "team"}},
		{"the new one may not", nil, errForbidden, gatewayGrace + replaceGrace, []string{"default", "team"}, []string{"default"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			connecting(t, inNamespaces(), false, func(r *rig) {
				r.a().refusing(exportsIn("team", test.old))
				r.b().refusing(exportsIn("team", test.new))
				r.pointTo("a.example.com")
				r.wait(10 * time.Second)
				r.knows(test.still...)
				r.pointTo("b.example.com")
				r.wait(reloadPeriod + max(test.after-time.Second, 0) - time.Millisecond)
				if view, _ := r.View(); test.after > 0 && view.UID != "a-uid" {
					r.Errorf("it is replaced before it is time, by %q", view.UID)
				}
				r.knows(test.still...)
				r.wait(2 * time.Second)
				if view, _ := r.View(); view.UID != "b-uid" {
					r.Errorf("it is not replaced: %q", view.UID)
				}
				r.knows(test.knows...)
			})
		})
	}
}
