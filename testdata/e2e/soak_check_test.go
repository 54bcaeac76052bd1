package e2e

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// contentsOf is what exists in a namespace of London, by name; slices by that of
// their Service.
type contentsOf struct {
	services  map[string]*corev1.Service
	endpoints map[string]*corev1.Endpoints
	slices    map[string][]*discoveryv1.EndpointSlice
}

func newContents() contentsOf {
	return contentsOf{map[string]*corev1.Service{}, map[string]*corev1.Endpoints{}, map[string][]*discoveryv1.EndpointSlice{}}
}

// see reads what exists where London's namespaces do.
func (w *walk) see() error {
	w.seen = map[string]contentsOf{}
	for _, short := range w.namespaces {
		if !w.existing[short] {
			continue
		}
		all := newContents()
		services, err := london.CoreV1().Services(w.long(short)).List(w.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range services.Items {
			all.services[services.Items[i].Name] = &services.Items[i]
		}
		endpoints, err := london.CoreV1().Endpoints(w.long(short)).List(w.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range endpoints.Items {
			all.endpoints[endpoints.Items[i].Name] = &endpoints.Items[i]
		}
		made, err := london.DiscoveryV1().EndpointSlices(w.long(short)).List(w.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range made.Items {
			service := made.Items[i].Labels[discoveryv1.LabelServiceName]
			all.slices[service] = append(all.slices[service], &made.Items[i])
		}
		w.seen[short] = all
	}
	return nil
}

// mirrorOf is the name in London, and what exists under it; nil: nothing.
func (w *walk) mirrorOf(e *entry) (string, *corev1.Service, *corev1.Endpoints) {
	at := w.place(e, e.remote.naming)
	return at.name, w.seen[at.namespace].services[at.name], w.seen[at.namespace].endpoints[at.name]
}

// look checks what must be true at any moment.
func (w *walk) look() {
	w.Helper()
	err := w.judge()
	if err == nil && w.merged == nil { // what is read one kind after the other never existed: a mirror may be renamed meanwhile
		err = w.see()
	}
	for _, e := range w.entries() {
		if w.merged == nil && err == nil && w.existing[e.home()] {
			err = w.check(e)
		}
	}
	for _, f := range w.failing {
		if err == nil && w.existing[f.namespace] {
			err = w.checkOwn(f)
		}
	}
	if err != nil {
		w.fail(fmt.Errorf("in the middle: %w", err))
	}
}

// check checks that a mirror which must exist does, where it routes to, and that
// foreign objects are as they were.
func (w *walk) check(e *entry) error {
	name, svc, endpoints := w.mirrorOf(e)
	if e.moves {
		before := w.place(e, e.remote.before)
		if e.exists() && svc == nil && w.seen[before.namespace].services[before.name] == nil {
			return fmt.Errorf("neither %s nor %v exists", name, before)
		}
		return nil
	}
	if e.exists() && (svc == nil || string(svc.UID) != e.uid) {
		return fmt.Errorf("%s had UID %s, and now it is %s", name, e.uid, describeService(svc))
	}
	if e.routesOn() {
		if endpoints == nil {
			return fmt.Errorf("the Endpoints of %s are gone", name)
		}
		if err := sameLines("Endpoints "+name, fromEndpoints(endpoints), e.lines); err != nil {
			return err
		}
	}
	if e.theirs.service != "" && (svc == nil || ofService(svc) != e.theirs.service) {
		return fmt.Errorf("a user's Service %s was\n%s\nand is\n%s", name, e.theirs.service, describeService(svc))
	}
	if e.theirs.endpoints == "" {
		return nil
	}
	if endpoints == nil {
		return w.deletedByKubernetes(e, name)
	}
	if now := ofEndpoints(endpoints); now != e.theirs.endpoints {
		return fmt.Errorf("a user's Endpoints %s were\n%s\nand are\n%s", name, e.theirs.endpoints, now)
	}
	return nil
}

// deletedByKubernetes has a user recreate their Endpoints: the endpoints controller, when it
// is late, deletes them with the Service that existed before. It is an error if the daemon
// deletes them.
func (w *walk) deletedByKubernetes(e *entry, name string) error {
	namespace := w.long(e.home())
	var culprit bool
	for _, r := range london.read(w.T, w.mark, []byte(name), func(r request) bool {
		return r.ObjectRef.Resource == "endpoints" && r.ObjectRef.Namespace == namespace && r.ObjectRef.Name == name && r.ResponseStatus.Code < 300
	}) {
		daemon := strings.HasPrefix(r.UserAgent, "service-mirror/")
		if daemon && r.Verb == "delete" {
			culprit = true
		} else if !daemon && r.Verb == "create" {
			culprit = false
		}
	}
	if culprit {
		return fmt.Errorf("the daemon deleted a user's Endpoints %s", name)
	}
	return w.putEndpoints(e, namespace, name)
}

// beacon is an exported Service of each remote, and a port of its gateway, that
// change when it is time to rest. Once it is seen, so are all changes before it:
// London may look right while the event of a Service that was unexported for a moment is
// still to come.
const beacon = "beacon"

// beacon is what it is called. Merged ones would be one.
func (w *walk) beacon(remote string) string {
	if w.merged != nil {
		return beacon + "-" + remote
	}
	return beacon
}

func (w *walk) light(remotes ...*modelRemote) error {
	w.beacons++
	for _, m := range remotes {
		r := w.far[m.short]
		if err := w.update(r.cluster, w.id, w.beacon(m.short), func(svc *corev1.Service) { setTeam(svc, fmt.Sprint(w.beacons)) }); err != nil {
			return err
		}
		if m.there {
			if err := w.update(r.cluster, w.id, "gateway", func(svc *corev1.Service) { svc.Spec.Ports = w.gatewayPorts(m) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// lit checks that the beacon's change has arrived in London.
func (w *walk) lit(remotes ...*modelRemote) error {
	if w.merged != nil {
		return w.litMerged()
	}
	for _, m := range remotes {
		name := w.nameBy(m.naming, m, w.id, beacon)
		svc, err := london.CoreV1().Services(w.id).Get(w.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if svc.Labels["team"] != fmt.Sprint(w.beacons) {
			return fmt.Errorf("the last change in %s has not arrived", m.short)
		}
		endpoints, err := london.CoreV1().Endpoints(w.id).Get(w.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, targets := contents(endpoints)
		leads := m.there && len(m.usable()) > 0
		if leads && !slices.Contains(targets, fmt.Sprintf("%s:%d", beacon, w.beacons)) || !leads && len(targets) > 0 {
			return fmt.Errorf("the last change of the gateway of %s has not arrived", m.short)
		}
	}
	return nil
}

// right checks that London is as the model says: at rest.
func (w *walk) right() error {
	if w.merged != nil {
		return w.rightMerged()
	}
	if err := w.see(); err != nil {
		return err
	}
	expected := map[string]map[string]bool{}
	for _, namespace := range w.namespaces {
		expected[namespace] = map[string]bool{}
	}
	for _, e := range w.entries() {
		if !w.existing[e.home()] {
			continue
		}
		name, svc, endpoints := w.mirrorOf(e)
		if err := w.check(e); err != nil {
			return err
		}
		if err := w.rightEntry(e, name, svc, endpoints); err != nil {
			return err
		}
		expected[e.home()][name] = w.mirrored(e) || e.foreign != none
	}
	for _, f := range w.failing {
		if !w.existing[f.namespace] {
			continue
		}
		if err := w.rightOwn(f); err != nil {
			return err
		}
		expected[f.namespace][f.name] = f.there
	}
	for _, short := range w.namespaces {
		for name := range w.seen[short].services {
			if !expected[short][name] {
				return fmt.Errorf("Service %s/%s should not be there", short, name)
			}
		}
		for name := range w.seen[short].endpoints {
			if !expected[short][name] {
				return fmt.Errorf("Endpoints %s/%s should not be there", short, name)
			}
		}
		for name := range w.seen[short].slices {
			if !expected[short][name] {
				return fmt.Errorf("EndpointSlices of %s/%s should not be there", short, name)
			}
		}
	}
	return nil
}

func (w *walk) rightEntry(e *entry, name string, svc *corev1.Service, endpoints *corev1.Endpoints) error {
	if e.foreign == withSelector {
		if endpoints == nil || ours(endpoints.Labels) || len(fromEndpoints(endpoints)) > 0 {
			return fmt.Errorf("a user's Service %s routes to %s", name, snapshot(endpoints))
		}
	}
	if e.foreign == loneEndpoints && svc != nil {
		return fmt.Errorf("Service %s was created over a user's Endpoints", name)
	}
	if !w.mirrored(e) {
		return nil // what is too much, the caller sees
	}
	if err := w.rightService(e, name, svc); err != nil || e.foreign == underTheMirror {
		return err
	}
	if endpoints == nil || !w.owned(e, endpoints.Labels) {
		return fmt.Errorf("the Endpoints of %s are %s", name, snapshot(endpoints))
	}
	if err := sameLines("Endpoints "+name, fromEndpoints(endpoints), e.leads()); err != nil {
		return err
	}
	var lines []string
	for _, slice := range w.seen[e.home()].slices[name] {
		lines = append(lines, fromSlice(slice)...)
		if slice.Labels[discoveryv1.LabelManagedBy] == "endpointslice-controller.k8s.io" {
			return fmt.Errorf("EndpointSlice %s is left of a selector", slice.Name)
		}
	}
	return sameLines("EndpointSlices of "+name, lines, e.leads())
}

func (w *walk) owned(e *entry, labels map[string]string) bool {
	return ours(labels) && labels["service-mirror.io/cluster"] == w.far[e.remote.short].name
}

func (w *walk) rightService(e *entry, name string, svc *corev1.Service) error {
	if svc == nil {
		return fmt.Errorf("there is no mirror %s", name)
	}
	var want []string
	for _, p := range e.ports {
		want = append(want, p.String())
	}
	slices.Sort(want)
	switch {
	case !w.owned(e, svc.Labels), svc.Labels["team"] != e.team, svc.Labels["other"] != "",
		svc.Annotations["service-mirror.io/remote-service"] != w.long(e.namespace)+"/"+e.name:
		return fmt.Errorf("mirror %s, of team %q, has labels %v and annotations %v", name, e.team, svc.Labels, svc.Annotations)
	case svc.Spec.Type != corev1.ServiceTypeClusterIP, len(svc.Spec.Selector) > 0, svc.Spec.ClusterIP == corev1.ClusterIPNone:
		return fmt.Errorf("%s is no ClusterIP Service without a selector: %+v", name, svc.Spec)
	case !slices.Equal(ports(svc), want):
		return fmt.Errorf("%s has ports %q, want %q", name, ports(svc), want)
	case string(svc.UID) == e.note.uid && svc.Labels["note"] != e.note.value:
		return fmt.Errorf("a user's label note=%s on %s is now %q", e.note.value, name, svc.Labels["note"])
	}
	return nil
}

// remembered checks that what need not have changed has not, and remembers what is.
func (w *walk) remembered() error {
	if w.merged != nil {
		return w.rememberedShared()
	}
	for _, e := range w.entries() {
		if !w.mirrored(e) {
			continue
		}
		name, svc, endpoints := w.mirrorOf(e)
		if e.exists() && !e.moves && string(svc.UID) != e.uid {
			return fmt.Errorf("the UID of %s was %s and is %s", name, e.uid, svc.UID)
		}
		if e.keepsAddress() && svc.Spec.ClusterIP != e.clusterIP {
			return fmt.Errorf("the ClusterIP of %s was %s and is %s", name, e.clusterIP, svc.Spec.ClusterIP)
		}
		e.uid, e.clusterIP, e.lines = string(svc.UID), svc.Spec.ClusterIP, fromEndpoints(endpoints)
	}
	w.restedOwn()
	return nil
}

func describeService(svc *corev1.Service) string {
	if svc == nil {
		return "not there"
	}
	return ofService(svc)
}

// ofService and ofEndpoints are all of an object, however it was read.
func ofService(svc *corev1.Service) string {
	svc = svc.DeepCopy()
	svc.TypeMeta = metav1.TypeMeta{}
	return snapshot(svc)
}

func ofEndpoints(endpoints *corev1.Endpoints) string {
	endpoints = endpoints.DeepCopy()
	endpoints.TypeMeta = metav1.TypeMeta{}
	return snapshot(endpoints)
}
