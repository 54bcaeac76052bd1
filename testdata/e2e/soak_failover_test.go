package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// walkFailover are times in which a walk sees remotes serve and stop.
var walkFailover = []string{"--failover-after=200ms", "--failback-after=500ms"}

// failoverService is a Service of London's own, which fails over while it has the label. What is to be beside it is derived from
// deploy/guides/failover.md.
type failoverService struct {
	namespace, name string

	there    bool
	labelled bool
	listed   []string // remotes by their short names, the preferred one first
	ready    bool     // its endpoint is
	ports    []modelPort

	changed bool // since the last rest, by anyone but the daemon, apart from its readiness
	lately  bool // and between that one and the one before: London's watches tell no order

	flipped, flippedLately bool // the same of its readiness
	flips, flipsNow        bool // the same since the daemon was started, and by the steps that are under way
	switched               bool // the same since the last rest, with the effect awaited
	provisional            bool // who serves it was awaited while remotes were unknown

	// What was seen of it. No step depends on this.
	theirs ownObjects
	beside map[string][]string // at the last rest, or when who serves was awaited, by the slices' names
}

func (f *failoverService) rested() {
	f.lately, f.flippedLately = f.changed, f.flipped
	f.changed, f.flipped, f.flips, f.switched, f.provisional = false, false, false, false, false
}

// ownObjects are those of its owner, byte for byte; empty: none.
type ownObjects struct{ service, slice string }

func (f *failoverService) String() string { return f.namespace + "/" + f.name }

// ownPorts are ports of Services of London's own: the first ones, most of the time, are the same ones here and there.
var ownPorts = [][]modelPort{
	{{"http", 80, corev1.ProtocolTCP, ""}},
	{{"http", 80, corev1.ProtocolTCP, ""}},
	{{"http", 80, corev1.ProtocolTCP, ""}},
	{{"http", 80, corev1.ProtocolTCP, ""}},
	{{"http", 80, corev1.ProtocolTCP, ""}},
	{{"web", 8080, corev1.ProtocolTCP, ""}, {"http", 81, corev1.ProtocolTCP, ""}},
	{{"https", 443, corev1.ProtocolTCP, ""}, {"grpc", 9090, corev1.ProtocolTCP, ""}, {"other", 80, corev1.ProtocolTCP, ""}},
	{{"db", 5432, corev1.ProtocolTCP, ""}},
}

const nowhere = "nowhere" // is no remote

// listsOf are what an annotation may list.
func listsOf(remotes []*modelRemote) [][]string {
	first, second := remotes[0].short, remotes[1].short
	return [][]string{{first}, {second}, {first, second}, {first, second}, {second, first}, {second, first}, {nowhere, first, second}, {}}
}

// replaces is the port of an exported Service that replaces one of London's own.
func replaces(exported []modelPort, own modelPort) (modelPort, bool) {
	for _, fits := range []func(p modelPort) bool{
		func(p modelPort) bool { return p.number == own.number },
		func(p modelPort) bool { return p.name == own.name },
	} {
		if i := slices.IndexFunc(exported, func(p modelPort) bool { return p.protocol == own.protocol && fits(p) }); i >= 0 {
			return exported[i], true
		}
	}
	return modelPort{}, false
}

// exportOf is the exported Service of its name; nil: there is no such remote.
func (m *model) exportOf(f *failoverService, remote string) *entry {
	all := m.entries()
	i := slices.IndexFunc(all, func(e *entry) bool {
		return e.remote.short == remote && e.namespace == f.namespace && e.name == f.name
	})
	if i < 0 {
		return nil
	}
	return all[i]
}

// offers is how the remote would serve it.
func (m *model) offers(f *failoverService, remote string, ready bool) (lines []string) {
	e := m.exportOf(f, remote)
	if e == nil || !e.exported || !e.remote.there {
		return nil
	}
	for _, own := range f.ports {
		port, has := replaces(e.ports, own)
		target, served := serves(e.remote.ports, port)
		for _, address := range e.remote.usable() {
			if has && served {
				lines = append(lines, endpoint(address, own.name, target, own.protocol, ready))
			}
		}
	}
	return lines
}

