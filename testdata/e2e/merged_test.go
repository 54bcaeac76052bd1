package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// mergedWorld is a merged mirror bar of two remotes whose gateways are up.
type mergedWorld struct {
	*env
	paris, berlin           *remote
	parisDoors, berlinDoors *doors
	address                 map[*remote]string
}

const mergedService = "merged.service-mirror.io"

func newMergedWorld(t *testing.T) *mergedWorld {
	e := newSlicesEnv(t)
	w := &mergedWorld{env: e, paris: e.remote(paris), berlin: e.remote(berlin), address: map[*remote]string{}}
	for _, r := range w.remotes() {
		r.named("name={service}")
		w.address[r] = e.healthyAddress()
		r.gateway(w.address[r])
		r.export("bar")
	}
	w.parisDoors, w.berlinDoors = e.openDoors(w.address[w.paris], 8080), e.openDoors(w.address[w.berlin], 8080)
	return w
}

func (w *mergedWorld) remotes() []*remote { return []*remote{w.paris, w.berlin} }

// merge is a daemon that merges mirrors.
func (w *mergedWorld) merge(mode string, remotes ...*remote) *daemon {
	w.Helper()
	return w.daemon(remotes, w.mergeFlags(mode)...)
}

func (w *mergedWorld) mergeFlags(mode string) []string {
	return probing("tcp", slices.Concat(listening, []string{useSlices, "--merge=" + mode})...)
}

// parts checks which remotes have a slice in bar, and for which its endpoints are ready.
func (w *mergedWorld) parts(want map[*remote]bool) func() error {
	return func() error {
		svc, err := w.local.CoreV1().Services(w.id).Get(w.ctx, "bar", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if svc.Labels["service-mirror.io/cluster"] != mergedService {
			return fmt.Errorf("bar is a mirror of %s", svc.Labels["service-mirror.io/cluster"])
		}
		list, err := w.local.DiscoveryV1().EndpointSlices(w.id).List(w.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=bar"})
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, slice := range list.Items {
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready == nil {
					return fmt.Errorf("%s does not say whether it is ready", slice.Name)
				}
				got[slice.Name] += fmt.Sprint(endpoint.Addresses[0], *endpoint.Conditions.Ready)
			}
		}
		for r, ready := range want {
			name := "bar." + r.name + ".ipv4"
			if text := fmt.Sprint(w.address[r], ready); got[name] != text {
				return fmt.Errorf("%s has %q, want %s; all: %v", name, got[name], text, got)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			return fmt.Errorf("more than is wanted: %v", got)
		}
		return nil
	}
}

// lists checks the list of remotes on the Service.
func (w *mergedWorld) lists(remotes ...*remote) func() error {
	return func() error {
		svc, err := w.local.CoreV1().Services(w.id).Get(w.ctx, "bar", metav1.GetOptions{})
		if err != nil {
			return err
		}
		var want []string
		for _, r := range remotes {
			want = append(want, r.name+"="+w.id+"/bar")
		}
		if got := svc.Annotations["service-mirror.io/remotes"]; got != strings.Join(want, ",") {
			return fmt.Errorf("bar lists %q, want %q", got, want)
		}
		return nil
	}
}

// reports checks that the page has a problem of a remote's part.
func (w *mergedWorld) reports(d *daemon, r *remote, reason string) func() error {
	return func() error {
		p, err := d.page()
		if err != nil {
			return err
		}
		for _, row := range p.Mirrors {
			for _, problem := range row.Problems {
				if row.Name == "bar" && row.Cluster == r.name && problem.Reason == reason {
					return nil
				}
			}
		}
		return fmt.Errorf("the page has no %s of %s: %+v", reason, r.name, p.Mirrors)
	}
}

// same checks that the Service is the one from before, with its ClusterIP.
func (w *mergedWorld) same(before *corev1.Service) {
	w.Helper()
	now := w.service("bar")
	if now.UID != before.UID || now.Spec.ClusterIP != before.Spec.ClusterIP {
		w.Errorf("bar was %s at %s and is %s at %s", before.UID, before.Spec.ClusterIP, now.UID, now.Spec.ClusterIP)
	}
}

// written are the names of the slices and Services that were written since a mark.
func (w *mergedWorld) written(since auditMark) (names []string) {
	for _, one := range w.local.writes(w.T, w.id, since) {
		names = append(names, one.Verb+" "+one.ObjectRef.Resource+" "+one.ObjectRef.Name)
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// The exports of two remotes are one mirror, and what happens to one of them is written to its slice alone. The policy
// permits it.
func TestMergedMirror(t *testing.T) {
	w := newMergedWorld(t)
	d := w.merge("all", w.paris, w.berlin)
	w.soon("the merged mirror", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}), w.lists(w.paris, w.berlin))
	before := w.service("bar")

	since := w.local.mark(t)
	w.berlin.gateway() // no address, and back
	w.soon("paris alone has addresses", w.parts(map[*remote]bool{w.paris: true}))
	w.berlin.gateway(w.address[w.berlin])
	w.soon("both", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}))
	if got, want := w.written(since), []string{"create endpointslices ", "delete endpointslices bar." + w.berlin.name + ".ipv4"}; len(got) == 0 ||
		slices.ContainsFunc(got, func(name string) bool {
			return strings.Contains(name, "services") || strings.Contains(name, w.paris.name)
		}) {
		t.Errorf("written: %q, want only %q", got, want)
	}

	since = w.local.mark(t)
	w.remove(paris, "bar")
	w.soon("berlin alone exports", w.parts(map[*remote]bool{w.berlin: true}), w.lists(w.berlin))
	if got := w.written(since); slices.ContainsFunc(got, func(name string) bool { return strings.Contains(name, w.berlin.name) }) {
		t.Errorf("written to berlin's slices, too: %q", got)
	}
	w.paris.export("bar", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "more", Port: 81})
	})
	w.soon("paris again", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}), w.lists(w.paris, w.berlin),
		w.reports(d, w.berlin, "PortConflict"))
	w.same(before)

	w.paris.proxy.cut() // its API server alone
	w.stays("without paris's API server", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}))
	d.stop()
	d = w.merge("all", w.paris, w.berlin)
	w.stays("after a restart", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}), w.lists(w.paris, w.berlin))
	w.same(before)
	w.paris.proxy.heal()
	w.remove(paris, "bar")
	w.eventually(2*soon, "berlin alone", w.parts(map[*remote]bool{w.berlin: true}))
	w.remove(berlin, "bar")
	w.soon("nobody exports it", func() error {
		if _, err := w.local.CoreV1().Services(w.id).Get(w.ctx, "bar", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("bar is there (%v)", err)
		}
		return nil
	})
	if n := d.logged("Rejected"); n > 0 {
		t.Errorf("%d writes were rejected", n)
	}
}

