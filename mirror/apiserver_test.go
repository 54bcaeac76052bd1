package mirror

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// apiserver adds to the fakes what they lack of the local API server: one growing
// resourceVersion for all objects, watches that apply their selector and start at a
// resourceVersion, preconditions, defaults, ClusterIPs, and namespaces that must exist.
// Of Kubernetes' controllers it has only the one that mirrors Endpoints to
// EndpointSlices.
type apiserver struct {
	client *fake.Clientset
	meta   *metadatafake.FakeMetadataClient

	mu sync.Mutex
	// refuse and admit, if set, are called for each write of the program: refuse
	// returns an error, admit changes what is stored.
	refuse func(clienttesting.Action) error
	admit  func(runtime.Object)
	// unreadable are the errors of resources that cannot be listed.
	unreadable map[string]error
	unlisted   string // a label selector with which nothing can be listed; empty: none
	// withoutSlices turns off the mirroring of Endpoints to EndpointSlices.
	withoutSlices bool
	// stuck are the Endpoints of which the mirroring controller believes that an EndpointSlice exists which
	// does not: it makes none until it has seen that they are not to be mirrored.
	stuck map[cache.ObjectName]bool

	version  int
	address  int
	objects  map[string]map[cache.ObjectName]runtime.Object // by resource
	history  []change
	paused   bool // watchers receive nothing
	late     []change
	watchers []*watcher
	writes   []written
	lists    int // requested since listed was last called
}

// write is a write request of the program, successful or not.
type written struct {
	what    string // as "create services default/bar-paris"
	object  runtime.Object
	options metav1.DeleteOptions
	err     error
}

// change is one change of an object.
type change struct {
	resource    string
	version     int
	before, now runtime.Object // nil: did not, or does not, exist
}

func newAPIServer() *apiserver {
	s := &apiserver{
		client:  fake.NewSimpleClientset(),
		meta:    metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme()),
		objects: map[string]map[cache.ObjectName]runtime.Object{},
	}
	for _, f := range []*clienttesting.Fake{&s.client.Fake, &s.meta.Fake} {
		asMetadata := f == &s.meta.Fake
		f.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			obj, err := s.react(action, asMetadata)
			return true, obj, err
		})
		f.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
			w, err := s.watch(action.(clienttesting.WatchActionImpl), asMetadata)
			return true, w, err
		})
	}
	return s
}

func (s *apiserver) react(action clienttesting.Action, asMetadata bool) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch a := action.(type) {
	case clienttesting.ListActionImpl:
		return s.list(a, asMetadata)
	case clienttesting.GetActionImpl:
		if obj := s.objects[a.Resource.Resource][cache.NewObjectName(a.Namespace, a.Name)]; obj != nil {
			return obj.DeepCopyObject(), nil
		}
		return nil, apierrors.NewNotFound(groupResource(a.Resource.Resource), a.Name)
	}
	w := written{}
	var result runtime.Object
	name := func(obj metav1.Object) cache.ObjectName { return cache.MetaObjectToName(obj) }
	var key cache.ObjectName
	verb := action.GetVerb()
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		w.object = a.Object.DeepCopyObject()
		key = name(accessor(w.object))
		if len(a.CreateOptions.DryRun) > 0 {
			verb = "try"
		}
	case clienttesting.UpdateActionImpl:
		w.object = a.Object.DeepCopyObject()
		key = name(accessor(w.object))
	case clienttesting.DeleteActionImpl:
		w.options = a.DeleteOptions
		key = cache.NewObjectName(a.Namespace, a.Name)
	default:
		return nil, fmt.Errorf("the fake API server has no %s of %s", action.GetVerb(), action.GetResource().Resource)
	}
	resource := action.GetResource().Resource
	w.what = fmt.Sprintf("%s %s %s", verb, resource, key)
	if s.refuse != nil {
		w.err = s.refuse(action)
	}
	if w.err == nil {
		switch verb {
		case "try":
			if result = w.object; s.objects[resource][key] != nil {
				w.err = apierrors.NewAlreadyExists(groupResource(resource), key.Name)
			}
		case "create":
			result, w.err = s.create(resource, key, w.object.DeepCopyObject())
		case "update":
			result, w.err = s.update(resource, key, w.object.DeepCopyObject())
		case "delete":
			w.err = s.delete(resource, key, w.options.Preconditions)
		}
	}
	s.writes = append(s.writes, w)
	if w.err != nil {
		return nil, w.err
	}
	return result, nil
}