// isBeside is what the daemon's slices must have at rest, by remote.
func (m *model) isBeside(f *failoverService) map[string][]string {
	all := map[string][]string{}
	if !f.there || !f.labelled {
		return all
	}
	serving := f.ready
	for _, remote := range f.listed {
		if lines := m.offers(f, remote, !serving); len(lines) > 0 {
			all[remote], serving = lines, true
		}
	}
	return all
}

// lasts: nobody has changed anything but its readiness since the last rest.
func (f *failoverService) lasts() bool { return f.there && !f.changed }

// steady: its owner and users have done nothing, for long enough that the daemon knows.
func (f *failoverService) steady() bool {
	return f.lasts() && !f.lately && !f.flipped && !f.flippedLately
}

// isKept: the remote's slice, if it exists, must still be there with its addresses and ports, whatever becomes of the readiness of
// the Service, and whatever the daemon knows of the remote.
func (m *model) isKept(f *failoverService, remote string) bool {
	e := m.exportOf(f, remote)
	return f.lasts() && !f.lately && (e == nil || e.since == since{})
}

// staysBeside: all slices must be as they were, ready or not.
func (m *model) staysBeside(f *failoverService) bool {
	return f.steady() && !slices.ContainsFunc(f.listed, func(remote string) bool { return !m.isKept(f, remote) })
}

// The steps.

func (w *walk) ownStep(f *failoverService, what string, act func(namespace string) error) *step {
	f.changed = true
	return w.ownStepIn(f, what, act)
}

func (w *walk) ownStepIn(f *failoverService, what string, act func(namespace string) error) *step {
	return &step{text: fmt.Sprintf("own %v %s", f, what), touches: []string{"london/" + f.String()}, act: func() error { return act(w.long(f.namespace)) }}
}

func (w *walk) pickOwn(there bool) (*failoverService, bool) {
	return pick(w, w.failing, func(f *failoverService) bool { return w.existing[f.namespace] && f.there == there })
}

func (f *failoverService) randomize(w *walk) {
	f.there, f.labelled, f.listed = true, w.rnd.IntN(6) > 0, any1(w, listsOf(w.remotes)...)
	f.ready, f.ports = w.rnd.IntN(2) > 0, any1(w, ownPorts...)
}

func (w *walk) makeOwn() *step {
	f, ok := w.pickOwn(false)
	if !ok {
		return nil
	}
	f.randomize(w)
	now := *f
	return w.ownStep(f, "is made: "+now.describe(), func(namespace string) error { return w.createOwn(f, now) })
}

func (f *failoverService) describe() string {
	return fmt.Sprintf("labelled %t, lists %v, ready %t, ports %v", f.labelled, f.listed, f.ready, f.ports)
}

func (w *walk) deleteOwn() *step {
	f, ok := w.pickOwn(true)
	if !ok {
		return nil
	}
	f.there = false
	return w.ownStep(f, "is deleted", func(string) error { return w.removeOwn(f) })
}

func (w *walk) recreateOwn() *step {
	f, ok := w.pickOwn(true)
	if !ok {
		return nil
	}
	f.randomize(w)
	now := *f
	return w.ownStep(f, "is deleted and recreated: "+now.describe(), func(string) error {
		if err := w.removeOwn(f); err != nil {
			return err
		}
		return w.createOwn(f, now)
	})
}

func (w *walk) labelOwn() *step {
	f, ok := w.pickOwn(true)
	if !ok {
		return nil
	}
	f.labelled = w.rnd.IntN(4) > 0
	return w.changeOwn(f, fmt.Sprintf("is labelled: %t", f.labelled))
}

func (w *walk) annotateOwn() *step {
	f, ok := w.pickOwn(true)
	if !ok {
		return nil
	}
	f.listed = any1(w, listsOf(w.remotes)...)
	return w.changeOwn(f, fmt.Sprintf("lists %v", f.listed))
}

func (w *walk) portsOfOwn() *step {
	f, ok := w.pickOwn(true)
	if !ok {
		return nil
	}
	f.ports = any1(w, ownPorts...)
	return w.changeOwn(f, fmt.Sprintf("has ports %v", f.ports))
}