// Of merged remotes the first healthy one serves.
func TestMergedFirst(t *testing.T) {
	w := newMergedWorld(t)
	d := w.merge("first", w.paris, w.berlin)
	w.soon("paris serves", w.parts(map[*remote]bool{w.paris: true, w.berlin: false}))
	before := w.service("bar")
	w.parisDoors.close()
	w.soon("berlin serves", w.parts(map[*remote]bool{w.paris: false, w.berlin: true}))
	w.soon("paris is on standby", func() error { // which is written once berlin serves
		slice, err := w.local.DiscoveryV1().EndpointSlices(w.id).Get(w.ctx, "bar."+w.paris.name+".ipv4", metav1.GetOptions{})
		if err == nil && slice.Annotations["service-mirror.io/standby"] != "true" {
			err = fmt.Errorf("its annotations are %v", slice.Annotations)
		}
		return err
	})

	d.stop() // and nothing changes with a restart
	since := w.local.mark(t)
	w.merge("first", w.paris, w.berlin)
	w.stays("berlin serves", w.parts(map[*remote]bool{w.paris: false, w.berlin: true}))
	w.noWrites(since)
	w.parisDoors.open()
	w.soon("paris serves again", w.parts(map[*remote]bool{w.paris: true, w.berlin: false}))
	w.same(before)
}

