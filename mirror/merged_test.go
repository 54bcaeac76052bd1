package mirror

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/write"
)

var bothRemotes = []string{"paris", "berlin"}

// merging has the exports of paris and of berlin, in this order, in one mirror.
func merging(merge plan.Merge) Options {
	return Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Merge: merge, Order: bothRemotes,
		Names: plan.Names{"paris": {Template: "{service}"}, "berlin": {Template: "{service}"}}}}
}

const (
	parisSlice  = "endpointslices default/bar.paris.ipv4"
	berlinSlice = "endpointslices default/bar.berlin.ipv4"
	barService  = "services default/bar"
)

// at are the remotes with gateways of their own: paris at 192.0.2.1, berlin at 192.0.2.2.
func (w *world) at(paris, berlin string) {
	w.remotes["paris"].setGateway(gatewayAt("192.0.2.1 " + paris))
	w.remotes["berlin"].setGateway(gatewayAt("192.0.2.2 " + berlin))
}

// merge has both remotes export bar, and wants the merged mirror.
func (w *world) merge() {
	w.Helper()
	w.at("", "")
	for _, r := range bothRemotes {
		w.remotes[r].export(named("default", "bar"))
	}
	w.settle()
	w.expect("create "+barService, "create "+parisSlice, "create "+berlinSlice)
}

// serving are the addresses that are ready in all slices of default/bar, and those that are not, as gatewayAt reads them.
func (w *world) serving() (texts []string) {
	for _, name := range []string{"bar.paris.ipv4", "bar.berlin.ipv4", "bar-ipv4"} {
		texts = append(texts, said(plan.Objects{IPv4: w.server.slice("default", name)})...)
	}
	return texts
}

func (w *world) wantServing(want ...string) {
	w.Helper()
	if got := w.serving(); !slices.Equal(got, want) {
		w.Errorf("endpoints %q, want %q\nlog:\n%s", got, want, w.log)
	}
}

// rows are the rows of the page of default/bar: remote, state, role, reasons.
func (w *world) rows() (texts []string) {
	for _, m := range w.controller.Overview().Mirrors {
		if m.Name == "bar" {
			text := m.Cluster + " " + m.State + " " + m.Role
			for _, problem := range m.Problems {
				text += " " + problem.Reason
			}
			texts = append(texts, text)
		}
	}
	slices.Sort(texts)
	return texts
}

func (w *world) wantRows(want ...string) {
	w.Helper()
	if got := w.rows(); !slices.Equal(got, want) {
		w.Errorf("rows %q, want %q", got, want)
	}
}

// What happens to one remote changes only its own slices, and the list of remotes; the Service stays until the last one
// is gone.
func TestMergedMirror(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		svc := w.server.service("default", "bar")
		if got := svc.Annotations[plan.RemotesAnnotation]; got != "paris=default/bar,berlin=default/bar" || svc.Labels[plan.ClusterLabel] != plan.MergedCluster {
			t.Errorf("the Service lists %q, with the labels %v", got, svc.Labels)
		}
		slice := w.server.slice("default", "bar.berlin.ipv4")
		if slice.Labels[discoveryv1.LabelServiceName] != "bar" || slice.Labels[plan.ClusterLabel] != "berlin" || slice.Annotations[plan.MirrorAnnotation] != "default/bar" ||
			slice.Annotations[plan.ClusterUIDAnnotation] != "berlin-uid" {
			t.Errorf("berlin's slice is %s", text(slice))
		}
		w.wantServing("192.0.2.1", "192.0.2.2")
		w.wantRows("berlin mirrored serving", "paris mirrored serving")

		w.remotes["paris"].unexport(named("default", "bar"))
		w.settle()
		w.expect("delete "+parisSlice, "update "+barService)
		w.wantServing("192.0.2.2")
		w.remotes["berlin"].setGateway(gatewayAt("192.0.2.3"))
		w.settle()
		w.expect("update " + berlinSlice)
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect("create "+parisSlice, "update "+barService)
		w.wantServing("192.0.2.1", "192.0.2.3")
		if now := w.server.service("default", "bar"); now.UID != svc.UID || now.Spec.ClusterIP != svc.Spec.ClusterIP {
			t.Error("the Service is another one")
		}
		w.remotes["paris"].unexport(named("default", "bar"))
		w.remotes["berlin"].unexport(named("default", "bar"))
		w.settle()
		w.server.wrote()
		if w.server.service("default", "bar") != nil || len(w.serving()) > 0 {
			t.Errorf("something is left: %q", w.serving())
		}
	})
}

