package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mirroredSlices are the EndpointSlices that Kubernetes' controller has made of a mirror's Endpoints.
func (e *env) mirroredSlices(mirror string) []discoveryv1.EndpointSlice {
	e.Helper()
	list, err := london.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + mirror + "," + discoveryv1.LabelManagedBy + "=endpointslicemirroring-controller.k8s.io",
	})
	e.must(err)
	return list.Items
}

// getStuck has Kubernetes' controller wait for EndpointSlices that do not exist: of one that someone takes from it by
// its label, it does not notice the deletion.
func (e *env) getStuck(mirror string) {
	e.Helper()
	quiet := time.Now()
	e.eventually(20*time.Second, "the controller makes no more of them", func() error {
		for _, slice := range e.mirroredSlices(mirror) {
			quiet = time.Now()
			slice.Labels[discoveryv1.LabelManagedBy] = "someone"
			_, err := london.DiscoveryV1().EndpointSlices(e.id).Update(e.ctx, &slice, metav1.UpdateOptions{})
			if err == nil {
				err = london.DiscoveryV1().EndpointSlices(e.id).Delete(e.ctx, slice.Name, metav1.DeleteOptions{})
			}
			if err != nil {
				return err
			}
		}
		if time.Since(quiet) < 2*time.Second {
			return errors.New("it may make another")
		}
		return nil
	})
}

// Kubernetes' controller can wait for ever for an EndpointSlice that does not exist, and makes none then, however
// often the Endpoints are updated.
func TestStuckMirroringIsRestarted(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	right := r.mirrored("bar", "203.0.113.1")
	e.soon("the mirror", right)
	mirror := r.mirror("bar")
	had := e.endpoints(mirror)

	e.change(london, mirror, func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "web"} })
	e.soon("no selector", right) // and the daemon looks for EndpointSlices now and then
	e.getStuck(mirror)
	e.eventually(90*time.Second, "EndpointSlices", func() error {
		now := e.endpoints(mirror)
		if err := sameLines("Endpoints", addressesOf(now), addressesOf(had)); err != nil {
			t.Error(err)
		}
		if now.UID != had.UID {
			t.Error("the Endpoints were recreated")
		}
		if len(e.mirroredSlices(mirror)) == 0 {
			return errors.New("there are none")
		}
		return right()
	})
	e.logs(d, "disabling their mirroring for a moment")
}

func addressesOf(endpoints *corev1.Endpoints) (all []string) {
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			all = append(all, fmt.Sprint(address.IP, subset.Ports))
		}
	}
	return all
}