func accessor(obj runtime.Object) metav1.Object {
	out, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	return out
}

func groupResource(resource string) schema.GroupResource {
	if resource == "endpointslices" {
		return discoveryv1.Resource(resource)
	}
	return corev1.Resource(resource)
}

func (s *apiserver) create(resource string, key cache.ObjectName, obj runtime.Object) (runtime.Object, error) {
	if key.Namespace != "" {
		ns, ok := s.objects["namespaces"][cache.NewObjectName("", key.Namespace)].(*corev1.Namespace)
		if !ok {
			return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), key.Namespace)
		}
		if ns.DeletionTimestamp != nil {
			err := apierrors.NewForbidden(groupResource(resource), key.Name, fmt.Errorf("the namespace is being terminated"))
			err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
			return nil, err
		}
	}
	if s.objects[resource][key] != nil {
		return nil, apierrors.NewAlreadyExists(groupResource(resource), key.Name)
	}
	if s.admit != nil {
		s.admit(obj)
	}
	if svc, ok := obj.(*corev1.Service); ok {
		if err := s.allocate(svc); err != nil {
			return nil, err
		}
	}
	accessor(obj).SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
	return s.store(resource, key, obj), nil
}

// allocate gives a Service a ClusterIP, the requested one if that is free.
func (s *apiserver) allocate(svc *corev1.Service) error {
	defaulted(svc, nil)
	ip := svc.Spec.ClusterIP
	if ip == "" {
		s.address++
		ip = fmt.Sprintf("10.96.%d.%d", s.address/200, s.address%200+1)
	}
	for _, other := range s.objects["services"] {
		if other.(*corev1.Service).Spec.ClusterIP == ip {
			return invalid("Service", svc.Name, "spec.clusterIPs: provided IP is already allocated")
		}
	}
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs = ip, []string{ip}
	return nil
}

func invalid(kind, name, why string) error {
	err := apierrors.NewInvalid(schema.GroupKind{Kind: kind}, name, nil)
	err.ErrStatus.Message += ": " + why
	return err
}

func (s *apiserver) update(resource string, key cache.ObjectName, obj runtime.Object) (runtime.Object, error) {
	now := s.objects[resource][key]
	if now == nil {
		return nil, apierrors.NewNotFound(groupResource(resource), key.Name)
	}
	live, sent := accessor(now), accessor(obj)
	if sent.GetResourceVersion() != "" && sent.GetResourceVersion() != live.GetResourceVersion() || sent.GetUID() != "" && sent.GetUID() != live.GetUID() {
		return nil, apierrors.NewConflict(groupResource(resource), key.Name, fmt.Errorf("the object has been modified"))
	}
	if s.admit != nil {
		s.admit(obj)
	}
	if svc, ok := obj.(*corev1.Service); ok {
		defaulted(svc, nil)
	}
	sent.SetUID(live.GetUID())
	return s.store(resource, key, obj), nil
}

func (s *apiserver) delete(resource string, key cache.ObjectName, preconditions *metav1.Preconditions) error {
	now := s.objects[resource][key]
	if now == nil {
		return apierrors.NewNotFound(groupResource(resource), key.Name)
	}
	live := accessor(now)
	if p := preconditions; p != nil && (p.UID != nil && *p.UID != live.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != live.GetResourceVersion()) {
		return apierrors.NewConflict(groupResource(resource), key.Name, fmt.Errorf("the precondition failed"))
	}
	delete(s.objects[resource], key)
	gone := now.DeepCopyObject()
	s.version++
	accessor(gone).SetResourceVersion(strconv.Itoa(s.version))
	s.publish(change{resource: resource, version: s.version, before: gone})
	if made := cache.NewObjectName(key.Namespace, sliceMade(key.Name)); resource == "endpoints" && s.objects["endpointslices"][made] != nil {
		return s.delete("endpointslices", made, nil)
	}
	return nil
}

// sliceMade is the name of the EndpointSlice that mirrors Endpoints.
func sliceMade(name string) string { return name + "-made" }