// Only the first healthy remote serves. The endpoints of the others are there, and not ready.
func TestMergedFirst(t *testing.T) {
	run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
		w.merge()
		w.wantServing("192.0.2.1", "192.0.2.2 dead")
		w.wantRows("berlin mirrored standby", "paris mirrored serving")
		for _, step := range []struct {
			paris, berlin string
			want          []string
		}{
			{"dead", "", []string{"192.0.2.1 dead", "192.0.2.2"}},
			{"dead", "dead", []string{"192.0.2.1 dead", "192.0.2.2 dead"}},
			{"dead", "", []string{"192.0.2.1 dead", "192.0.2.2"}},
			{"", "", []string{"192.0.2.1", "192.0.2.2 dead"}},
			{"", "dead", []string{"192.0.2.1", "192.0.2.2 dead"}},
			{"unprobed", "", []string{"192.0.2.1", "192.0.2.2 dead"}},
		} {
			w.at(step.paris, step.berlin)
			w.settle()
			w.wantServing(step.want...)
		}
		for _, name := range []string{"bar.paris.ipv4", "bar.berlin.ipv4"} {
			for _, endpoint := range w.server.slice("default", name).Endpoints {
				if endpoint.Conditions.Ready == nil {
					t.Errorf("%s does not say whether %v is ready", name, endpoint.Addresses)
				}
			}
		}
	})
}

// The remote that serves goes on until the one before it in the order does: its slices may be refused for long.
func TestMergedFirstServesUntilReplaced(t *testing.T) {
	refusing := func(verb string) func(clienttesting.Action) error {
		return func(action clienttesting.Action) error {
			if update, ok := action.(clienttesting.UpdateAction); ok && action.GetVerb() == verb && accessor(update.GetObject()).GetName() == "bar.paris.ipv4" {
				return errForbidden
			}
			return nil
		}
	}
	t.Run("a remote that comes", func(t *testing.T) {
		run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
			w.at("", "")
			w.remotes["berlin"].export(named("default", "bar"))
			w.settle()
			w.wantServing("192.0.2.2")
			w.server.setRefuse(refusing("create"))
			w.remotes["paris"].export(named("default", "bar"))
			w.wait(time.Minute)
			w.wantServing("192.0.2.2")
			w.server.setRefuse(nil)
			w.wait(time.Hour)
			w.wantServing("192.0.2.1", "192.0.2.2 dead")
		})
	})
	t.Run("a remote that is healthy again", func(t *testing.T) {
		run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
			w.merge()
			w.at("dead", "")
			w.settle()
			w.wantServing("192.0.2.1 dead", "192.0.2.2")
			w.server.setRefuse(refusing("update"))
			w.at("", "")
			w.wait(time.Minute)
			w.wantServing("192.0.2.1 dead", "192.0.2.2")
			w.server.setRefuse(nil)
			w.wait(time.Hour)
			w.wantServing("192.0.2.1", "192.0.2.2 dead")
		})
	})
}

// After a restart, addresses that are not probed yet change nothing, whichever remote serves.
func TestMergedFirstAfterARestart(t *testing.T) {
	for name, test := range map[string]struct {
		paris, then string
		want        []string
	}{
		"paris serves":  {"", "", []string{"192.0.2.1", "192.0.2.2 dead"}},
		"berlin serves": {"dead", "dead", []string{"192.0.2.1 dead", "192.0.2.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
				w.merge()
				w.at(test.paris, "")
				w.settle()
				w.wantServing(test.want...)
				w.stop()
				w.server.wrote()
				w.at("unprobed", "unprobed")
				w.use(merging(plan.MergeFirst), bothRemotes...)
				w.settle()
				w.expect()
				w.wantServing(test.want...)
				w.at(test.then, "")
				w.settle()
				w.expect()
			})
		})
	}
}

