package mirror

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	published "service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// twoRemotes have the mirrors of paris and rome called by these rules.
func twoRemotes(paris, rome plan.Naming) Options {
	return Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Names: plan.Names{"paris": paris, "rome": rome}}}
}

var (
	plain     = plan.Naming{Template: "{service}"}
	cityFirst = plan.Naming{Template: "{cluster}-{service}"}
	webInShop = plan.Naming{Namespaces: map[string]string{"web": "shop"}}
	bothInOne = plan.Naming{Namespaces: map[string]string{"web": "shop", "old": "shop"}}
)

// lose makes all but these namespaces unknown: what the others export is not seen, and that is no absence.
func (r *fakeRemote) lose(known []string, exports ...*corev1.Service) {
	r.namespaces = known
	for _, svc := range exports {
		must(r.services.GetIndexer().Delete(svc))
	}
}

// again restarts the controller with other rules, and has it know the remotes late.
func (w *world) again(options Options, remotes ...string) {
	w.stop()
	w.use(options, remotes...)
	w.settle()
	for _, name := range remotes {
		w.remotes[name].know(true)
	}
	w.settle()
}

// onUDP exports a Service that is mirrored only because its remote's gateway reserves a port for it.
func onUDP(r *fakeRemote, namespace string) {
	dns := named(namespace, "bar")
	dns.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
	gw := parisGateway()
	gw.Ports = append(gw.Ports, corev1.ServicePort{Name: "x", Port: 15353, Protocol: corev1.ProtocolUDP})
	gw.Reserved = gateway.Reserved{{Service: cache.NewObjectName(namespace, "bar"), Port: "53", Protocol: corev1.ProtocolUDP}: 15353}
	r.setGateway(gw)
	r.export(dns)
}

// What is not known of a mirror's source is no absence, whatever else has, or wants, its name.
func TestUnknownSourceKeepsItsMirror(t *testing.T) {
	for name, test := range map[string]struct {
		before, after plan.Naming
		mirror        string
		exports       func(*fakeRemote)
		unknown       func(*fakeRemote)
	}{
		"another namespace in the same one": {bothInOne, bothInOne, "shop/bar-paris",
			func(r *fakeRemote) { r.export(named("web", "bar")); r.export(named("old", "bar")) },
			func(r *fakeRemote) { r.lose([]string{"old"}, named("web", "bar")) }},
		"the namespace is the remote's own again": {webInShop, plan.Naming{}, "shop/bar-paris",
			func(r *fakeRemote) { r.export(named("web", "bar")) },
			func(r *fakeRemote) { r.lose([]string{"shop"}, named("web", "bar")) }},
		"a name that any export may choose": {plan.Naming{ObeyNames: true}, plan.Naming{ObeyNames: true, Namespaces: map[string]string{"default": "shop"}}, "default/bar-paris",
			func(r *fakeRemote) { r.export(named("default", "bar")) },
			func(r *fakeRemote) { r.lose([]string{"kube-system"}, named("default", "bar")) }},
		"UDP, and the gateway is unknown": {plan.Naming{}, cityFirst, "default/bar-paris",
			func(r *fakeRemote) { onUDP(r, "default") },
			func(r *fakeRemote) { r.setGateway(nil) }},
		"UDP, and another Service of the name is refused": {bothInOne, bothInOne, "shop/bar-paris",
			func(r *fakeRemote) {
				onUDP(r, "web")
				headless := named("old", "bar")
				headless.Spec.ClusterIP = corev1.ClusterIPNone
				r.export(headless)
			},
			func(r *fakeRemote) { r.setGateway(nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, naming(test.before), paris, func(w *world) {
				w.server.put(shopNamespace())
				test.exports(w.remotes["paris"])
				w.settle()
				w.expect(created(test.mirror)...)
				test.unknown(w.remotes["paris"])
				w.settle()
				w.again(naming(test.after), "paris")
				w.expect()
			})
		})
	}
}

// A remote that becomes unknown during a sync must not look like one that exports nothing.
func TestUnknownDuringASync(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.server.put(named("default", "bar")) // foreign
		w.again(naming(plain), "paris")
		for looks := range 12 {
			add(w.controller, &failing{w.remotes["paris"], looks})
			if p := w.controller.planned(cache.NewObjectName("default", "bar-paris")); p.Writes() {
				t.Errorf("unknown after %d looks: the mirror is written to: %v", looks, p.Steps)
			}
		}
		add(w.controller, w.remotes["paris"])
	})
}

// failing is a remote that becomes unknown after a number of looks at it.
type failing struct {
	*fakeRemote
	looks int
}

func (f *failing) View() (remote.View, bool) {
	if f.looks--; f.looks < 0 {
		return remote.View{}, false
	}
	return f.fakeRemote.View()
}

