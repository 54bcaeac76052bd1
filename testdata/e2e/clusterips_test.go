package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// recreated waits until a Service is another one than before and complete, and returns its
// ClusterIPs: from then on they stay.
func (e *env) recreated(name string, before types.UID, count int) (clusterIPs []string) {
	e.Helper()
	e.soon("the Service again", func() error {
		svc, err := e.local.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		clusterIPs = svc.Spec.ClusterIPs
		if svc.UID == before || len(clusterIPs) < count {
			return fmt.Errorf("UID %s, ClusterIPs %v", svc.UID, clusterIPs)
		}
		return nil
	})
	return clusterIPs
}

// The API server releases the ClusterIPs of a deleted Service one after the other.
func TestDeletedMirrorKeepsBothClusterIPs(t *testing.T) {
	const rounds = 50
	e := newDualStackEnv(t, addressRules...)
	r := e.remote(paris)
	r.gateway("203.0.113.1", "2001:db8::1")
	r.export("bar")
	e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1", "2001:db8::1"))
	name := r.mirror("bar")
	for round := range rounds {
		svc := e.service(name)
		e.remove(e.local, name)
		if now := e.recreated(name, svc.UID, 2); !slices.Equal(now, svc.Spec.ClusterIPs) {
			t.Fatalf("deleted %d times: the ClusterIPs were %v and are %v", round+1, svc.Spec.ClusterIPs, now)
		}
	}
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1", "2001:db8::1"), r.hasFamilies("bar", corev1.IPv4Protocol, corev1.IPv6Protocol),
		r.slicesLead("bar", to("http:8080", "203.0.113.1", "2001:db8::1")...))
	if events, messages, err := e.events(e.id, "Service/"+name, ""); err != nil || len(events) > 0 {
		t.Errorf("Events %v %q, %v: nothing was lost", events, messages, err)
	}
}

// takes has a foreign Service take a ClusterIP as soon as it is free.
func (e *env) takes(clusterIP string) {
	e.Helper()
	family, single := corev1.IPv4Protocol, corev1.IPFamilyPolicySingleStack
	if strings.Contains(clusterIP, ":") {
		family = corev1.IPv6Protocol
	}
	e.soon("another Service with "+clusterIP, func() error {
		_, err := e.local.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "theirs"},
			Spec: corev1.ServiceSpec{
				ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, IPFamilies: []corev1.IPFamily{family}, IPFamilyPolicy: &single,
				Ports: []corev1.ServicePort{{Port: 1234}},
			},
		}, metav1.CreateOptions{})
		return err
	})
}

// One ClusterIP of two is taken while the mirror does not exist. The first one is kept where it is
// the second that is taken; the other way round both are lost, because a Service cannot be created
// with the second alone. One Event names what is lost.
func TestTakenClusterIPIsReported(t *testing.T) {
	t.Parallel()
	for taken, family := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
		t.Run(string(family), func(t *testing.T) {
			e := newDualStackEnv(t, addressRules...)
			r := e.remote(paris)
			r.gateway("203.0.113.1", "2001:db8::1")
			r.export("bar")
			d := e.daemon([]*remote{r}, listening...)
			e.soon("the mirror", r.mirrored("bar", "203.0.113.1", "2001:db8::1"))
			name := r.mirror("bar")
			had := e.service(name)
			d.signal(syscall.SIGSTOP)
			e.remove(e.local, name)
			e.takes(had.Spec.ClusterIPs[taken])
			d.signal(syscall.SIGCONT)
			now := e.recreated(name, had.UID, 2)
			if !slices.Equal(now[:taken], had.Spec.ClusterIPs[:taken]) {
				t.Errorf("the ClusterIPs were %v and are %v, but %s alone was taken", had.Spec.ClusterIPs, now, had.Spec.ClusterIPs[taken])
			}
			reported := []func() error{e.losses(name, had.Spec.ClusterIPs, now), r.mirrored("bar", "203.0.113.1", "2001:db8::1"),
				d.measures(map[string]float64{r.state("mirrored"): 1})}
			e.soon("the Event", reported...)
			e.stays("one Event", reported...)
		})
	}
}

// losses checks that one Event, seen once, names the ClusterIPs that a Service had and has no more.
func (e *env) losses(service string, had, now []string) func() error {
	return func() error {
		got, messages, err := e.events(e.id, "Service/"+service, "")
		if err != nil {
			return err
		}
		if want := []event{warned("ClusterIPLost", 1)}; !slices.Equal(got, want) {
			return fmt.Errorf("Events %v %q, want %v", got, messages, want)
		}
		for _, clusterIP := range had {
			if !slices.Contains(now, clusterIP) && !strings.Contains(messages[0], clusterIP) {
				return fmt.Errorf("the Event says %q, want %s in it", messages[0], clusterIP)
			}
		}
		return nil
	}
}