// makesAfter is how long it takes until that is created.
const makesAfter = 50 * time.Millisecond

// makeSlice creates the EndpointSlice of Endpoints that still exist.
func (s *apiserver) makeSlice(uid types.UID, key cache.ObjectName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of, ok := s.objects["endpoints"][key].(*corev1.Endpoints)
	if !ok || of.UID != uid {
		return
	}
	if !plan.Mirrored(of) {
		delete(s.stuck, key)
		return
	}
	if s.stuck[key] {
		return
	}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: of.Namespace, Name: sliceMade(of.Name), Labels: maps.Clone(of.Labels)}}
	if slice.Labels == nil {
		slice.Labels = map[string]string{}
	}
	slice.Labels[discoveryv1.LabelServiceName], slice.Labels[discoveryv1.LabelManagedBy] = of.Name, "endpointslicemirroring-controller.k8s.io"
	for addr := range (Objects{Endpoints: of}).Endpointed() {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr.String()}})
	}
	s.store("endpointslices", cache.MetaObjectToName(slice), slice)
}

// store stores an object and returns a copy for the sender.
func (s *apiserver) store(resource string, key cache.ObjectName, obj runtime.Object) runtime.Object {
	s.version++
	accessor(obj).SetResourceVersion(strconv.Itoa(s.version))
	if s.objects[resource] == nil {
		s.objects[resource] = map[cache.ObjectName]runtime.Object{}
	}
	before := s.objects[resource][key]
	s.objects[resource][key] = obj
	s.publish(change{resource: resource, version: s.version, before: before, now: obj})
	if endpoints, ok := obj.(*corev1.Endpoints); ok && !s.withoutSlices {
		time.AfterFunc(makesAfter, func() { s.makeSlice(endpoints.UID, key) })
	}
	return obj.DeepCopyObject()
}

func (s *apiserver) publish(c change) {
	s.history = append(s.history, c)
	if s.paused {
		s.late = append(s.late, c)
		return
	}
	for _, w := range s.watchers {
		w.send(c)
	}
}

func (s *apiserver) list(action clienttesting.ListActionImpl, asMetadata bool) (runtime.Object, error) {
	s.lists++
	version := metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}
	resource := action.GetResource().Resource
	selector, err := labels.Parse(action.ListOptions.LabelSelector)
	if err != nil {
		return nil, err
	}
	if err := s.unreadable[resource]; err != nil {
		return nil, err
	}
	if s.unlisted != "" && s.unlisted == action.ListOptions.LabelSelector {
		return nil, errForbidden
	}
	services, endpoints, metadata := &corev1.ServiceList{ListMeta: version}, &corev1.EndpointsList{ListMeta: version}, &metav1.List{ListMeta: version}
	endpointSlices, nodes, cidrs := &discoveryv1.EndpointSliceList{ListMeta: version}, &corev1.NodeList{ListMeta: version}, &networkingv1.ServiceCIDRList{ListMeta: version}
	for _, obj := range s.objects[resource] {
		name, byName := strings.CutPrefix(action.ListOptions.FieldSelector, "metadata.name=")
		if !selector.Matches(labels.Set(accessor(obj).GetLabels())) || byName && name != accessor(obj).GetName() ||
			action.Namespace != "" && action.Namespace != accessor(obj).GetNamespace() {
			continue
		}
		if asMetadata {
			metadata.Items = append(metadata.Items, runtime.RawExtension{Object: partial(obj)})
			continue
		}
		switch obj := obj.DeepCopyObject().(type) {
		case *corev1.Service:
			services.Items = append(services.Items, *obj)
		case *corev1.Endpoints:
			endpoints.Items = append(endpoints.Items, *obj)
		case *discoveryv1.EndpointSlice:
			endpointSlices.Items = append(endpointSlices.Items, *obj)
		case *corev1.Node:
			nodes.Items = append(nodes.Items, *obj)
		case *networkingv1.ServiceCIDR:
			cidrs.Items = append(cidrs.Items, *obj)
		}
	}
	switch {
	case asMetadata:
		return metadata, nil
	case resource == "services":
		return services, nil
	case resource == "endpoints":
		return endpoints, nil
	case resource == "endpointslices":
		return endpointSlices, nil
	case resource == "nodes":
		return nodes, nil
	case resource == "servicecidrs":
		return cidrs, nil
	}
	return nil, fmt.Errorf("the fake API server has no list of %s", resource)
}

