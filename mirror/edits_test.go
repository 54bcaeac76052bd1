package mirror

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/report"
)

// Whatever someone sets in a mirror's spec is undone; what the API server assigned stays.
func TestEveryEditOfTheSpecIsUndone(t *testing.T) {
	local, prefer := corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceTrafficDistributionPreferClose
	for name, edit := range map[string]func(*corev1.ServiceSpec){
		"a load balancer with a selector": func(s *corev1.ServiceSpec) {
			s.Type, s.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"10.0.0.0/8"}
			s.Selector, s.ExternalTrafficPolicy, s.HealthCheckNodePort = map[string]string{"app": "x"}, local, 30001
			s.Ports[0].NodePort = 30080
		},
		"externalIPs":              func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"192.0.2.5"} },
		"externalName":             func(s *corev1.ServiceSpec) { s.ExternalName = "example.com" },
		"trafficDistribution":      func(s *corev1.ServiceSpec) { s.TrafficDistribution = &prefer },
		"publishNotReadyAddresses": func(s *corev1.ServiceSpec) { s.PublishNotReadyAddresses = true },
		"loadBalancerClass":        func(s *corev1.ServiceSpec) { class := "x"; s.LoadBalancerClass = &class },
		"type ExternalName": func(s *corev1.ServiceSpec) {
			*s = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com", SessionAffinity: corev1.ServiceAffinityNone}
		},
	} {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				had := w.pair().Service
				edited := had.DeepCopy()
				edit(&edited.Spec)
				edited.Labels["theirs"] = "x"
				w.server.put(edited)
				w.settle()
				w.expect(updateService)
				now := w.pair().Service
				if text(now.Spec) != text(had.Spec) || now.UID != had.UID || now.Labels["theirs"] != "x" {
					w.Errorf("it was %s and is %s", text(had), text(now))
				}
				w.logged(0, "reason=")
			})
		})
	}
}

// A headless Service cannot get a ClusterIP: the mirror is recreated, with the one that it had.
func TestHeadlessMirrorIsRecreated(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		had := w.pair().Service
		edited := had.DeepCopy()
		edited.Spec.ClusterIP, edited.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
		w.server.put(edited)
		w.wait(10 * time.Second)
		if now := w.pair().Service; now == nil || now.Spec.ClusterIP != had.Spec.ClusterIP {
			w.Errorf("it had %s: %s", had.Spec.ClusterIP, text(now))
		}
		w.mirrored()
	})
}

// While the gateway is unknown, addresses that someone deletes come back as they were.
func TestAddressesComeBackWithoutAGateway(t *testing.T) {
	for _, api := range []plan.EndpointsAPI{UseEndpoints, UseEndpointSlices} {
		for name, remove := range map[string]func(w *world){
			"both": func(w *world) {
				if api == UseEndpoints {
					w.server.removePair("default", "bar-paris")
				} else {
					w.server.remove("services", "default", "bar-paris")
					w.server.remove("endpointslices", "default", "bar-paris-ipv4")
				}
			},
			"the addresses": func(w *world) {
				if api == UseEndpoints {
					w.server.remove("endpoints", "default", "bar-paris")
				} else {
					w.server.remove("endpointslices", "default", "bar-paris-ipv4")
				}
			},
		} {
			t.Run(string(api)+"/"+name, func(t *testing.T) {
				run(t, Options{Policy: Policy{EndpointsAPI: api}}, paris, func(w *world) {
					w.remotes["paris"].export(exportedBar())
					w.settle()
					w.remotes["paris"].setGateway(nil)
					w.settle()
					remove(w)
					w.wait(10 * time.Second)
					live := Objects{Endpoints: w.server.endpoints("default", "bar-paris"), IPv4: w.server.slice("default", "bar-paris-ipv4")}
					if got := live.Addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
						w.Errorf("the addresses are %q", got)
					}
					w.logged(0, "reason=")
				})
			})
		}
	}
}