// A remote that is not known keeps its slices and what it does, through a restart; the others go on.
func TestMergedRemoteUnknown(t *testing.T) {
	run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		w.remotes["paris"].know(false)
		w.use(merging(plan.MergeFirst), bothRemotes...)
		w.settle()
		w.expect()
		w.wantRows("berlin mirrored standby", "paris mirrored serving")
		w.remotes["berlin"].unexport(named("default", "bar"))
		w.settle()
		w.expect("delete " + berlinSlice) // the list is that of paris, of which nothing is known
		w.remotes["paris"].know(true)
		w.settle()
		w.expect("update " + barService)
		w.wantServing("192.0.2.1")
	})
}

// A remote that the flags no longer name leaves its part, and the rest goes on. When that is pruned, the list follows.
func TestMergedRemoteRemoved(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		options := merging(plan.MergeAll)
		options.Order, options.Names = []string{"berlin"}, plan.Names{"berlin": {Template: "{service}"}}
		w.use(options, "berlin")
		w.settle()
		w.expect("update " + barService) // berlin is the first now
		w.wantServing("192.0.2.1", "192.0.2.2")
		w.wantRows("berlin mirrored serving", "paris orphan serving")
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		w.settle()
		w.expect("update " + barService)
		if got := w.server.service("default", "bar").Annotations[plan.RemotesAnnotation]; got != "berlin=default/bar" {
			t.Errorf("it lists %q", got)
		}
	})
}

// The first remote's ports are the mirror's. Another one serves those that agree.
func TestMergedPorts(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.at("", "")
		other := named("default", "bar")
		other.Spec.Ports[1].Port = 444
		w.remotes["berlin"].export(other)
		w.settle()
		w.wantRows("berlin mirrored serving")
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.wantRows("berlin incomplete serving PortConflict", "paris mirrored serving")
		w.logged(1, `reason="PortConflict" cluster="berlin" service="default/bar"`)
		w.logged(1, "its ports differ from those of remote paris, which the merged mirror uses: it lacks https 443/TCP and has https 444/TCP")
		if ports := w.server.service("default", "bar").Spec.Ports; ports[1].Port != 443 {
			t.Errorf("the mirror has the ports %v", ports)
		}
		if ports := w.server.slice("default", "bar.berlin.ipv4").Ports; len(ports) != 1 || *ports[0].Name != "http" {
			t.Errorf("berlin's part has the ports %s", text(ports))
		}
		w.remotes["paris"].unexport(named("default", "bar"))
		w.settle()
		w.wantRows("berlin mirrored serving")
		if ports := w.server.service("default", "bar").Spec.Ports; ports[1].Port != 444 {
			t.Errorf("without paris it has the ports %v", ports)
		}
	})
}

// A foreign Service of the name is a conflict for all remotes; nothing is written beside it.
func TestMergedConflict(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		foreign := named("default", "bar")
		w.server.put(foreign)
		w.at("", "")
		for _, r := range bothRemotes {
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.expect()
		w.wantRows("berlin conflict  Conflict", "paris conflict  Conflict")
		w.server.remove("services", "default", "bar")
		w.wait(foreignPeriod * 40)
		w.expect("create "+barService, "create "+parisSlice, "create "+berlinSlice)
		w.wantRows("berlin mirrored serving", "paris mirrored serving")
	})
}

// What is edited or deleted by hand comes back, with the ClusterIP.
func TestMergedDrift(t *testing.T) {
	key := func(name string) cache.ObjectName { return cache.NewObjectName("default", name) }
	for name, test := range map[string]struct {
		edit func(w *world)
		want []string
	}{
		"the Service is deleted": {func(w *world) { w.server.remove("services", "default", "bar") }, []string{"create " + barService}},
		"a slice is deleted":     {func(w *world) { w.server.remove("endpointslices", "default", "bar.paris.ipv4") }, []string{"create " + parisSlice}},
		"a slice's label": {func(w *world) {
			w.server.edit("endpointslices", key("bar.paris.ipv4"), func(obj runtime.Object) bool {
				obj.(*discoveryv1.EndpointSlice).Labels[plan.ClusterLabel] = "berlin"
				return true
			})
		}, []string{"update " + parisSlice}},
		"a standby made ready": {func(w *world) {
			w.server.edit("endpointslices", key("bar.berlin.ipv4"), func(obj runtime.Object) bool {
				ready := true
				obj.(*discoveryv1.EndpointSlice).Endpoints[0].Conditions.Ready = &ready
				return true
			})
		}, []string{"update " + berlinSlice}},
		"the Service's label": {func(w *world) {
			w.server.edit("services", key("bar"), func(obj runtime.Object) bool {
				obj.(*corev1.Service).Labels[plan.ClusterLabel] = "berlin"
				return true
			})
		}, []string{"update " + barService}},
		"the Service's ports": {func(w *world) {
			w.server.edit("services", key("bar"), func(obj runtime.Object) bool {
				obj.(*corev1.Service).Spec.Ports[0].Port = 81
				return true
			})
		}, []string{"update " + barService}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
				w.merge()
				ip := w.server.service("default", "bar").Spec.ClusterIP
				test.edit(w)
				w.wait(time.Minute)
				w.expect(test.want...)
				if got := w.server.service("default", "bar").Spec.ClusterIP; got != ip {
					t.Errorf("the ClusterIP was %s and is %s", ip, got)
				}
				w.wantServing("192.0.2.1", "192.0.2.2 dead")
			})
		})
	}
}