func (w *walk) readyOwn() *step {
	f, ok := w.pickOwn(true)
	if !ok {
		return nil
	}
	f.ready, f.flipped, f.flips, f.flipsNow = !f.ready, true, true, true
	ready := f.ready
	return w.ownStepIn(f, fmt.Sprintf("is ready: %t", ready), func(string) error { return w.setReady(f, ready) })
}

// editBeside has a user change or delete the daemon's slice, if it exists.
func (w *walk) editBeside() *step {
	f, ok := w.pickOwn(true)
	if !ok || len(f.listed) == 0 {
		return nil
	}
	remote, what := any1(w, f.listed...), any1(w, "ready", "port", "address", "deleted")
	if remote == nowhere {
		return nil
	}
	return w.ownStep(f, fmt.Sprintf("has its slice for %s edited by hand: %s", remote, what), func(namespace string) error {
		name := w.besideName(f, remote)
		if what == "deleted" {
			return ignore(london.DiscoveryV1().EndpointSlices(namespace).Delete(w.ctx, name, metav1.DeleteOptions{}), apierrors.IsNotFound)
		}
		_, err := w.changeSlice(namespace, name, func(slice *discoveryv1.EndpointSlice) { editSlice(slice, what) })
		return ignore(ignore(err, apierrors.IsNotFound), apierrors.IsConflict)
	})
}

func editSlice(slice *discoveryv1.EndpointSlice, what string) {
	switch what {
	case "ready":
		slice.Endpoints[0].Conditions.Ready = new(!*slice.Endpoints[0].Conditions.Ready)
	case "port":
		*slice.Ports[0].Port = 9
	case "address":
		slice.Endpoints[0].Addresses = []string{"192.0.2.9"}
	}
}

// Their effects.

func (w *walk) besideName(f *failoverService, remote string) string {
	return f.name + "." + w.far[remote].name + ".ipv4"
}

// setReady has its own endpoint be ready, or not.
func (w *walk) setReady(f *failoverService, ready bool) error {
	slice, err := w.changeSlice(w.long(f.namespace), f.name+"-own", func(slice *discoveryv1.EndpointSlice) {
		slice.Endpoints[0].Conditions.Ready = &ready
	})
	if err == nil {
		f.theirs.slice = ofSlice(slice)
	}
	return err
}

// setOwn sets what a step may change of the Service.
func (w *walk) setOwn(svc *corev1.Service, now failoverService) {
	svc.Labels, svc.Annotations, svc.Spec.Ports = map[string]string{"team": "green"}, map[string]string{}, servicePorts(now.ports)
	if now.labelled {
		svc.Labels[failoverKey] = "true"
	}
	var names []string
	for _, remote := range now.listed {
		if r := w.far[remote]; r != nil {
			remote = r.name
		}
		names = append(names, remote)
	}
	svc.Annotations[failoverKey] = strings.Join(names, ", ")
}

func (w *walk) createOwn(f *failoverService, now failoverService) error {
	namespace := w.long(f.namespace)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: f.name}}
	w.setOwn(svc, now)
	port := int32(8000)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: f.name + "-own", Labels: map[string]string{discoveryv1.LabelServiceName: f.name, discoveryv1.LabelManagedBy: "test.example.com"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.200.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &now.ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &now.ports[0].name, Port: &port}},
	}
	service, err := london.CoreV1().Services(namespace).Create(w.ctx, svc, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made, err := london.DiscoveryV1().EndpointSlices(namespace).Create(w.ctx, slice, metav1.CreateOptions{})
	if err == nil {
		f.theirs = ownObjects{ofService(service), ofSlice(made)}
	}
	return err
}

func (w *walk) removeOwn(f *failoverService) error {
	f.theirs = ownObjects{}
	namespace := w.long(f.namespace)
	if err := w.delete(london, namespace, f.name); err != nil {
		return err
	}
	return london.DiscoveryV1().EndpointSlices(namespace).Delete(w.ctx, f.name+"-own", metav1.DeleteOptions{})
}