func partial(obj runtime.Object) *metav1.PartialObjectMetadata {
	from := accessor(obj.DeepCopyObject())
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: from.GetNamespace(), Name: from.GetName(), UID: from.GetUID(), ResourceVersion: from.GetResourceVersion(),
		Labels: from.GetLabels(), OwnerReferences: from.GetOwnerReferences(), DeletionTimestamp: from.GetDeletionTimestamp(),
	}}
}

// watcher is one open watch.
type watcher struct {
	resource   string
	selector   labels.Selector
	namespace  string // empty: all
	asMetadata bool
	seen       int // the version of the last change that it received
	events     chan watch.Event
	stop       func()
}

// room is more events than any test has.
const room = 50000

func (w *watcher) ResultChan() <-chan watch.Event { return w.events }
func (w *watcher) Stop()                          { w.stop() }

func (s *apiserver) watch(action clienttesting.WatchActionImpl, asMetadata bool) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	selector, err := labels.Parse(action.ListOptions.LabelSelector)
	if err != nil {
		return nil, err
	}
	since, err := strconv.Atoi(action.ListOptions.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest("a watch must say since when")
	}
	w := &watcher{resource: action.GetResource().Resource, selector: selector, namespace: action.Namespace, asMetadata: asMetadata, seen: since, events: make(chan watch.Event, room)}
	w.stop = sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers = slices.DeleteFunc(s.watchers, func(other *watcher) bool { return other == w })
		close(w.events)
	})
	for _, c := range s.history {
		w.send(c)
	}
	s.watchers = append(s.watchers, w)
	return w, nil
}

// send sends a change to the watcher as its selector sees it: an object that is no
// longer selected is deleted.
func (w *watcher) send(c change) {
	matches := func(obj runtime.Object) bool {
		return obj != nil && (w.namespace == "" || w.namespace == accessor(obj).GetNamespace()) && w.selector.Matches(labels.Set(accessor(obj).GetLabels()))
	}
	if c.resource != w.resource || c.version <= w.seen {
		return
	}
	w.seen = c.version
	event := watch.Event{Object: c.now}
	switch was, is := matches(c.before), matches(c.now); {
	case was && is:
		event.Type = watch.Modified
	case is:
		event.Type = watch.Added
	case was:
		event.Type, event.Object = watch.Deleted, c.before.DeepCopyObject()
		accessor(event.Object).SetResourceVersion(strconv.Itoa(c.version))
	default:
		return
	}
	if event.Object = event.Object.DeepCopyObject(); w.asMetadata {
		event.Object = partial(event.Object)
	}
	w.events <- event
}

// What follows is what others do in tests.

func resourceOf(obj runtime.Object) string {
	switch obj.(type) {
	case *corev1.Service:
		return "services"
	case *corev1.Endpoints:
		return "endpoints"
	case *corev1.Namespace:
		return "namespaces"
	case *discoveryv1.EndpointSlice:
		return "endpointslices"
	case *corev1.Node:
		return "nodes"
	case *networkingv1.ServiceCIDR:
		return "servicecidrs"
	}
	panic(fmt.Sprintf("%T", obj))
}

// put has someone else store an object, whoever owned it.
func (s *apiserver) put(obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resource, key := resourceOf(obj), cache.MetaObjectToName(accessor(obj))
	obj = obj.DeepCopyObject()
	if svc, ok := obj.(*corev1.Service); ok && s.objects[resource][key] == nil {
		if err := s.allocate(svc); err != nil {
			panic(err)
		}
	}
	if accessor(obj).GetUID() == "" {
		accessor(obj).SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
	}
	s.store(resource, key, obj)
}

// add has someone else create an object and returns it as stored; nil if one of that
// name exists. Reactions to it may change it before it can be read.
func (s *apiserver) add(obj runtime.Object) runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	made, err := s.create(resourceOf(obj), cache.MetaObjectToName(accessor(obj)), obj.DeepCopyObject())
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	must(err)
	return made
}

