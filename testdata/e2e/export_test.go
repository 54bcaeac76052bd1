package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestExportIsOptIn(t *testing.T) {
	e := newEnv(t)
	for _, selector := range []string{"", " ", "a=b=c"} {
		d := runDaemon(t, "--kubeconfig", e.kubeconfig, "--export-selector", selector, "--remote", "paris=/nowhere", "--gateway", "a/b")
		if code := d.exitCode(); code != 2 || d.logged("--export-selector") != 1 {
			t.Errorf("selector %q: exit code %d and log %s", selector, code, d.log)
		}
	}
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("headless", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	r.export("external", func(svc *corev1.Service) {
		svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	})
	r.export("udp", func(svc *corev1.Service) { svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP })
	r.export("private", e.unlabel)
	system := r.exported("system-"+e.id, func(svc *corev1.Service) { svc.Namespace = "kube-system" })
	_, err := paris.CoreV1().Services("kube-system").Create(e.ctx, system, metav1.CreateOptions{})
	e.must(err)
	defer paris.CoreV1().Services("kube-system").Delete(e.ctx, system.Name, metav1.DeleteOptions{})
	_, err = paris.CoreV1().Services("default").Patch(e.ctx, "kubernetes", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"`+exportLabel+`":"`+e.id+`"}}}`), metav1.PatchOptions{})
	e.must(err)
	since := london.mark(t)
	d := e.daemon([]*remote{r})
	for service, reason := range map[string]string{
		e.id + "/headless": "Headless", e.id + "/external": "ExternalName", e.id + "/udp": "NoTCPPort",
		"kube-system/" + system.Name: "SystemService", "default/kubernetes": "SystemService",
	} {
		e.logs(d, reason, `"`+service+`"`)
	}
	e.stays("nothing mirrored", func() error {
		list, err := london.CoreV1().Services("").List(e.ctx, metav1.ListOptions{LabelSelector: "service-mirror.io/cluster=" + r.name})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d mirrors", len(list.Items))
		}
		return err
	})
	e.noWrites(since)

	// Labels added and removed.
	e.change(r.cluster, "private", e.label)
	e.soon("exported by label", r.mirrored("private", "203.0.113.1"))
	e.change(r.cluster, "private", e.unlabel)
	e.soon("no longer exported", r.gone("private"))
	e.change(r.cluster, "private", e.label)
	e.soon("exported again", r.mirrored("private", "203.0.113.1"))
}

func TestServiceBecomesHeadless(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	e.remove(paris, "bar")
	r.export("bar", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	e.soon("no mirror of a headless Service", r.gone("bar"))
}

func TestNameTooLong(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	long := strings.Repeat("x", 61)
	d := e.daemon([]*remote{r})
	r.export(long)
	r.export("bar")
	e.soon("the other", r.mirrored("bar", "203.0.113.1"))
	e.change(r.cluster, long, func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.stays("nothing written", func() error {
		list, err := london.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != 1 {
			err = fmt.Errorf("%d Services", len(list.Items))
		}
		return err
	})
	if n := d.logged("InvalidName"); n != 1 {
		t.Errorf("the long name is logged %d times, want once", n)
	}
}

func TestServiceIsRecreatedAtOnce(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	for i := range 20 {
		e.remove(paris, "bar")
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		r.export("bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = int32(100 + i) })
		e.soon("the mirror of the new one", r.mirrored("bar", "203.0.113.1"))
	}
	e.stays("the mirror of the last", r.mirrored("bar", "203.0.113.1"))
}

func TestUnexportRacesWithOtherChanges(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	e.daemon([]*remote{r})
	var last string
	for i := range 200 {
		last = fmt.Sprintf("bar%d", i)
		address := fmt.Sprintf("203.0.113.%d", 1+i)
		r.gateway(address)
		r.export(last)
		e.soon("the mirror", r.mirrored(last, address))
		changes := []func(){
			func() { r.gateway("198.51.100.1") },
			func() {
				e.change(paris, last, func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
			},
			func() {
				_, err := london.CoreV1().Services(e.id).Patch(e.ctx, r.mirror(last), types.MergePatchType,
					[]byte(`{"spec":{"ports":[{"name":"edited","port":82}]}}`), metav1.PatchOptions{})
				if !apierrors.IsNotFound(err) {
					e.must(err)
				}
			},
			func() { e.change(paris, last, e.unlabel) },
		}
		for j := range changes { // the unexport comes first, in between, and last
			changes[(i+j)%len(changes)]()
		}
		e.soon("no mirror", r.gone(last))
	}
	e.stays("no mirror at all", func() error {
		list, err := london.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d Services, one of them %s", len(list.Items), list.Items[0].Name)
		}
		return err
	}, r.gone(last))
}

func TestTwoThousandServices(t *testing.T) {
	e := newLoneEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	const n = 2000
	for i := range n {
		r.export(fmt.Sprintf("bar%d", i))
	}
	since := london.mark(t)
	d := e.daemon([]*remote{r})
	mirrors := func(want int) func() error {
		return func() error {
			selector := metav1.ListOptions{LabelSelector: "service-mirror.io/cluster=" + r.name}
			services, err := london.CoreV1().Services(e.id).List(e.ctx, selector)
			if err != nil {
				return err
			}
			endpoints, err := london.CoreV1().Endpoints(e.id).List(e.ctx, selector)
			if err != nil {
				return err
			}
			if len(services.Items) != want || len(endpoints.Items) != want {
				return fmt.Errorf("%d Services and %d Endpoints, want %d", len(services.Items), len(endpoints.Items), want)
			}
			for _, item := range endpoints.Items {
				if addresses, _ := contents(&item); len(addresses) != 1 {
					return fmt.Errorf("%s routes to %v", item.Name, addresses)
				}
			}
			return nil
		}
	}
	e.eventually(5*time.Minute, "all mirrors", mirrors(n))
	writes := map[string]int{}
	for _, w := range london.writes(t, e.id, since) {
		writes[fmt.Sprintf("%s %s: %d", w.Verb, w.ObjectRef.Resource, w.ResponseStatus.Code)]++
	}
	if len(writes) != 2 || writes["create services: 201"] != n || writes["create endpoints: 201"] != n {
		t.Errorf("writes %v, want %d creates of each and nothing else", writes, n)
	}

	d.stop()
	since = london.mark(t)
	e.daemon([]*remote{r})
	e.stays("all mirrors", r.mirrored("bar1999", "203.0.113.1"))
	e.noWrites(since)
	for i := range n {
		e.remove(paris, fmt.Sprintf("bar%d", i))
	}
	e.eventually(5*time.Minute, "no mirrors", mirrors(0))
}