// Edits and failed writes of one object of a mirror do not delay writes of the others.
func TestBackOffIsPerObject(t *testing.T) {
	t.Run("an overwritten Service, and the gateway moves", func(t *testing.T) {
		run(t, Options{}, paris, func(w *world) {
			w.server.setAdmit(onServices(webhook))
			w.remotes["paris"].export(exportedBar())
			w.wait(time.Hour)
			w.settle()
			w.wait(time.Hour)
			w.remotes["paris"].setGateway(gatewayAt("192.0.2.7"))
			w.wait(time.Second)
			if got := (Objects{Endpoints: w.server.endpoints("default", "bar-paris")}).Addresses(); !slices.Equal(got, []string{"192.0.2.7"}) {
				w.Errorf("a second later the addresses are %q", got)
			}
		})
	})
	t.Run("a rejected Service, and someone edits the Endpoints", func(t *testing.T) {
		exporting(t, Options{}, paris, func(w *world) {
			w.server.setRefuse(refusing("update", "services", forever, invalid("Service", "bar-paris", "denied")))
			changed := exportedBar()
			changed.Spec.Ports[0].Port = 81
			w.remotes["paris"].export(changed)
			w.wait(time.Hour)
			edited := w.pair().Endpoints
			edited.Subsets[0].Addresses[0].IP = "192.0.2.66"
			w.server.put(edited)
			w.wait(time.Second)
			if got := (Objects{Endpoints: w.pair().Endpoints}).Addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
				w.Errorf("a second later the addresses are %q", got)
			}
		})
	})
	t.Run("rejected Endpoints, and someone edits the Service", func(t *testing.T) {
		exporting(t, Options{}, paris, func(w *world) {
			w.server.setRefuse(refusing("update", "endpoints", forever, invalid("Endpoints", "bar-paris", "denied")))
			w.remotes["paris"].setGateway(gatewayAt("192.0.2.7"))
			w.wait(time.Hour)
			edited := w.pair().Service
			edited.Spec.Selector = map[string]string{"app": "x"}
			w.server.put(edited)
			w.wait(time.Second)
			if now := w.pair().Service; len(now.Spec.Selector) > 0 {
				w.Error("the selector is still set a second later")
			}
		})
	})
}

// A back-off that has ended, of an object that something else keeps from being written, is no reason to hurry.
func TestEndedBackOffDoesNotHurry(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("create", "services", forever, invalid("Service", "bar-paris", "denied")))
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(time.Minute)
		w.server.put(foreignEndpoints())
		w.server.setRefuse(nil)
		w.wait(time.Minute)
		w.server.wrote()
		w.wait(10 * time.Minute)
		if n := len(w.server.wrote()); n < 10 || n > 50 {
			w.Errorf("%d writes in ten minutes", n)
		}
	})
}

// A policy that rejected mirrors and is gone is noticed within half a minute.
func TestRejectionEnds(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("create", "services", forever, invalid("Service", "bar-paris", "denied")))
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(3 * time.Hour)
		w.server.setRefuse(nil)
		w.wait(lastRejected + time.Second)
		w.mirrored()
	})
}

// Annotations of users that the API server refuses are removed; the others stay.
func TestInvalidAnnotations(t *testing.T) {
	const bad, good = "service.beta.kubernetes.io/load-balancer-source-ranges", "note"
	for name, causes := range map[string][]metav1.StatusCause{
		"named":     {{Type: metav1.CauseTypeFieldValueInvalid, Field: "metadata.annotations[" + bad + "]"}},
		"not named": nil,
	} {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				w.server.setRefuse(func(action clienttesting.Action) error {
					update, ok := action.(clienttesting.UpdateActionImpl)
					if !ok || accessor(update.Object).GetAnnotations()[bad] == "" {
						return nil
					}
					err := invalid("Service", "bar-paris", "may only be used when `type` is 'LoadBalancer'").(*apierrors.StatusError)
					err.ErrStatus.Details.Causes = causes
					return err
				})
				edited := w.pair().Service
				edited.Spec.Type = corev1.ServiceTypeLoadBalancer
				edited.Annotations[bad], edited.Annotations[good] = "10.0.0.0/8", "x"
				w.server.put(edited)
				w.settle()
				w.expect(updateService, updateService)
				now := w.pair().Service
				if now.Spec.Type != corev1.ServiceTypeClusterIP || now.Annotations[bad] != "" || (now.Annotations[good] != "") != (causes != nil) {
					w.Errorf("got %s", text(now))
				}
				w.logged(1, `"Mirror has a problem" reason="AnnotationsRemoved"`)
				w.wait(time.Hour)
				w.expect()
				w.logged(0, "no longer has this problem")
			})
		})
	}
}