// A remote that is removed leaves its part until that is pruned, and the Service goes with the last part.
func TestMergedPrune(t *testing.T) {
	w := newMergedWorld(t)
	d := w.merge("all", w.paris, w.berlin)
	w.soon("the merged mirror", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}))
	before := w.service("bar")
	d.stop()
	remove := func(r *remote) {
		t.Helper()
		_, err := w.local.CoreV1().ServiceAccounts("service-mirror").Patch(w.ctx, "service-mirror", types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"remote.service-mirror.io/`+r.name+`":null}}}`), metav1.PatchOptions{})
		w.must(err)
	}
	remove(w.paris)
	d = w.merge("all", w.berlin)
	w.soon("berlin is the first", w.lists(w.berlin, w.paris), w.parts(map[*remote]bool{w.paris: true, w.berlin: true}))
	dry := w.once([]*remote{w.berlin}, append(w.mergeFlags("all"), "--prune-dry-run", w.paris.name)...)
	if !strings.Contains(dry.stdout, "bar."+w.paris.name+".ipv4") || strings.HasPrefix(dry.stdout, "Service ") || strings.Contains(dry.stdout, "\nService ") {
		t.Errorf("the dry run lists\n%s", dry.stdout)
	}
	w.once([]*remote{w.berlin}, append(w.mergeFlags("all"), "--prune", w.paris.name)...)
	w.soon("paris is pruned", w.parts(map[*remote]bool{w.berlin: true}), w.lists(w.berlin))
	w.same(before)
	d.stop()
	w.once([]*remote{w.paris}, append(w.mergeFlags("all"), "--prune", w.berlin.name)...)
	w.soon("nothing is left", func() error {
		services, err := w.local.CoreV1().Services(w.id).List(w.ctx, metav1.ListOptions{})
		w.must(err)
		list, err := w.local.DiscoveryV1().EndpointSlices(w.id).List(w.ctx, metav1.ListOptions{})
		w.must(err)
		if n := len(services.Items) + len(list.Items); n > 0 {
			return fmt.Errorf("%d objects are left", n)
		}
		return nil
	})
}

// Mirrors become merged, and the other way round: as a rename, or in place. No client loses all endpoints.
func TestMergingMirrors(t *testing.T) {
	w := newMergedWorld(t)
	d := w.daemon(w.remotes(), probing("tcp", useSlices, "--name-template={service}")...)
	w.soon("the mirror of one of them", func() error {
		svc, err := w.local.CoreV1().Services(w.id).Get(w.ctx, "bar", metav1.GetOptions{})
		if err == nil && svc.Labels["service-mirror.io/cluster"] == mergedService {
			err = fmt.Errorf("it is merged")
		}
		return err
	})
	before := w.service("bar")
	d.stop()
	d = w.merge("all", w.paris, w.berlin)
	w.soon("merged in place", w.parts(map[*remote]bool{w.paris: true, w.berlin: true}))
	w.same(before)
	d.stop()
	d = w.daemon(w.remotes(), probing("tcp", useSlices)...)
	w.soon("no longer merged", func() error {
		list, err := w.local.DiscoveryV1().EndpointSlices(w.id).List(w.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var names []string
		for _, slice := range list.Items {
			names = append(names, slice.Name)
		}
		if !slices.Equal(names, []string{"bar-ipv4"}) {
			return fmt.Errorf("the slices are %q", names)
		}
		return nil
	})
	w.same(before)
	if n := d.logged("Rejected"); n > 0 {
		t.Errorf("%d writes were rejected", n)
	}
}

// While a foreign slice has the name of the first remote's, the next one serves.
func TestMergedFirstWithAForeignSlice(t *testing.T) {
	w := newMergedWorld(t)
	foreign := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "bar." + w.paris.name + ".ipv4"}, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{}}
	_, err := w.local.DiscoveryV1().EndpointSlices(w.id).Create(w.ctx, foreign, metav1.CreateOptions{})
	w.must(err)
	d := w.merge("first", w.paris, w.berlin)
	w.soon("berlin serves", w.parts(map[*remote]bool{w.berlin: true}))
	w.soon("the conflict", w.reports(d, w.paris, "Conflict"))
	w.must(w.local.DiscoveryV1().EndpointSlices(w.id).Delete(w.ctx, foreign.Name, metav1.DeleteOptions{}))
	w.eventually(4*soon, "paris serves", w.parts(map[*remote]bool{w.paris: true, w.berlin: false})) // tried again every 30 s
}
