package deploy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The daemon asks differently where API servers cannot stream lists, so each story is told
// twice.
var tellings = []struct {
	name        string
	environment []string
	excused     func(grant) bool
}{
	{"streamed lists", nil, streams},
	{"plain lists", []string{"KUBE_FEATURE_WatchListClient=false"}, nothing},
}

// The shipped manifests, a link, two Pods: all that a mirror goes through is done, nothing is
// forbidden and nothing is permitted in vain.
func TestInstalled(t *testing.T) {
	for _, telling := range tellings {
		t.Run(telling.name, func(t *testing.T) {
			e := newEnv(t)
			inLondon, inParis := e.mark(london), e.mark(paris)
			e.namespace("shop", london, paris)
			e.gateway("203.0.113.1")
			e.apply(london, shipped("local"))
			e.link("gateway=ingress/gateway")
			pods := []*pod{e.runPod(telling.environment...), e.runPod(telling.environment...)}

			e.export("shop", "bar", 80)
			e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.1:8080")
			e.gatewayMoves("203.0.113.2")
			e.change(paris, "shop", "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
			e.mirrored("shop", "bar-paris", 81, byKubernetes, "203.0.113.2:8080")
			e.selectorOnMirror(pods)
			e.deleteMirror()
			e.namespaceIsMissing(pods)
			e.takeOver(pods)
			e.remove(paris, "shop", "bar")
			e.gone("shop", "bar-paris")

			e.permissions(london, ours, inLondon, telling.excused)
			e.permissions(paris, reader, inParis, telling.excused)
		})
	}
}

// selectorOnMirror has somebody put a selector on the mirror while the daemon is held up: the
// EndpointSlice that Kubernetes makes of it must go again.
func (e *env) selectorOnMirror(pods []*pod) {
	e.Helper()
	e.readyPod("shop", "local", "10.1.2.3")
	for _, p := range pods {
		e.must(p.cmd.Process.Signal(syscall.SIGSTOP))
	}
	e.change(london, "shop", "bar-paris", func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "local"} })
	e.soon("an EndpointSlice of the selector", func() error {
		list, err := london.DiscoveryV1().EndpointSlices("shop").List(e.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, slice := range list.Items {
			if len(slice.Endpoints) == 1 && slice.Endpoints[0].Addresses[0] == "10.1.2.3" {
				return nil
			}
		}
		return fmt.Errorf("there is none among %d", len(list.Items))
	})
	for _, p := range pods {
		e.must(p.cmd.Process.Signal(syscall.SIGCONT))
	}
	e.mirrored("shop", "bar-paris", 81, byKubernetes, "203.0.113.2:8080")
}

// deleteMirror deletes the mirror: it comes back with its ClusterIP, once that is released.
func (e *env) deleteMirror() {
	e.Helper()
	clusterIP := func() string {
		e.Helper()
		svc, err := london.CoreV1().Services("shop").Get(e.ctx, "bar-paris", metav1.GetOptions{})
		e.must(err)
		return svc.Spec.ClusterIP
	}
	had := clusterIP()
	e.remove(london, "shop", "bar-paris")
	e.mirrored("shop", "bar-paris", 81, byKubernetes, "203.0.113.2:8080")
	if now := clusterIP(); now != had {
		e.Errorf("its ClusterIP was %s and is %s", had, now)
	}
}

// namespaceIsMissing has the same thing told twice: an Event is made, and then counted up.
func (e *env) namespaceIsMissing(pods []*pod) {
	e.Helper()
	told := func(times int32) {
		e.Helper()
		e.soon("Events", func() error {
			list, err := london.CoreV1().Events("default").List(e.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=late,reason=NamespaceMissing"})
			if err != nil {
				return err
			}
			if len(list.Items) != 1 || list.Items[0].Count != times {
				return fmt.Errorf("there are %d: %v", len(list.Items), list.Items)
			}
			return nil
		})
	}
	e.cleanup(func(e *env) {
		e.must(london.CoreV1().Events("default").DeleteCollection(e.ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "involvedObject.name=late"}))
	})
	e.namespace("late", paris)
	e.export("late", "bar", 80)
	told(1)
	e.remove(paris, "late", "bar")
	e.soon("the problem is gone", func() error { // else both changes may be one sync
		for _, p := range pods {
			if p.leads() {
				metrics, err := p.get("/metrics")
				if err == nil && !strings.Contains(metrics, "\n"+`service_mirror_problems{reason="NamespaceMissing",remote="paris"} 0`+"\n") {
					err = errors.New("it is counted")
				}
				return err
			}
		}
		return errors.New("nobody leads")
	})
	e.export("late", "bar", 80)
	told(2)
	e.namespace("late", london)
	e.mirrored("late", "bar-paris", 80, byKubernetes, "203.0.113.2:8080")
}