// edit has someone else change an object in one write, and returns it as stored; nil
// if it does not exist or is not changed.
func (s *apiserver) edit(resource string, key cache.ObjectName, change func(runtime.Object) bool) runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj := s.objects[resource][key]
	if obj == nil {
		return nil
	}
	obj = obj.DeepCopyObject()
	if !change(obj) {
		return nil
	}
	edited, err := s.update(resource, key, obj)
	must(err)
	return edited
}

// pauseWatches delays all events, as a slow watch would, until it is called with false.
func (s *apiserver) pauseWatches(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
	if !paused {
		for _, c := range s.late {
			for _, w := range s.watchers {
				w.send(c)
			}
		}
		s.late = nil
	}
}

func (s *apiserver) setRefuse(refuse func(clienttesting.Action) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

// createdByAnother has another replica create an object right before the controller does, once; created tells whether it has.
func (s *apiserver) createdByAnother(resource string, key cache.ObjectName) (created func() bool) {
	var once atomic.Bool
	s.setRefuse(func(action clienttesting.Action) error {
		if create, ok := action.(clienttesting.CreateActionImpl); ok && action.GetResource().Resource == resource && once.CompareAndSwap(false, true) {
			_, err := s.create(resource, key, create.Object.DeepCopyObject()) // the server's lock is held
			must(err)
		}
		return nil
	})
	return once.Load
}

// getStuck has the mirroring controller believe that an EndpointSlice exists which does not.
func (s *apiserver) getStuck(namespace, name string) {
	s.remove("endpointslices", namespace, sliceMade(name))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = map[cache.ObjectName]bool{cache.NewObjectName(namespace, name): true}
}

// setWithoutSlices turns off the mirroring of Endpoints that are stored from now on, or on.
func (s *apiserver) setWithoutSlices(none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withoutSlices = none
}

func (s *apiserver) setAdmit(admit func(runtime.Object)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admit = admit
}

// remove has someone else delete an object.
func (s *apiserver) remove(resource, namespace, name string) {
	must(s.tryRemove(resource, cache.NewObjectName(namespace, name)))
}

func (s *apiserver) tryRemove(resource string, key cache.ObjectName) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.delete(resource, key, nil)
}

// removePair has someone else delete a Service, and Kubernetes delete its Endpoints.
func (s *apiserver) removePair(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := cache.NewObjectName(namespace, name)
	must(s.delete("services", key, nil))
	must(s.delete("endpoints", key, nil))
}

func (s *apiserver) get(resource, namespace, name string) runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if obj := s.objects[resource][cache.NewObjectName(namespace, name)]; obj != nil {
		return obj.DeepCopyObject()
	}
	return nil
}

func (s *apiserver) service(namespace, name string) *corev1.Service {
	svc, _ := s.get("services", namespace, name).(*corev1.Service)
	return svc
}

func (s *apiserver) endpoints(namespace, name string) *corev1.Endpoints {
	endpoints, _ := s.get("endpoints", namespace, name).(*corev1.Endpoints)
	return endpoints
}

func (s *apiserver) slice(namespace, name string) *discoveryv1.EndpointSlice {
	slice, _ := s.get("endpointslices", namespace, name).(*discoveryv1.EndpointSlice)
	return slice
}

// all returns every object of a resource as text, without what depends on the order of
// events: versions, UIDs and addresses.
func (s *apiserver) all(resource string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, obj := range s.objects[resource] {
		obj = obj.DeepCopyObject()
		accessor(obj).SetResourceVersion("")
		accessor(obj).SetUID("")
		if svc, ok := obj.(*corev1.Service); ok {
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "", nil
		}
		out = append(out, text(obj))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// refuseLists refuses to list with a label selector; empty: with none.
func (s *apiserver) refuseLists(selector string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlisted = selector
}

// watched are the label selectors of the open watches that begin with a text.
func (s *apiserver) watched(prefix string) (selectors []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watchers {
		if text := w.selector.String(); strings.HasPrefix(text, prefix) {
			selectors = append(selectors, text)
		}
	}
	return selectors
}

// listed is how many lists were requested since the last call.
func (s *apiserver) listed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	lists := s.lists
	s.lists = 0
	return lists
}

// wrote returns the program's writes since the last call.
func (s *apiserver) wrote() []written {
	s.mu.Lock()
	defer s.mu.Unlock()
	writes := s.writes
	s.writes = nil
	return writes
}