// A copy of a mirror, with its labels and annotations, is foreign.
func TestCopyOfAMirrorStays(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		copied := w.pair()
		copied.Service.Name, copied.Endpoints.Name = "my-own", "my-own"
		copied.Service.Spec.Selector, copied.Service.Spec.ClusterIP = map[string]string{"app": "mine"}, "10.96.9.9"
		w.server.put(copied.Service)
		w.server.put(copied.Endpoints)
		w.wait(time.Hour)
		w.remotes["paris"].know(true)
		w.remotes["paris"].unexport(exportedBar())
		w.wait(time.Hour)
		w.expect(deleteService, deleteEndpoints)
	})
}

// A conflict does not end the previous problem: the failure that follows is the same one.
func TestConflictEndsNoProblem(t *testing.T) {
	events, recorder := recording(nil)
	run(t, Options{Events: events}, paris, func(w *world) {
		n := 0
		w.server.setRefuse(func(action clienttesting.Action) error {
			if action.GetVerb() != "update" || action.GetResource().Resource != "services" {
				return nil
			}
			if n++; n%2 == 0 {
				return apierrors.NewConflict(corev1.Resource("services"), "bar-paris", errTest)
			}
			return apierrors.NewInternalError(errTest)
		})
		w.remotes["paris"].export(exportedBar())
		w.settle()
		changed := exportedBar()
		changed.Spec.Ports[0].Port = 81
		w.remotes["paris"].export(changed)
		w.wait(time.Hour)
		expectEvents(w.T, recorder, "Warning WriteFailed")
		w.logged(0, "no longer has this problem")
		w.server.setRefuse(nil)
		w.wait(time.Minute)
		w.logged(1, "no longer has this problem")
	})
}

// A replica that no longer leads does not know the problems of mirrors.
func TestFormerLeaderShowsNoProblems(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("create", "services", forever, apierrors.NewInternalError(errTest)))
		w.remotes["paris"].export(exportedBar())
		w.standby = true
		w.settle()
		deposed := w.lead()
		w.wait(time.Minute)
		if page := w.controller.Overview(); len(page.Mirrors) != 1 || len(page.Mirrors[0].Problems) == 0 {
			w.Errorf("a leader shows %+v", page.Mirrors)
		}
		deposed()
		w.wait(time.Minute)
		if page := w.controller.Overview(); len(page.Mirrors) != 1 || len(page.Mirrors[0].Problems) > 0 || page.Leader {
			w.Errorf("a former leader shows %+v", page.Mirrors)
		}
	})
}

// The deletion of an object that is already gone does not count.
func TestDeletionOfADeletedObjectIsNotCounted(t *testing.T) {
	metrics := report.NewMetrics(report.Daemon, "", paris)
	exporting(t, Options{Metrics: metrics}, paris, func(w *world) {
		w.server.pauseWatches(true)
		w.server.removePair("default", "bar-paris")
		w.remotes["paris"].unexport(exportedBar())
		w.wait(time.Second)
		w.expect(deleteService, deleteEndpoints)
		w.server.pauseWatches(false)
		w.logged(0, "Deleted mirror")
		families, err := metrics.Gatherer().Gather()
		must(err)
		for _, family := range families {
			if family.GetName() != "service_mirror_writes_total" {
				continue
			}
			for _, metric := range family.GetMetric() {
				if metric.GetLabel()[1].GetValue() == "delete" && metric.GetCounter().GetValue() > 0 {
					w.Errorf("counted: %v", metric)
				}
			}
		}
	})
}

// Addresses of a family that the local cluster lacks are a problem, with one Event for all mirrors.
func TestAddressesOfAnotherFamily(t *testing.T) {
	events, recorder := recording(nil)
	run(t, Options{Events: events}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.remotes["paris"].export(named("default", "foo"))
		w.settle()
		w.remotes["paris"].setGateway(gatewayAt("2001:db8::1"))
		w.wait(time.Minute)
		expectEvents(w.T, recorder, "Warning NoAddress remote paris: the gateway has only IPv6 addresses")
		for _, mirror := range w.controller.Overview().Mirrors {
			if mirror.State != string(plan.StateIncomplete) || len(mirror.Problems) != 1 || mirror.Problems[0].Reason != string(plan.NoAddress) {
				w.Errorf("got %+v", mirror)
			}
		}
		w.remotes["paris"].setGateway(parisGateway())
		w.wait(time.Minute)
		w.mirrored()
		w.logged(2, `no longer has this problem" reason="NoAddress"`)
	})
}

