package e2e

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A mirror that was for a moment none for Kubernetes gets its EndpointSlices back, whatever
// keeps them away: here a quota.
func TestSlicesAreMadeAgain(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	right := []func() error{r.mirrored("bar", "203.0.113.1"), r.slicesLead("bar", to("http:8080", "203.0.113.1")...)}
	e.soon("the mirror", right...)
	name := r.mirror("bar")
	service, endpoints := e.service(name), e.endpoints(name)

	const slices = "count/endpointslices.discovery.k8s.io"
	quotas := london.CoreV1().ResourceQuotas(e.id)
	_, err := quotas.Create(e.ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{slices: resource.MustParse("0")}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.soon("the quota at work", func() error {
		quota, err := quotas.Get(e.ctx, "none", metav1.GetOptions{})
		if used := quota.Status.Used[slices]; err == nil && used.IsZero() {
			return errors.New("nothing is counted yet")
		}
		return err
	})
	e.change(london, name, func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "none"} })
	e.soon("a second attempt", func() error {
		if n := d.logged("have no EndpointSlices"); n < 2 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	e.must(quotas.Delete(e.ctx, "none", metav1.DeleteOptions{}))
	e.soon("the mirror again", right...)
	if now := e.service(name); now.UID != service.UID {
		t.Error("the Service became another one")
	}
	if now := e.endpoints(name); now.UID == endpoints.UID {
		t.Error("the Endpoints are the same")
	}
	e.stays("the mirror", right...)
}