// A mirror that was not merged becomes one that is, and the other way round. It keeps its ClusterIP.
func TestMergingTheMirrorOfOneName(t *testing.T) {
	plain := merging(plan.MergeOff)
	run(t, plain, bothRemotes, func(w *world) {
		w.at("", "")
		for _, r := range bothRemotes {
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.server.wrote()
		svc := w.server.service("default", "bar")
		same := func() {
			t.Helper()
			if now := w.server.service("default", "bar"); now.UID != svc.UID || now.Spec.ClusterIP != svc.Spec.ClusterIP {
				t.Error("the Service is another one")
			}
		}
		w.stop()
		w.use(merging(plan.MergeFirst), bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		writes := w.expect("update "+barService, "create "+parisSlice, "create "+berlinSlice, "delete endpointslices default/bar-ipv4")
		ordered(t, writes, "create "+berlinSlice, "delete endpointslices default/bar-ipv4") // whose mirror it was
		w.wantServing("192.0.2.1", "192.0.2.2 dead")
		same()
		w.stop()

		w.use(plain, bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		writes = w.expect("update "+barService, "delete "+parisSlice, "delete "+berlinSlice, "create endpointslices default/bar-ipv4")
		ordered(t, writes, "create endpointslices default/bar-ipv4", "delete "+parisSlice)
		w.wantServing("192.0.2.1")
		same()
	})
}

// ordered wants one write before another.
func ordered(t *testing.T, writes []written, first, second string) {
	t.Helper()
	at := func(what string) int {
		return slices.IndexFunc(writes, func(w written) bool { return w.what == what })
	}
	if i, j := at(first), at(second); i < 0 || j < 0 || i > j {
		t.Errorf("%q is write %d, and %q is write %d", first, i, second, j)
	}
}

// Mirrors of different names become one, and the other way round, without a gap.
func TestMergingIsARename(t *testing.T) {
	apart := Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Order: bothRemotes}}
	run(t, apart, bothRemotes, func(w *world) {
		w.at("", "")
		for _, r := range bothRemotes {
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.expect(append(created("default/bar-paris"), created("default/bar-berlin")...)...)
		w.stop()

		w.use(merging(plan.MergeAll), bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		writes := w.expect(slices.Concat([]string{"create " + barService, "create " + parisSlice, "create " + berlinSlice}, deleted("default/bar-paris"), deleted("default/bar-berlin"))...)
		for _, r := range bothRemotes {
			ordered(t, writes, "create endpointslices default/bar."+r+".ipv4", "delete services default/bar-"+r)
		}
		w.stop()

		w.use(apart, bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		writes = w.expect(slices.Concat([]string{"delete " + barService, "delete " + parisSlice, "delete " + berlinSlice}, created("default/bar-paris"), created("default/bar-berlin"))...)
		for _, r := range bothRemotes {
			ordered(t, writes, "create services default/bar-"+r, "delete endpointslices default/bar."+r+".ipv4")
			ordered(t, writes, "create services default/bar-"+r, "delete "+barService)
		}
	})
}

// A remote that is not known when mirrors are merged, or no longer are, keeps what it has.
func TestMergingWithARemoteUnknown(t *testing.T) {
	run(t, merging(plan.MergeOff), bothRemotes, func(w *world) {
		w.at("", "")
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar")...)
		w.stop()
		w.remotes["paris"].know(false)
		w.remotes["berlin"].export(named("default", "bar"))
		w.use(merging(plan.MergeAll), bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		if got := w.server.slice("default", "bar-ipv4"); got == nil {
			t.Error("the addresses of paris are gone")
		}
		w.remotes["paris"].know(true)
		w.settle()
		w.wait(time.Minute)
		w.wantServing("192.0.2.1", "192.0.2.2")
		w.stop()
		w.server.wrote()

		w.remotes["paris"].know(false)
		w.use(merging(plan.MergeOff), bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		w.expect()
		w.remotes["paris"].know(true)
		w.settle()
		w.wait(time.Minute)
		w.wantServing("192.0.2.1")
	})
}

// The deletion of more parts than allowed waits for consent, and the Services with it.
func TestMergedMaxDeletes(t *testing.T) {
	options := merging(plan.MergeAll)
	options.MaxDeletes = 2
	run(t, options, []string{"paris"}, func(w *world) {
		for n := range 4 {
			w.remotes["paris"].export(named("default", fmt.Sprint("bar", n)))
		}
		w.settle()
		w.server.wrote()
		for n := range 4 {
			w.remotes["paris"].unexport(named("default", fmt.Sprint("bar", n)))
		}
		w.settle()
		w.logged(2, `reason="TooManyDeletes"`)
		if got := len(w.server.wrote()); got != 4 {
			t.Errorf("%d writes, want the deletion of two slices and of two Services\n%s", got, w.log)
		}
		w.log.logsOnce(t, "run kubectl annotate endpointslices --all-namespaces --selector app.kubernetes.io/managed-by=service-mirror,service-mirror.io/cluster=paris")
		for n := range 4 {
			w.server.edit("endpointslices", cache.NewObjectName("default", fmt.Sprintf("bar%d.paris.ipv4", n)), func(obj runtime.Object) bool {
				metav1.SetMetaDataAnnotation(&obj.(*discoveryv1.EndpointSlice).ObjectMeta, plan.ConfirmAnnotation, "true")
				return true
			})
		}
		w.wait(time.Minute)
		for n := range 4 {
			if w.server.service("default", fmt.Sprint("bar", n)) != nil {
				t.Errorf("bar%d is left", n)
			}
		}
	})
}

func (b *lockedBuffer) logsOnce(t *testing.T, text string) {
	t.Helper()
	if b.count(text) == 0 {
		t.Errorf("%q is not logged:\n%s", text, b)
	}
}

// A name with a dot is no Service's. A remote that sends one reaches no part of another remote by it.
func TestMergedNameWithADot(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.remotes["paris"].export(named("default", "bar.berlin"))
		w.settle()
		w.expect()
		w.logged(1, `reason="InvalidName" cluster="paris" service="default/bar.berlin"`)
		w.remotes["berlin"].unexport(named("default", "bar"))
		w.settle()
		w.expect("delete "+berlinSlice, "update "+barService)
	})
}

// A remote's gateway that is not known changes nothing of its part.
func TestMergedGatewayUnknown(t *testing.T) {
	run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
		w.merge()
		w.remotes["paris"].setGateway(nil)
		w.settle()
		w.expect()
		w.remotes["berlin"].setGateway(nil)
		w.settle()
		w.expect()
		w.remotes["paris"].setGateway(&gateway.Gateway{Static: true}) // it has none: another one serves
		w.settle()
		w.wantServing("192.0.2.2")
	})
}

// Prune deletes a remote's part and, with the last part, the Service.
func TestPruneMerged(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		prune := func(remote string, dry bool) string {
			t.Helper()
			var out strings.Builder
			if err := write.Prune(w.Context(), w.server.client, "london", remote, dry, &out); err != nil {
				t.Error(err)
			}
			return out.String()
		}
		for remote, want := range map[string]string{"rome": "", "paris": "EndpointSlice default/bar.paris.ipv4"} {
			if got := prune(remote, true); !strings.Contains(got, want) || strings.Contains(got, "berlin.ipv4") || strings.HasPrefix(got, "Service") || strings.Contains(got, "\nService") {
				t.Errorf("a dry run of pruning %s lists %q", remote, got)
			}
		}
		w.expect()
		prune("paris", false)
		w.expect("update "+barService, "delete "+parisSlice)
		prune("berlin", false)
		w.expect("delete "+barService, "delete "+berlinSlice)
	})
}