// A mirror goes although the remote's namespace that is called like its own is not watched.
func TestUnexportedFromAnotherNamespace(t *testing.T) {
	run(t, naming(webInShop), paris, func(w *world) {
		w.server.put(shopNamespace())
		w.remotes["paris"].namespaces = []string{"web"}
		w.remotes["paris"].export(named("web", "bar"))
		w.settle()
		w.expect(created("shop/bar-paris")...)
		w.remotes["paris"].unexport(named("web", "bar"))
		w.wait(time.Second)
		w.expect(deleted("shop/bar-paris")...)
	})
}

// With another template the mirrors under the new names come first, and those under the old ones go when these are
// complete.
func TestRename(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.stop()

		w.use(naming(cityFirst), "paris")
		w.server.put(named("default", "paris-bar")) // a foreign one has the name
		w.settle()
		w.expect()
		w.logged(1, `reason="Conflict"`)
		w.logged(1, `reason="Renaming"`)
		plans := w.controller.Plans()
		if i := slices.IndexFunc(plans, func(p plan.Plan) bool { return p.Key == cache.NewObjectName("default", "bar-paris") }); i < 0 ||
			plans[i].Successor == nil || plans[i].Writes() {
			t.Errorf("the plans are %+v", plans)
		}
		var out strings.Builder
		for _, p := range plans {
			printPlan(&out, p, "london")
		}
		if !strings.Contains(out.String(), "rename mirror default/bar-paris to default/paris-bar in london for remote paris") {
			t.Errorf("a dry run prints\n%s", &out)
		}
		w.server.remove("services", "default", "paris-bar")
		w.wait(time.Second) // no back-off keeps the old one
		writes := w.expect(append(created("default/paris-bar"), deleted("default/bar-paris")...)...)
		if !slices.IsSortedFunc(writes, func(a, b written) int { // create comes before delete
			return strings.Compare(strings.Fields(a.what)[0], strings.Fields(b.what)[0])
		}) {
			t.Errorf("written in this order: %v", writes)
		}
		w.logged(1, `no longer has this problem" reason="Renaming"`)
	})
}

// While a mirror under its old name waits, it is as it should be, and the page says why it exists.
func TestRenameThatWaits(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.server.put(named("default", "bar")) // foreign, for weeks
		w.again(naming(plain), "paris")
		w.expect()
		w.remotes["paris"].setGateway(gatewayAt("198.51.100.9"))
		w.wait(time.Second)
		w.expect("update endpointslices default/bar-paris-ipv4")
		more := named("default", "bar")
		more.Spec.Ports = append(more.Spec.Ports, corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP})
		w.remotes["paris"].export(more)
		w.wait(time.Second)
		w.expect("update endpointslices default/bar-paris-ipv4", "update services default/bar-paris")
		rows := map[string]string{}
		for _, row := range w.controller.Overview().Mirrors {
			rows[row.Name] = row.State
			for _, problem := range row.Problems {
				rows[row.Name] += " " + problem.Reason
			}
		}
		if rows["bar-paris"] != "mirrored Renaming" || rows["bar"] != "conflict Conflict" {
			t.Errorf("the page shows %v", rows)
		}
		w.remotes["paris"].unexport(more)
		w.wait(time.Second)
		w.expect(deleted("default/bar-paris")...)
	})
}

// A name that no Service can have is never complete: the mirror keeps the one that it has.
func TestRenameToAnInvalidName(t *testing.T) {
	name := strings.Repeat("a", 53)
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", name))
		w.settle()
		w.expect(created("default/" + name + "-paris")...)
		w.again(naming(plan.Naming{Template: "{service}-{namespace}-{cluster}"}), "paris")
		w.expect()
		w.logged(1, `reason="InvalidName"`)
	})
}

// As long as the gateway is not known, the mirror under the old name keeps its addresses, and stays.
func TestRenameWithoutAGateway(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.stop()

		w.remotes["paris"].setGateway(nil)
		w.use(naming(plain), "paris")
		w.settle()
		w.expect("create services default/bar")
		w.remotes["paris"].setGateway(parisGateway())
		w.wait(time.Second)
		w.expect(append([]string{"create endpointslices default/bar-ipv4"}, deleted("default/bar-paris")...)...)
	})
}

// A mirror with Endpoints is complete when Kubernetes has made EndpointSlices of them.
func TestRenameAwaitsSlices(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect("create endpoints default/bar-paris", "create services default/bar-paris")
		w.stop()

		w.server.setWithoutSlices(true)
		w.use(Options{Policy: Policy{EndpointsAPI: UseEndpoints, Names: plan.Names{"paris": plain}}}, "paris")
		w.start()
		w.wait(10 * time.Minute)
		w.expect("create endpoints default/bar", "create services default/bar")
		w.server.put(mirroredSlice("bar"))
		w.wait(foreignPeriod * 40)
		w.expect("delete endpoints default/bar-paris", "delete services default/bar-paris")
	})
}

