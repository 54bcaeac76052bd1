package publish

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// toNames has a controller keep aliases, and nothing else.
func toNames(o *Options) {
	o.Targets, o.Gateway, o.Aliases = []plan.Target{plan.ToNames}, cache.ObjectName{}, "exports"
}

const alias = "services exports/default--bar"

var withAlias = []string{"create configmaps sm/default.bar", "create " + alias}

// aliasTo is an alias that someone has made.
func aliasTo(name, target string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"namespace": "exports", "name": name},
		"spec": map[string]any{"type": "ExternalName", "externalName": target, "sessionAffinity": "None"}}}
}

func (w *world) liveAlias() *unstructured.Unstructured {
	w.Helper()
	obj, ok := w.server.get("services", "exports", "default--bar").(*unstructured.Unstructured)
	if !ok {
		w.Fatalf("bar has no alias\n%s", w.log)
	}
	return obj
}

// An alias comes and goes with the export, is repaired, and costs nothing while nothing changes.
func TestControllerKeepsAliases(t *testing.T) {
	in(t, func(w *world) {
		w.start(toNames)
		w.wrote(withAlias...)
		if target, _, _ := unstructured.NestedString(w.liveAlias().Object, "spec", "externalName"); target != "bar.default.svc.cluster.local" {
			w.Errorf("the alias is of %s", target)
		}
		if r := w.record("bar"); len(r.Ports) != 0 || !slices.Contains(r.Hosts, "bar-paris.default.svc.cluster.local") {
			w.Errorf("the record is %+v", r)
		}
		w.wait(10 * time.Minute)
		w.wrote()
		w.stop()
		w.start(toNames) // as another replica that takes over
		w.wrote()

		edited := w.liveAlias()
		w.must(unstructured.SetNestedField(edited.Object, "secret.kube-system.svc.cluster.local", "spec", "externalName"))
		w.server.put("services", edited)
		w.wait(time.Second)
		w.wrote("update " + alias)
		w.server.drop("services", "exports", "default--bar")
		w.wait(time.Second)
		w.wrote("create " + alias)

		w.server.drop("services", "default", "bar")
		w.wait(time.Second)
		w.wrote("delete configmaps sm/default.bar", "delete "+alias)
		w.wait(time.Hour)
		w.wrote()
	})
}

// What was unexported while no replica led is closed by the next one.
func TestControllerClosesWhatWasUnexportedMeanwhile(t *testing.T) {
	in(t, func(w *world) {
		w.start(toNames)
		w.wrote(withAlias...)
		w.stop()
		w.server.drop("services", "default", "bar")
		w.server.drop("configmaps", "sm", "default.bar") // the alias alone says that there was one
		w.start(toNames)
		w.wrote("delete " + alias)
	})
}

// A foreign Service of the alias's name stays, is a conflict, and gives way to the alias as soon as it is deleted. A copy
// of an alias stays, too.
func TestControllerLeavesForeignAliases(t *testing.T) {
	in(t, func(w *world) {
		w.server.put("services", aliasTo("default--bar", "bar.default.svc.cluster.local"))
		w.start(toNames)
		w.wrote(withAlias[0])
		if r := w.record("bar"); !w.has(mirrors.Conflict) || r.Of(80, corev1.ProtocolTCP) == nil || r.Of(80, corev1.ProtocolTCP).Problem == "" {
			w.Errorf("the record is %+v\n%s", r, w.log)
		}
		w.server.drop("services", "exports", "default--bar")
		w.wait(time.Second)
		w.wrote("create "+alias, "update configmaps sm/default.bar")
		if w.has(mirrors.Conflict) {
			w.Errorf("there is a conflict:\n%s", w.log)
		}
		twin := w.liveAlias()
		twin.SetName("copy")
		twin.SetUID("")
		w.server.put("services", twin)
		w.server.drop("services", "default", "bar")
		w.wait(time.Minute)
		w.wrote("delete configmaps sm/default.bar", "delete "+alias)
		if w.server.get("services", "exports", "copy") == nil {
			w.Error("the copy is gone")
		}
	})
}

// Without the namespace of the aliases nothing is reached, and the reason says what to do.
func TestControllerMissesTheNamespaceOfAliases(t *testing.T) {
	in(t, func(w *world) {
		missing := true
		w.server.refuse = func(verb, resource string) error {
			if missing && resource == "services" {
				return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "exports")
			}
			return nil
		}
		w.start(toNames)
		if r := w.record("bar"); !w.has(mirrors.Rejected) || r.Of(80, corev1.ProtocolTCP) == nil || r.Of(80, corev1.ProtocolTCP).Problem == "" {
			w.Errorf("the record is %+v\n%s", r, w.log)
		}
		w.server.wrote()
		w.wait(10 * time.Minute)
		if n := len(w.server.wrote()); n < 15 || n > 30 {
			w.Errorf("%d tries in 10 minutes", n)
		}
		w.server.mu.Lock()
		missing = false
		w.server.mu.Unlock()
		w.wait(time.Minute)
		if r := w.record("bar"); w.has(mirrors.Rejected) || len(r.Ports) != 0 {
			w.Errorf("the record is %+v\n%s", r, w.log)
		}
		w.liveAlias()
	})
}