func (w *walk) changeOwn(f *failoverService, what string) *step {
	now := *f
	return w.ownStep(f, what, func(namespace string) error {
		var changed *corev1.Service
		err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			svc, err := london.CoreV1().Services(namespace).Get(w.ctx, f.name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			w.setOwn(svc, now)
			changed, err = london.CoreV1().Services(namespace).Update(w.ctx, svc, metav1.UpdateOptions{})
			return err
		})
		if err == nil {
			f.theirs.service = ofService(changed)
		}
		return err
	})
}

func (w *walk) changeSlice(namespace, name string, change func(*discoveryv1.EndpointSlice)) (slice *discoveryv1.EndpointSlice, err error) {
	all := london.DiscoveryV1().EndpointSlices(namespace)
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if slice, err = all.Get(w.ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		change(slice)
		slice, err = all.Update(w.ctx, slice, metav1.UpdateOptions{})
		return err
	})
	return slice, err
}

func ofSlice(slice *discoveryv1.EndpointSlice) string {
	slice = slice.DeepCopy()
	slice.TypeMeta = metav1.TypeMeta{}
	return snapshot(slice)
}

// The checks.

// slicesOf are the lines of the daemon's slices beside a Service, by their names, and the owner's slice.
func (w *walk) slicesOf(f *failoverService) (beside map[string][]string, own *discoveryv1.EndpointSlice) {
	beside = map[string][]string{}
	for _, slice := range w.seen[f.namespace].slices[f.name] {
		if slice.Name == f.name+"-own" {
			own = slice
			continue
		}
		beside[slice.Name] = slices.Sorted(slices.Values(fromSlice(slice)))
	}
	return beside, own
}

// checkOwn checks what must be true at any moment: that nothing of the owner's is changed, and what the daemon has
// no reason to change.
func (w *walk) checkOwn(f *failoverService) error {
	beside, own := w.slicesOf(f)
	svc := w.seen[f.namespace].services[f.name]
	if !f.there {
		return nil
	}
	if svc == nil || ofService(svc) != f.theirs.service {
		return fmt.Errorf("the owner's Service %v was\n%s\nand is\n%s", f, f.theirs.service, describeService(svc))
	}
	if own == nil || ofSlice(own) != f.theirs.slice {
		return fmt.Errorf("the owner's EndpointSlice of %v was\n%s\nand is\n%s", f, f.theirs.slice, snapshot(own))
	}
	if err := w.checkKept(f, beside); err != nil {
		return err
	}
	return w.checkBeside(f, beside)
}

// checkKept checks which slices must be beside it at any moment.
func (w *walk) checkKept(f *failoverService, beside map[string][]string) error {
	for _, r := range w.remotes {
		name := w.besideName(f, r.short)
		if w.isKept(f, r.short) && !slices.Equal(idle(beside[name]), idle(f.beside[name])) {
			return fmt.Errorf("%s was %q, and is %q now", name, f.beside[name], beside[name])
		}
	}
	return nil
}

// checkBeside checks who must serve at any moment.
func (w *walk) checkBeside(f *failoverService, beside map[string][]string) error {
	if w.staysBeside(f) && !maps.EqualFunc(beside, f.beside, slices.Equal) {
		return fmt.Errorf("beside %v was %q, and now there is %q", f, f.beside, beside)
	}
	if !f.steady() || !f.ready {
		return nil
	}
	for name, lines := range beside {
		if !slices.Equal(lines, idle(lines)) {
			return fmt.Errorf("%s serves %v, which is ready itself: %q", name, f, lines)
		}
	}
	return nil
}

// rightOwn checks what is beside a Service at rest.
func (w *walk) rightOwn(f *failoverService) error {
	if err := w.checkOwn(f); err != nil {
		return err
	}
	want := map[string][]string{}
	for remote, lines := range w.isBeside(f) {
		want[w.besideName(f, remote)] = slices.Sorted(slices.Values(lines))
	}
	if beside, _ := w.slicesOf(f); !maps.EqualFunc(beside, want, slices.Equal) {
		return fmt.Errorf("beside %v there is %q, want %q; %s", f, beside, want, f.describe())
	}
	return nil
}

// restedOwn remembers what is beside it.
func (w *walk) restedOwn() {
	for _, f := range w.failing {
		f.beside, _ = w.slicesOf(f)
	}
}