// The mirror under the old name stays while the remote's gateway does not route the new one.
func TestRenameToANameThatIsNotRouted(t *testing.T) {
	publishing(t, func(w *world, paris *fakeRemote) {
		svc, record := database("bar", 1)
		record.Hosts = []string{"bar.default", "bar-paris.default", "bar-paris.default.svc.cluster.local"}
		record.Ports = []published.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000, Class: "tcp", Shared: true}}
		paris.export(svc)
		paris.publish(record)
		w.settle()
		w.expect("create endpoints default/bar-paris", "create services default/bar-paris")
		w.logged(0, `reason="NotRouted"`)
		w.stop()
		w.use(Options{Policy: Policy{Names: plan.Names{"paris": cityFirst}}}, "paris")
		w.settle()
		w.wait(time.Hour)
		w.logged(1, `reason="NotRouted"`)
		w.expect("create endpoints default/paris-bar", "create services default/paris-bar")
	})
}

// Another remote that wants the old name of a mirror waits until the mirror with the new name is complete.
func TestOldNameIsWanted(t *testing.T) {
	run(t, twoRemotes(plain, plain), []string{"paris", "rome"}, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar")...)
		w.remotes["rome"].export(named("default", "bar"))
		w.settle()
		w.expect()
		w.server.put(named("default", "bar-paris")) // foreign, for now
		w.again(twoRemotes(plan.Naming{}, plain), "paris", "rome")
		w.expect()
		w.server.remove("services", "default", "bar-paris")
		w.wait(time.Minute)
		w.expect(slices.Concat(created("default/bar-paris"), deleted("default/bar"), created("default/bar"))...)
		if owner := w.server.service("default", "bar").Labels[plan.ClusterLabel]; owner != "rome" {
			t.Errorf("the old name is %s's", owner)
		}
	})
}

// The mirror of a remote that the flags name no longer, or that is not known yet, is nobody else's, whether it records the
// UID of its cluster or not.
func TestNameOfARemovedRemote(t *testing.T) {
	for _, uid := range []types.UID{"paris-uid", ""} {
		for _, pending := range []bool{false, true} {
			t.Run(fmt.Sprintf("UID %q, pending %v", uid, pending), func(t *testing.T) {
				run(t, twoRemotes(plain, plain), []string{"paris", "rome"}, func(w *world) {
					w.remotes["paris"].uid = uid
					w.remotes["paris"].export(named("default", "bar"))
					w.settle()
					w.expect(created("default/bar")...)
					w.remotes["rome"].export(named("default", "bar"))
					w.settle()
					w.expect()
					w.again(Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Names: plan.Names{"rome": plain}, Pending: pending}}, "rome")
					w.expect()
				})
			})
		}
	}
}

// A mirror whose label someone edits is still that of the cluster whose UID it records.
func TestEditedLabelWithoutThePlaceOfTheRemote(t *testing.T) {
	for name, alsoRome := range map[string]bool{"which exports it, too": true, "which does not": false} {
		t.Run(name, func(t *testing.T) {
			run(t, twoRemotes(plain, plain), []string{"paris", "rome"}, func(w *world) {
				w.remotes["paris"].export(named("default", "bar"))
				w.settle()
				w.expect(created("default/bar")...)
				if alsoRome {
					w.remotes["rome"].export(named("default", "bar"))
				}
				w.settle()
				was := w.server.service("default", "bar")
				w.server.edit("services", cache.NewObjectName("default", "bar"), func(obj runtime.Object) bool {
					obj.(*corev1.Service).Labels[plan.ClusterLabel] = "rome"
					return true
				})
				w.wait(time.Minute)
				w.expect("update services default/bar")
				if is := w.server.service("default", "bar"); is.UID != was.UID || is.Labels[plan.ClusterLabel] != "paris" {
					t.Errorf("it is %s, and was %s", text(is), text(was))
				}
			})
		})
	}
}

// A Service that is refused does not free the name that the mirror of another one has still.
func TestRefusedUnderAnOldName(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		refused := named("default", "bar-paris")
		refused.Spec.ClusterIP = corev1.ClusterIPNone
		w.remotes["paris"].export(refused)
		w.server.put(named("default", "bar")) // foreign: the new mirror must wait
		w.again(naming(plain), "paris")
		w.expect()
	})
}

