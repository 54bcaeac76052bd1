package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// service and endpoints read from the local cluster.
func (e *env) service(name string) *corev1.Service {
	e.Helper()
	svc, err := e.local.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{})
	e.must(err)
	return svc
}

func (e *env) endpoints(name string) *corev1.Endpoints {
	e.Helper()
	endpoints, err := e.local.CoreV1().Endpoints(e.id).Get(e.ctx, name, metav1.GetOptions{})
	e.must(err)
	return endpoints
}

// mirror is the name of a Service's mirror.
func (r *remote) mirror(name string) string {
	return name + "-" + r.name
}

// mirrored checks that a Service of the remote has its mirror in the local cluster, whole
// and with exactly these endpoint addresses.
func (r *remote) mirrored(name string, addresses ...string) func() error {
	return func() error {
		exported, err := r.CoreV1().Services(r.env.id).Get(r.env.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		svc, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		endpoints, err := r.env.local.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if svc.Spec.Type != corev1.ServiceTypeClusterIP || len(svc.Spec.Selector) > 0 || svc.Spec.ClusterIP == corev1.ClusterIPNone {
			return fmt.Errorf("%s is not a ClusterIP Service without a selector: %+v", svc.Name, svc.Spec)
		}
		if want, got := ports(exported), ports(svc); !slices.Equal(want, got) {
			return fmt.Errorf("%s has ports %v, want %v", svc.Name, got, want)
		}
		var wantTargets []string
		if len(addresses) > 0 {
			for _, port := range exported.Spec.Ports {
				if port.Protocol == corev1.ProtocolTCP { // the gateway has no other
					wantTargets = append(wantTargets, port.Name+":8080")
				}
			}
		}
		slices.Sort(wantTargets)
		gotAddresses, gotTargets := contents(endpoints)
		if !slices.Equal(addresses, gotAddresses) || !slices.Equal(wantTargets, gotTargets) {
			return fmt.Errorf("Endpoints %s route to %v %v, want %v %v", svc.Name, gotAddresses, gotTargets, addresses, wantTargets)
		}
		return nil
	}
}

// ports describes the ports of a Service, sorted.
func ports(svc *corev1.Service) []string {
	var out []string
	for _, p := range svc.Spec.Ports {
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		out = append(out, fmt.Sprintf("%s:%d/%s %s", p.Name, p.Port, p.Protocol, app))
	}
	slices.Sort(out)
	return out
}

// contents are the ready addresses, in their order, and the ports of Endpoints.
func contents(endpoints *corev1.Endpoints) (addresses, targets []string) {
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			addresses = append(addresses, address.IP)
		}
		for _, port := range subset.Ports {
			targets = append(targets, fmt.Sprintf("%s:%d", port.Name, port.Port))
		}
	}
	slices.Sort(targets)
	return addresses, targets
}

// leads checks where the Endpoints of a mirror route to: ADDRESS NAME:PORT, in any
// order, with /UDP and "not ready" if so.
func (r *remote) leads(name string, want ...string) func() error {
	return func() error {
		// The Endpoints are created first: without the Service the mirror is not complete.
		if _, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{}); err != nil {
			return err
		}
		endpoints, err := r.env.local.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		return sameLines("Endpoints "+endpoints.Name, fromEndpoints(endpoints), want)
	}
}

// slicesLead checks the same of a mirror's EndpointSlices, whoever created them:
// they are what kube-proxy reads.
func (r *remote) slicesLead(name string, want ...string) func() error {
	return func() error {
		list, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).List(r.env.ctx, metav1.ListOptions{
			LabelSelector: discoveryv1.LabelServiceName + "=" + r.mirror(name),
		})
		if err != nil {
			return err
		}
		var got []string
		for _, slice := range list.Items {
			got = append(got, fromSlice(&slice)...)
		}
		return sameLines("EndpointSlices of "+r.mirror(name), got, want)
	}
}

// to is the argument of leads for some addresses behind one port.
func to(port string, addresses ...string) []string {
	var out []string
	for _, address := range addresses {
		out = append(out, address+" "+port)
	}
	return out
}

func fromEndpoints(endpoints *corev1.Endpoints) []string {
	var out []string
	for _, subset := range endpoints.Subsets {
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				out = append(out, endpoint(address.IP, port.Name, port.Port, port.Protocol, true))
			}
			for _, address := range subset.NotReadyAddresses {
				out = append(out, endpoint(address.IP, port.Name, port.Port, port.Protocol, false))
			}
		}
	}
	return out
}

func fromSlice(slice *discoveryv1.EndpointSlice) []string {
	var out []string
	for _, each := range slice.Endpoints {
		ready := each.Conditions.Ready == nil || *each.Conditions.Ready
		for _, port := range slice.Ports {
			for _, address := range each.Addresses {
				out = append(out, endpoint(address, *port.Name, *port.Port, *port.Protocol, ready))
			}
		}
	}
	return out
}

func endpoint(address, name string, port int32, protocol corev1.Protocol, ready bool) string {
	text := fmt.Sprintf("%s %s:%d", address, name, port)
	if protocol != corev1.ProtocolTCP {
		text += "/" + string(protocol)
	}
	if !ready {
		text += " not ready"
	}
	return text
}

func sameLines(what string, got, want []string) error {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s route to %q, want %q", what, got, want)
	}
	return nil
}

// gone checks that nothing is left of a mirror.
func (r *remote) gone(name string) func() error {
	return func() error {
		mirror := r.mirror(name)
		if _, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, mirror, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Service %s exists (%v)", mirror, err)
		}
		if _, err := r.env.local.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, mirror, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Endpoints %s exist (%v)", mirror, err)
		}
		return nil
	}
}

// identities are UID and ClusterIP of every Service of the test in the local cluster.
func (e *env) identities() map[string]string {
	e.Helper()
	list, err := e.local.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	out := map[string]string{}
	for _, svc := range list.Items {
		out[svc.Name] = string(svc.UID) + " " + svc.Spec.ClusterIP
	}
	return out
}

func (e *env) sameIdentities(before map[string]string) {
	e.Helper()
	if now := e.identities(); !maps.Equal(before, now) {
		e.Errorf("UIDs or ClusterIPs changed:\nbefore %v\nnow    %v", before, now)
	}
}

// snapshot is everything about an object, byte for byte.
func snapshot(obj any) string {
	text, err := json.Marshal(obj)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// noWrites checks that this test's daemon has written nothing in the local cluster.
func (e *env) noWrites(since auditMark) {
	e.Helper()
	if writes := e.local.writes(e.T, e.id, since); len(writes) > 0 {
		e.Errorf("%d writes, want none: %v", len(writes), writes[:min(len(writes), 10)])
	}
}