// takeOver stops the replica that leads: the other one does.
func (e *env) takeOver(pods []*pod) {
	e.Helper()
	leads := func() int {
		e.Helper()
		var leading []int
		e.soon("one leads", func() error {
			leading = nil
			for i, p := range pods {
				if !p.stopped && p.leads() {
					leading = append(leading, i)
				}
			}
			if len(leading) != 1 {
				return fmt.Errorf("%d do", len(leading))
			}
			return nil
		})
		return leading[0]
	}
	first := leads()
	pods[first].stop()
	if second := leads(); second == first {
		e.Errorf("replica %d leads, and was stopped", second)
	}
	e.gatewayMoves("203.0.113.3")
	e.mirrored("shop", "bar-paris", 81, byKubernetes, "203.0.113.3:8080")
}

// What is optional, with the permissions for it: a remote of which only some namespaces may be
// read, its ConfigMap of reserved ports, namespaces that are made, EndpointSlices and back.
func TestComponents(t *testing.T) {
	for _, telling := range tellings {
		t.Run(telling.name, func(t *testing.T) {
			e := newEnv(t)
			inLondon, inParis := e.mark(london), e.mark(paris)
			e.namespace("shop", london, paris)
			e.namespace("made", paris)
			e.gateway("203.0.113.1", corev1.ServicePort{Name: "postgres", Port: 15432})
			_, err := paris.CoreV1().ConfigMaps("ingress").Create(e.ctx, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "tcp-services"}, Data: map[string]string{"15432": "shop/bar:5432"},
			}, metav1.CreateOptions{})
			e.must(err)
			e.apply(london, shipped("local"))
			usual := e.grants(london, ours)
			e.link("gateway=ingress/gateway", "tcp-services=ingress/tcp-services", "namespaces=shop,made")
			for _, g := range e.grants(paris, reader) {
				if g.Namespace == "" {
					t.Errorf("with namespaces= %s may still %v", reader, g)
				}
			}

			p := e.runPod(telling.environment...)
			e.export("shop", "bar", 5432)
			e.mirrored("shop", "bar-paris", 5432, byKubernetes, "203.0.113.1:15432")
			p.stop()

			e.apply(london, e.localWith("create-namespaces", "endpointslices"))
			p = e.runPod(telling.environment...)
			e.mirrored("shop", "bar-paris", 5432, byDaemon, "203.0.113.1:15432")
			e.gatewayMoves("203.0.113.2")
			e.mirrored("shop", "bar-paris", 5432, byDaemon, "203.0.113.2:15432")
			e.cleanup(func(e *env) { e.removeNamespace(london, "made") })
			e.export("made", "baz", 8080)
			e.mirrored("made", "baz-paris", 8080, byDaemon, "203.0.113.2:8080")
			e.remove(paris, "made", "baz")
			e.gone("made", "baz-paris")
			p.stop()

			e.apply(london, e.localWith("create-namespaces"))
			e.runPod(telling.environment...)
			e.mirrored("shop", "bar-paris", 5432, byKubernetes, "203.0.113.2:15432")

			e.permissions(london, ours, inLondon, func(g grant) bool { return telling.excused(g) || slices.Contains(usual, g) })
			e.permissions(paris, reader, inParis, telling.excused)
		})
	}
}

// Without the component own-ranges the daemon works too, and says what it cannot know.
func TestWithoutOwnRanges(t *testing.T) {
	e := newEnv(t)
	since := e.mark(london)
	e.namespace("shop", london, paris)
	e.gateway("203.0.113.1")
	e.apply(london, shipped("local"))
	e.kubectl(london, "delete", "-f", shipped("local/own-ranges/rbac.yaml"))
	e.link("gateway=ingress/gateway")
	e.runPod()
	e.export("shop", "bar", 80)
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.1:8080")
	var refused []string
	for _, r := range e.requests(london, ours, since) {
		if r.ResponseStatus.Code == 403 {
			refused = append(refused, r.ObjectRef.Resource)
		}
	}
	slices.Sort(refused)
	if got := strings.Join(slices.Compact(refused), " "); got != "nodes servicecidrs" {
		t.Errorf("it was refused: %q", got)
	}
}