// Of mirrors that exchange names, one goes first; the other one waits for its successor.
func TestExchangeOfNames(t *testing.T) {
	for name, test := range map[string]struct{ before, after Options }{
		"two remotes": {twoRemotes(plain, plan.Naming{Template: "x-{service}"}), twoRemotes(plan.Naming{Template: "x-{service}"}, plain)},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, test.before, []string{"paris", "rome"}, func(w *world) {
				w.remotes["paris"].export(named("default", "bar"))
				w.remotes["rome"].export(named("default", "bar"))
				w.settle()
				w.expect(append(created("default/bar"), created("default/x-bar")...)...)
				w.again(test.after, "paris", "rome")
				w.wait(time.Minute)
				writes := w.expect(slices.Concat(deleted("default/bar"), created("default/bar"), deleted("default/x-bar"), created("default/x-bar"))...)
				var services []string
				for _, write := range writes {
					if strings.Contains(write.what, " services ") {
						services = append(services, write.what)
					}
				}
				if want := []string{"delete services default/bar", "create services default/bar", "delete services default/x-bar", "create services default/x-bar"}; !slices.Equal(services, want) {
					t.Errorf("Services are written in the order %v, want %v", services, want)
				}
				for name, owner := range map[string]string{"bar": "rome", "x-bar": "paris"} {
					if is := w.server.service("default", name).Labels[plan.ClusterLabel]; is != owner {
						t.Errorf("%s is the mirror of %s", name, is)
					}
				}
			})
		})
	}
}

// A chosen name passes to another Service of the remote only when the mirror that has it is complete under its new one.
func TestChosenNamePasses(t *testing.T) {
	chosen := func(service, name string) *corev1.Service {
		svc := named("default", service)
		svc.Annotations = map[string]string{plan.NameAnnotation: name}
		return svc
	}
	run(t, naming(plan.Naming{ObeyNames: true}), paris, func(w *world) {
		w.remotes["paris"].export(chosen("a", "till"))
		w.settle()
		w.expect(created("default/till")...)
		w.server.put(named("default", "desk")) // foreign
		w.remotes["paris"].export(chosen("b", "till"))
		w.settle()
		w.remotes["paris"].export(chosen("a", "desk"))
		w.settle()
		w.expect()
		w.server.remove("services", "default", "desk")
		w.wait(time.Minute)
		w.expect(slices.Concat(created("default/desk"), deleted("default/till"), created("default/till"))...)
	})
}

// Services that choose each other's names by the template are mirrored, and then there is nothing to do.
func TestChosenNamesOfEachOther(t *testing.T) {
	run(t, naming(plan.Naming{ObeyNames: true}), paris, func(w *world) {
		for service, name := range map[string]string{"a": "b-paris", "b": "a-paris"} {
			svc := named("default", service)
			svc.Annotations = map[string]string{plan.NameAnnotation: name}
			w.remotes["paris"].export(svc)
		}
		w.settle()
		w.expect(append(created("default/a-paris"), created("default/b-paris")...)...)
		w.wait(time.Hour)
		w.expect()
	})
}

// A chosen name that goes, comes, or changes moves the mirror, from the template's name, too.
func TestChosenNameAndTemplate(t *testing.T) {
	chosen := named("default", "bar")
	chosen.Annotations = map[string]string{plan.NameAnnotation: "till"}
	run(t, naming(plan.Naming{ObeyNames: true}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.server.put(named("default", "till")) // foreign
		w.settle()
		w.remotes["paris"].export(chosen)
		w.wait(time.Minute)
		w.expect()
		w.server.remove("services", "default", "till")
		w.wait(time.Second)
		w.expect(append(created("default/till"), deleted("default/bar-paris")...)...)
	})
}

// A mirror moves to another namespace although the remote's namespace of the old one's name is not watched.
func TestMoveFromANamespaceThatIsNotWatched(t *testing.T) {
	run(t, naming(webInShop), paris, func(w *world) {
		w.server.put(shopNamespace())
		w.server.put(namespaceNamed("web"))
		w.remotes["paris"].namespaces = []string{"web"}
		w.remotes["paris"].export(named("web", "bar"))
		w.settle()
		w.expect(created("shop/bar-paris")...)
		w.again(naming(plan.Naming{}), "paris")
		w.expect(append(created("web/bar-paris"), deleted("shop/bar-paris")...)...)
	})
}

// Without --cluster-name, whether a limited Service is for this cluster is not known: a mirror that exists stays.
func TestForgottenClusterName(t *testing.T) {
	options := naming(plan.Naming{})
	options.ClusterName = "london"
	run(t, options, paris, func(w *world) {
		svc := named("default", "bar")
		svc.Annotations = map[string]string{plan.ExportToAnnotation: "london"}
		w.remotes["paris"].export(svc)
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.again(naming(plan.Naming{}), "paris")
		w.expect()
		w.logged(1, `reason="NoClusterName"`)
		w.again(naming(cityFirst), "paris")
		w.expect()
	})
}