// A namespace that may not be read holds nothing up that does not need it, and closes nothing.
func TestControllerCannotReadAliases(t *testing.T) {
	in(t, func(w *world) {
		w.start(toNames)
		w.wrote(withAlias...)
		w.stop()
		w.server.undiscovered = "services"
		w.start(toNames)
		w.wait(time.Minute)
		w.wrote()
		if !w.has(mirrors.PortNotServed) {
			w.Errorf("no problem says so: %s", w.log)
		}
	})
}

// The page has the aliases' namespace for a target, and what has an alias is published; so a standby shows it, too.
func TestPageOfAliases(t *testing.T) {
	in(t, func(w *world) {
		w.start(toNames)
		target := func() status.Target { return w.controller.Page().Targets[0] }
		if got := target(); got.Kind != "names" || got.Name != "namespace exports" || got.State != status.Down || got.Problem == "" {
			t.Errorf("without its namespace, the target is %+v", got)
		}
		w.server.put("namespaces", &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "exports"}})
		w.wait(time.Second)
		if got := target(); got.State != status.Up || got.Problem != "" {
			t.Errorf("the target is %+v", got)
		}
		w.stop()
		ctx, cancel := context.WithCancel(w.Context())
		standby := New(w.server.clients(), w.controller.options, w.controller.logger)
		var running sync.WaitGroup
		running.Go(func() { standby.Run(ctx) })
		<-standby.Ready()
		w.wait(time.Second)
		if got := standby.Page().Services[0]; got.State != status.Published || !slices.Equal(got.Routes, []string{"Service default--bar"}) || len(got.Hosts) != 6 {
			t.Errorf("bar is %+v", got)
		}
		cancel()
		running.Wait()
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// An alias opens every port of a Service, so that one of which only some ports are exported has none.
func TestControllerMakesNoAliasOfSomePorts(t *testing.T) {
	in(t, func(w *world) {
		svc := exportedService("bar", 80, 9090)
		svc.Annotations = map[string]string{"service-mirror.io/ports": "80"}
		w.server.put("services", svc)
		w.start(toNames)
		if w.server.get("services", "exports", "default--bar") != nil {
			t.Error("port 9090 is not exported, and the alias opens it")
		}
		problems := w.controller.problems.Of(cache.NewObjectName("default", "bar"))
		if len(problems) != 1 || problems[0].Reason != mirrors.PortNotServed || !strings.Contains(problems[0].Message, "remove the annotation") {
			t.Errorf("the problems are %+v", problems)
		}
	})
}

// Without --to names an alias is deleted, as what other flags have made: it would stay open for ever.
func TestControllerDeletesAliasesOfOtherFlags(t *testing.T) {
	in(t, func(w *world) {
		w.start(toNames)
		w.wrote(withAlias...)
		w.stop()
		w.start() // --to gateway-api alone
		w.wait(time.Minute)
		if w.server.get("services", "exports", "default--bar") != nil {
			t.Error("bar is reached by an alias still")
		}
	})
}

// While the Gateway is missing, an alias goes with the last port that it served: what a port keeps that is of another kind
// keeps no alias, and one stays that still has requests with a name.
func TestAliasClosesWhileTheGatewayIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*corev1.Service)
		want   bool
	}{
		"a port of TCP alone": {func(svc *corev1.Service) { svc.Spec.Ports = svc.Spec.Ports[1:] }, false},
		"a port left out":     {func(svc *corev1.Service) { svc.Annotations = map[string]string{"service-mirror.io/ports": "80"} }, false},
		"a port of HTTP":      {func(svc *corev1.Service) { svc.Spec.Ports = svc.Spec.Ports[:1] }, true},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.server.drop("gateways", "ingress", "public")
				w.start(func(o *Options) { o.Targets, o.Aliases = []plan.Target{plan.ToGatewayAPI, plan.ToNames}, "exports" })
				w.liveAlias()
				svc := exportedService("bar", 80, 5432)
				test.change(svc)
				w.server.put("services", svc)
				w.wait(time.Minute)
				if got := w.server.get("services", "exports", "default--bar") != nil; got != test.want {
					t.Errorf("there is an alias: %v, want %v\n%s", got, test.want, w.log)
				}
			})
		})
	}
}