// An error of the clean-up is a problem.
func TestLeftoversThatCannotBeDeletedAreAProblem(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("delete", "endpointslices", forever, apierrors.NewInternalError(errTest)))
		w.server.put(leftoverSlice(w.pair().Service.UID, func(*discoveryv1.EndpointSlice) {}))
		w.wait(time.Minute)
		w.logged(1, `"Mirror has a problem" reason="WriteFailed"`)
		if page := w.controller.Overview(); page.Mirrors[0].State != string(plan.StateIncomplete) {
			w.Errorf("got %+v", page.Mirrors)
		}
	})
}

// A program that changes back what is written, each time at once, is left alone for longer and longer.
func TestFightBacksOff(t *testing.T) {
	events, recorder := recording(nil)
	run(t, Options{Events: events}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		var rival atomic.Bool
		rival.Store(true)
		changeBack := func() {
			if endpoints := w.server.endpoints("default", "bar-paris"); endpoints != nil && rival.Load() {
				endpoints.Subsets[0].Addresses[0].IP = "192.0.2.66"
				w.server.put(endpoints)
			}
		}
		w.server.setAdmit(onEndpoints(func(*corev1.Endpoints) { time.AfterFunc(5*time.Millisecond, changeBack) }))
		changeBack()
		w.wait(time.Hour)
		w.server.wrote()
		w.wait(time.Hour)
		if n := len(w.server.wrote()); n < 20 || n > 30 {
			w.Errorf("%d writes in the second hour, want two every five minutes", n)
		}
		expectEvents(w.T, recorder, "Warning Overwritten")
		w.logged(0, "no longer has this problem")
		rival.Store(false)
		w.wait(lastOverwritten + fightPeriod + time.Second)
		w.mirrored()
		w.logged(1, `no longer has this problem" reason="Overwritten"`)
	})
}

// Addresses that were removed because the gateway has lost them are not those that are restored.
func TestAddressesThatTheGatewayLostStayAway(t *testing.T) {
	run(t, Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.remotes["paris"].setGateway(gatewayAt())
		w.wait(time.Minute)
		w.remotes["paris"].setGateway(nil)
		w.wait(time.Minute)
		if slice := w.server.slice("default", "bar-paris-ipv4"); slice != nil {
			w.Errorf("there is %s", text(slice))
		}
	})
}

// A replica that leads again finds out again what is wrong.
func TestLeaderKnowsItsProblemsAgain(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.put(foreignService())
		w.remotes["paris"].export(exportedBar())
		w.standby = true
		w.settle()
		w.lead()()
		defer w.lead()()
		w.wait(time.Second)
		if page := w.controller.Overview(); len(page.Mirrors) != 1 || page.Mirrors[0].State != string(plan.StateConflict) {
			w.Errorf("it shows %+v", page.Mirrors)
		}
	})
}

// What a standby remembers of a mirror that is gone is not used for the next one of its name.
func TestStandbyForgetsWhatIsGone(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.stop()
		w.standby = true
		w.use(Options{}, "paris")
		w.settle()
		had := w.pair().Service.Spec.ClusterIP
		w.remotes["paris"].unexport(exportedBar())
		w.server.removePair("default", "bar-paris")
		w.wait(2 * sweepPeriod)
		w.remotes["paris"].setGateway(nil)
		w.remotes["paris"].export(exportedBar())
		defer w.lead()()
		w.wait(time.Minute)
		if now := w.pair(); now.Service.Spec.ClusterIP == had || len(now.Addresses()) > 0 {
			w.Errorf("it had %s: %s", had, text(now))
		}
	})
}

// Someone's edit of the label that names the remote is undone like any other.
func TestClusterLabelIsRestored(t *testing.T) {
	for _, cluster := range []string{"london", "nobody"} {
		run(t, Options{}, []string{"paris", "london"}, func(w *world) {
			w.remotes["paris"].export(exportedBar())
			w.settle()
			w.server.wrote()
			edited := w.pair().Service
			edited.Labels[plan.ClusterLabel] = cluster
			w.server.put(edited)
			w.settle()
			w.expect(updateService)
			w.mirrored()
		})
	}
}