// The Service stays, with its ClusterIPs, while it lists a remote that is not pruned, although that has no slice now.
func TestPruneMergedKeepsTheService(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.at("", "")
		w.remotes["berlin"].setGateway(nil) // not known
		for _, r := range bothRemotes {
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.expect("create "+barService, "create "+parisSlice)
		w.stop()
		before := w.server.service("default", "bar")
		prune := func(dry bool, remotes ...string) ([]write.Pruned, string) {
			t.Helper()
			var out strings.Builder
			all, err := write.Pruning{Client: w.server.client, Local: "london", Remotes: remotes, Dry: dry}.Prune(w.Context(), &out)
			if err != nil {
				t.Error(err)
			}
			return all, out.String()
		}
		const unlisted = "remote paris in the annotation service-mirror.io/remotes of Service default/bar in london\n"
		if all, got := prune(true, "paris"); !strings.Contains(got, unlisted) || strings.HasPrefix(got, "Service") || strings.Contains(got, "\nService") || len(all[0].Unlisted) != 1 {
			t.Errorf("a dry run says %q, and returns %+v", got, all)
		}
		if all, got := prune(true, "paris", "berlin"); !strings.Contains(got, "Service default/bar in london of remote paris\n") || strings.Contains(got, unlisted) || len(all[1].Objects)+len(all[1].Unlisted) > 0 {
			t.Errorf("a dry run for both says %q, and returns %+v", got, all)
		}
		w.expect()
		prune(false, "paris")
		w.expect("update "+barService, "delete "+parisSlice)
		after := w.server.service("default", "bar")
		if got := after.Annotations[plan.RemotesAnnotation]; got != "berlin=default/bar" || after.UID != before.UID || after.Spec.ClusterIP != before.Spec.ClusterIP {
			t.Errorf("the Service lists %q, has the UID %s, which was %s", got, after.UID, before.UID)
		}
		prune(false, "berlin") // only the Service says that it is berlin's
		w.expect("delete " + barService)
	})
}

