package mirror

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
	"service-mirror.io/service-mirror/mirror/plan"
)

func TestDriftIsFixedAtOnce(t *testing.T) {
	for name, test := range map[string]struct {
		service   func(*corev1.Service)
		endpoints func(*corev1.Endpoints)
		want      []string
	}{
		"ports":                     {service: func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] }, want: []string{updateService}},
		"selector":                  {service: func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "x"} }, want: []string{updateService}},
		"type":                      {service: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, want: []string{updateService}},
		"session affinity":          {service: func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, want: []string{updateService}},
		"source":                    {service: func(s *corev1.Service) { delete(s.Annotations, plan.RemoteServiceAnnotation) }, want: []string{updateService}},
		"service-proxy-name":        {service: func(s *corev1.Service) { s.Labels["service.kubernetes.io/service-proxy-name"] = "x" }, want: []string{updateService}},
		"addresses":                 {endpoints: func(e *corev1.Endpoints) { e.Subsets[0].Addresses[0].IP = "192.0.2.66" }, want: []string{updateEndpoints}},
		"no subsets":                {endpoints: func(e *corev1.Endpoints) { e.Subsets = nil }, want: []string{updateEndpoints}},
		"skip-mirror":               {endpoints: func(e *corev1.Endpoints) { e.Labels["endpointslice.kubernetes.io/skip-mirror"] = "true" }, want: []string{updateEndpoints}},
		"both":                      {service: func(s *corev1.Service) { s.Spec.Ports = nil }, endpoints: func(e *corev1.Endpoints) { e.Subsets = nil }, want: []string{updateService, updateEndpoints}},
		"labels of the Endpoints":   {endpoints: func(e *corev1.Endpoints) { e.Labels[plan.ClusterLabel] = "berlin" }, want: []string{updateEndpoints}},
		"another order of ports":    {service: func(s *corev1.Service) { s.Spec.Ports[0], s.Spec.Ports[1] = s.Spec.Ports[1], s.Spec.Ports[0] }},
		"status":                    {service: func(s *corev1.Service) { s.Status.Conditions = []metav1.Condition{{Type: "x"}} }},
		"foreign labels are theirs": {service: func(s *corev1.Service) { s.Labels["theirs"], s.Annotations["theirs"] = "x", "y" }},
	} {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				pair := w.pair()
				if test.service != nil {
					test.service(pair.Service)
					w.server.put(pair.Service)
				}
				if test.endpoints != nil {
					test.endpoints(pair.Endpoints)
					w.server.put(pair.Endpoints)
				}
				w.wait(time.Millisecond)
				w.expect(test.want...)
				if test.want != nil {
					w.mirrored()
				} else if text(w.pair().Service.Spec.Ports) != text(pair.Service.Spec.Ports) || text(w.pair().Service.Labels) != text(pair.Service.Labels) {
					w.Errorf("got %s", text(w.pair()))
				}
			})
		})
	}
}

func TestDeletedMirrorIsRecreatedWithItsClusterIP(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		had := w.pair().Service
		w.server.removePair("default", "bar-paris")
		w.settle()
		w.expect(createEndpoints, createService)
		w.mirrored()
		if got := w.pair().Service; got.Spec.ClusterIP != had.Spec.ClusterIP || got.UID == had.UID {
			w.Errorf("got %s, %s; it had %s, %s", got.Spec.ClusterIP, got.UID, had.Spec.ClusterIP, had.UID)
		}
		w.logged(0, `reason=`)
	})
}

func TestDeletedEndpointsAreRecreated(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		had := w.pair().Service
		w.server.remove("endpoints", "default", "bar-paris")
		w.settle()
		w.expect(createEndpoints)
		w.mirrored()
		if w.pair().Service.UID != had.UID {
			w.Error("the Service was recreated")
		}
	})
}