// A list that changes during the prune is read again.
func TestPruneMergedWhoseListChanges(t *testing.T) {
	run(t, merging(plan.MergeAll), []string{"paris", "berlin"}, func(w *world) {
		w.merge()
		w.stop()
		changed := false
		w.server.setRefuse(func(action clienttesting.Action) error {
			if update, ok := action.(clienttesting.UpdateAction); ok && action.GetVerb() == "update" && !changed {
				changed = true
				other := update.GetObject().(*corev1.Service).DeepCopy()
				return apierrors.NewConflict(corev1.Resource("services"), other.Name, errForbidden)
			}
			return nil
		})
		var out strings.Builder
		if err := write.Prune(w.Context(), w.server.client, "london", "paris", false, &out); err != nil {
			t.Error(err)
		}
		w.expect("update "+barService, "update "+barService, "delete "+parisSlice)
	})
}

// Slices under a Service that is foreign by now are not pruned.
func TestPruneMergedUnderAForeignService(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		w.server.remove("services", "default", "bar")
		w.server.put(named("default", "bar"))
		var out strings.Builder
		if err := write.Prune(w.Context(), w.server.client, "london", "paris", false, &out); err != nil {
			t.Error(err)
		}
		w.expect()
	})
}

// While the new name of one remote's mirror is taken, all parts stay, and follow their gateways.
func TestMergedPartWhoseNewNameIsTaken(t *testing.T) {
	run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		w.server.put(named("default", "bar-berlin")) // a foreign one
		w.use(Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Order: bothRemotes}}, bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		w.expect(created("default/bar-paris")...)
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.8"))
		w.remotes["berlin"].setGateway(gatewayAt("192.0.2.9"))
		w.settle()
		w.expect("update "+parisSlice, "update "+berlinSlice, "update endpointslices default/bar-paris-ipv4")
		w.wantServing("192.0.2.8", "192.0.2.9 dead") // as they did
		w.wantRows("berlin mirrored standby Renaming", "paris mirrored serving Renaming")
		w.server.remove("services", "default", "bar-berlin")
		w.wait(foreignPeriod * 40)
		w.expect(append(created("default/bar-berlin"), "delete "+parisSlice, "delete "+berlinSlice, "delete "+barService)...)
	})
}