// If its ClusterIP is taken, a mirror gets another one, which is reported.
func TestTakenClusterIPIsReplaced(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		had := w.pair().Service.Spec.ClusterIP
		w.server.pauseWatches(true)
		w.server.removePair("default", "bar-paris")
		taker := foreignService()
		taker.Name = "taker"
		taker.Spec.ClusterIP = had
		w.server.put(taker)
		w.server.pauseWatches(false)
		w.wait(time.Minute)
		w.mirrored()
		if got := w.pair().Service.Spec.ClusterIP; got == had {
			w.Errorf("got %s again", got)
		}
		w.logged(1, `"Mirror has a problem" reason="ClusterIPLost"`)
		w.server.wrote()
		w.wait(time.Hour)
		w.expect()
	})
}

// Someone who deletes a mirror and creates it again with another ClusterIP changes what clients connect to.
func TestRecreatedElsewhereIsReported(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		recreated := w.pair().Service.DeepCopy()
		had := recreated.Spec.ClusterIP
		w.server.pauseWatches(true)
		w.server.remove("services", "default", "bar-paris")
		recreated.UID, recreated.ResourceVersion = "", ""
		recreated.Spec.ClusterIP, recreated.Spec.ClusterIPs = "10.96.77.77", []string{"10.96.77.77"}
		w.server.put(recreated)
		w.server.pauseWatches(false)
		w.wait(time.Minute)
		w.mirrored()
		if got := w.pair().Service.Spec.ClusterIP; got == had {
			w.Errorf("got %s again", got)
		}
		w.logged(1, `"Mirror has a problem" reason="ClusterIPLost"`)
		w.logged(1, "its ClusterIPs changed from "+had+" to 10.96.77.77")
		w.server.wrote() // an attempt to create it, if a sync ran between the two events
		w.wait(time.Hour)
		w.expect()
	})
}

// A Service that is exported again at once gets its mirror at once, although Kubernetes deletes the Endpoints
// of the one before a moment later.
func TestExportedAgainAtOnce(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		left := w.pair().Endpoints.DeepCopy()
		w.remotes["paris"].unexport(exportedBar())
		w.settle()
		left.UID, left.ResourceVersion, left.Labels, left.Annotations = "", "", nil, nil
		w.server.put(left) // as the endpoints controller may make them, which takes them over
		w.remotes["paris"].export(exportedBar())
		w.wait(500 * time.Millisecond)
		w.server.remove("endpoints", "default", "bar-paris")
		w.wait(3 * time.Second)
		w.mirrored()
		w.logged(0, "reason=")
	})
}

// The API server releases a ClusterIP a moment after the Service is deleted.
func TestClusterIPIsAwaited(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		had := w.pair().Service.Spec.ClusterIP
		w.server.setRefuse(refusing("create", "services", 3, invalid("Service", "bar-paris", "provided IP is already allocated")))
		w.server.removePair("default", "bar-paris")
		w.wait(10 * time.Second)
		w.mirrored()
		if got := w.pair().Service.Spec.ClusterIP; got != had {
			w.Errorf("got %s, it had %s", got, had)
		}
		w.logged(0, `reason=`)
	})
}

// The endpoints controller deletes the Endpoints a moment after the Service.
func TestEndpointsAreDeletedAfterTheirService(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.remove("services", "default", "bar-paris")
		w.wait(100 * time.Millisecond)
		w.expect(createService)
		w.server.remove("endpoints", "default", "bar-paris")
		w.wait(time.Second)
		w.expect(createEndpoints)
		w.mirrored()
	})
}

// A mirror keeps its ClusterIP only for as long as its Service is exported.
func TestClusterIPOfAnUnexportedMirrorIsForgotten(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		had := w.pair().Service.Spec.ClusterIP
		w.remotes["paris"].unexport(exportedBar())
		w.settle()
		w.wait(time.Minute)
		w.server.wrote()
		w.server.setRefuse(func(action clienttesting.Action) error {
			if create, ok := action.(clienttesting.CreateActionImpl); ok {
				if svc, ok := create.Object.(*corev1.Service); ok && svc.Spec.ClusterIP != "" {
					w.Errorf("it requests %s", svc.Spec.ClusterIP)
				}
			}
			return nil
		})
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.mirrored()
		if got := w.pair().Service.Spec.ClusterIP; got == had {
			w.Errorf("got %s again", got)
		}
	})
}
