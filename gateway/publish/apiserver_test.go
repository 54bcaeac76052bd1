package publish

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// apiserver adds to the fakes what they lack of an API server: one growing resourceVersion for all objects, watches that
// apply their selector and start at a resourceVersion, preconditions, and kinds that are not served.
type apiserver struct {
	client  *fake.Clientset
	meta    *metadatafake.FakeMetadataClient
	dynamic *dynamicfake.FakeDynamicClient

	undiscovered string // resource of which it is not said whether it is served
	mu           sync.Mutex
	served       map[string]bool                                // by RESOURCE/VERSION
	unreadable   string                                         // resource that cannot be listed
	stalled      map[string]bool                                // resources whose watches have no events
	refuse       func(verb, resource string) error              // nil: nothing is refused
	admit        func(*unstructured.Unstructured)               // changes what is stored; nil: nothing
	objects      map[string]map[cache.ObjectName]runtime.Object // by resource
	history      []change
	watchers     []*watcher
	version      int
	asked        map[string]int  // how often it was asked whether resources are served; nil: it is not counted
	owned        map[string]bool // listeners of which another program owns allowedRoutes
	writes       []string        // as "create httproutes default/bar.service-mirror", with the error
}

type change struct {
	resource    string
	version     int
	before, now runtime.Object // nil: did not, or does not, exist
}

type watcher struct {
	*watch.RaceFreeFakeWatcher
	resource string
	wants    func(runtime.Object) bool
	missed   []change // while the watch was stalled
}

func newAPIServer() *apiserver {
	kinds := map[schema.GroupVersionResource]string{}
	served := map[string]bool{}
	for _, kind := range plan.Kinds {
		for _, version := range kind.Versions() {
			kinds[kind.Resource().WithVersion(version)] = string(kind) + "List"
		}
		served[kind.Resource().Resource+"/v1"] = true
	}
	for resource, kind := range map[string]string{"gateways": "Gateway", "gatewayclasses": "GatewayClass", "listenersets": "ListenerSet"} {
		kinds[schema.GroupVersionResource{Group: plan.Group, Version: "v1", Resource: resource}] = kind + "List"
		served[resource+"/v1"] = resource != "listenersets"
	}
	s := &apiserver{client: fake.NewClientset(), meta: metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme()),
		dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds), served: served, objects: map[string]map[cache.ObjectName]runtime.Object{}}
	for _, f := range []*clienttesting.Fake{&s.client.Fake, &s.meta.Fake, &s.dynamic.Fake} {
		f.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			obj, err := s.react(action, f)
			return true, obj, err
		})
		f.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
			return true, s.watch(action.(clienttesting.WatchActionImpl)), nil
		})
	}
	return s
}

func (s *apiserver) clients() Clients {
	return Clients{Read: s.client, ReadDynamic: s.dynamic, Metadata: s.meta, Write: s.client, WriteDynamic: s.dynamic,
		Serves: func(_ context.Context, resource schema.GroupVersionResource) (bool, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.asked != nil {
				s.asked[resource.Resource]++
			}
			if resource.Resource == s.undiscovered {
				return false, apierrors.NewServiceUnavailable("it is overloaded")
			}
			return s.served[resource.Resource+"/"+resource.Version], nil
		}}
}

func (s *apiserver) react(action clienttesting.Action, client *clienttesting.Fake) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resource := action.GetResource().Resource
	switch a := action.(type) {
	case clienttesting.ListActionImpl:
		if resource == s.unreadable {
			return nil, apierrors.NewInternalError(fmt.Errorf("etcd is down"))
		}
		return s.list(a, client), nil
	case clienttesting.GetActionImpl:
		if obj := s.objects[resource][cache.NewObjectName(a.Namespace, a.Name)]; obj != nil {
			return obj.DeepCopyObject(), nil
		}
		return nil, apierrors.NewNotFound(action.GetResource().GroupResource(), a.Name)
	}
	got, key, err := s.write(action)
	text := fmt.Sprintf("%s %s %s", action.GetVerb(), resource, key)
	if err != nil {
		text += ": " + string(apierrors.ReasonForError(err))
	}
	if resource != "events" {
		s.writes = append(s.writes, text)
	}
	return got, err
}

func (s *apiserver) write(action clienttesting.Action) (got runtime.Object, key cache.ObjectName, err error) {
	resource := action.GetResource().Resource
	if s.refuse != nil {
		err = s.refuse(action.GetVerb(), resource)
	}
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		obj := a.Object.DeepCopyObject()
		key = cache.MetaObjectToName(accessor(obj))
		if err == nil && s.objects[resource][key] != nil {
			err = apierrors.NewAlreadyExists(a.Resource.GroupResource(), key.Name)
		}
		if err == nil {
			accessor(obj).SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
			got = s.store(resource, obj)
		}
	case clienttesting.UpdateActionImpl:
		obj := a.Object.DeepCopyObject()
		key = cache.MetaObjectToName(accessor(obj))
		if live := s.objects[resource][key]; err == nil && (live == nil || accessor(live).GetResourceVersion() != accessor(obj).GetResourceVersion()) {
			err = apierrors.NewConflict(a.Resource.GroupResource(), key.Name, fmt.Errorf("the object has been modified"))
		}
		if err == nil {
			got = s.store(resource, obj)
		}
	case clienttesting.PatchActionImpl:
		key = cache.NewObjectName(a.Namespace, a.Name)
		if err == nil && resource == "gateways" {
			got, err = s.applyListeners(key, a.Patch)
		}
	case clienttesting.DeleteActionImpl:
		key = cache.NewObjectName(a.Namespace, a.Name)
		live := s.objects[resource][key]
		switch p := a.DeleteOptions.Preconditions; {
		case err != nil:
		case live == nil:
			err = apierrors.NewNotFound(a.Resource.GroupResource(), key.Name)
		case p == nil || *p.UID != accessor(live).GetUID() || *p.ResourceVersion != accessor(live).GetResourceVersion():
			err = apierrors.NewConflict(a.Resource.GroupResource(), key.Name, fmt.Errorf("the precondition failed"))
		default:
			s.remove(resource, key)
		}
	default:
		err = fmt.Errorf("the fake API server has no %s of %s", action.GetVerb(), resource)
	}
	return got, key, err
}

// applyListeners applies the listeners of this program to a Gateway.
func (s *apiserver) applyListeners(key cache.ObjectName, patch []byte) (runtime.Object, error) {
	applied := &unstructured.Unstructured{}
	if err := applied.UnmarshalJSON(patch); err != nil {
		return nil, err
	}
	gw := s.objects["gateways"][key].DeepCopyObject().(*unstructured.Unstructured)
	own, _, _ := unstructured.NestedSlice(applied.Object, "spec", "listeners")
	listeners, _, _ := unstructured.NestedSlice(gw.Object, "spec", "listeners")
	for _, l := range listeners {
		name := l.(map[string]any)["name"].(string)
		at := slices.IndexFunc(own, func(o any) bool { return o.(map[string]any)["name"] == name })
		if s.owned[name] && at >= 0 && fmt.Sprint(own[at]) != fmt.Sprint(l) {
			cause := metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Field: fmt.Sprintf(`.spec.listeners[name=%q].allowedRoutes.namespaces.from`, name), Message: `conflict with "kubectl-edit"`}
			return nil, apierrors.NewApplyConflict([]metav1.StatusCause{cause}, "Apply failed with 1 conflict: "+cause.Message+": "+cause.Field)
		}
	}
	listeners = slices.DeleteFunc(listeners, func(l any) bool {
		return strings.HasPrefix(l.(map[string]any)["name"].(string), "service-mirror-")
	})
	if listeners = append(listeners, own...); len(listeners) > 64 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Gateway"}, key.Name, nil)
	}
	if err := unstructured.SetNestedSlice(gw.Object, listeners, "spec", "listeners"); err != nil {
		return nil, err
	}
	return s.store("gateways", gw), nil
}

func accessor(obj runtime.Object) metav1.Object {
	out, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	return out
}

// store stores an object and returns a copy for the sender.
func (s *apiserver) store(resource string, obj runtime.Object) runtime.Object {
	if object, ok := obj.(*unstructured.Unstructured); ok && s.admit != nil {
		s.admit(object)
	}
	s.version++
	accessor(obj).SetResourceVersion(strconv.Itoa(s.version))
	key := cache.MetaObjectToName(accessor(obj))
	if s.objects[resource] == nil {
		s.objects[resource] = map[cache.ObjectName]runtime.Object{}
	}
	before := s.objects[resource][key]
	s.objects[resource][key] = obj
	s.publish(change{resource, s.version, before, obj})
	return obj.DeepCopyObject()
}

func (s *apiserver) remove(resource string, key cache.ObjectName) {
	gone := s.objects[resource][key].DeepCopyObject()
	delete(s.objects[resource], key)
	s.version++
	accessor(gone).SetResourceVersion(strconv.Itoa(s.version))
	s.publish(change{resource, s.version, gone, nil})
}

func (s *apiserver) publish(c change) {
	s.history = append(s.history, c)
	for _, w := range s.watchers {
		if s.stalled[c.resource] {
			w.missed = append(w.missed, c)
			continue
		}
		w.send(c)
	}
}

// stall has the watches of resources have no events until resume.
func (s *apiserver) stall(resources ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled = map[string]bool{}
	for _, resource := range resources {
		s.stalled[resource] = true
	}
}

func (s *apiserver) resume(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stalled, resource)
	for _, w := range s.watchers {
		if w.resource != resource {
			continue
		}
		for _, c := range w.missed {
			w.send(c)
		}
		w.missed = nil
	}
}

// wants tells which objects a request is about.
func wants(namespace string, restrictions metav1.ListOptions) func(runtime.Object) bool {
	selector, err := labels.Parse(restrictions.LabelSelector)
	if err != nil {
		panic(err)
	}
	field, err := fields.ParseSelector(restrictions.FieldSelector)
	if err != nil {
		panic(err)
	}
	return func(obj runtime.Object) bool {
		object := accessor(obj)
		return (namespace == "" || object.GetNamespace() == namespace) && selector.Matches(labels.Set(object.GetLabels())) &&
			field.Matches(fields.Set{"metadata.name": object.GetName()})
	}
}

func (s *apiserver) list(action clienttesting.ListActionImpl, client *clienttesting.Fake) runtime.Object {
	wanted := wants(action.Namespace, action.ListOptions)
	version := metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}
	resource := action.Resource.Resource
	services, endpoints, configMaps := &corev1.ServiceList{ListMeta: version}, &discoveryv1.EndpointSliceList{ListMeta: version}, &corev1.ConfigMapList{ListMeta: version}
	metadata := &metav1.List{ListMeta: version}
	others := &unstructured.UnstructuredList{Object: map[string]any{"metadata": map[string]any{"resourceVersion": version.ResourceVersion}}}
	stored := s.objects[resource]
	for _, key := range slices.SortedFunc(maps.Keys(stored), mirrors.CompareKeys) {
		obj := stored[key]
		if !wanted(obj) {
			continue
		}
		switch obj := obj.DeepCopyObject().(type) {
		case *corev1.Service:
			services.Items = append(services.Items, *obj)
		case *discoveryv1.EndpointSlice:
			endpoints.Items = append(endpoints.Items, *obj)
		case *corev1.ConfigMap:
			configMaps.Items = append(configMaps.Items, *obj)
		case *metav1.PartialObjectMetadata:
			metadata.Items = append(metadata.Items, runtime.RawExtension{Object: obj})
		case *unstructured.Unstructured:
			others.Items = append(others.Items, *obj)
		}
	}
	switch {
	case client == &s.meta.Fake:
		return metadata
	case client == &s.dynamic.Fake:
		return others
	case resource == "services":
		return services
	case resource == "endpointslices":
		return endpoints
	case resource == "configmaps":
		return configMaps
	}
	return others
}

func (s *apiserver) watch(action clienttesting.WatchActionImpl) watch.Interface {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watcher{watch.NewRaceFreeFake(), action.Resource.Resource, wants(action.Namespace, action.ListOptions), nil}
	since, _ := strconv.Atoi(action.ListOptions.ResourceVersion)
	for _, c := range s.history {
		if c.version > since {
			w.send(c)
		}
	}
	s.watchers = append(s.watchers, w)
	return w
}

func (w *watcher) send(c change) {
	was, is := c.before != nil && w.wants(c.before), c.now != nil && w.wants(c.now)
	switch {
	case c.resource != w.resource || w.IsStopped():
	case was && is:
		w.Modify(c.now.DeepCopyObject())
	case is:
		w.Add(c.now.DeepCopyObject())
	case was:
		gone := c.before.DeepCopyObject()
		accessor(gone).SetResourceVersion(strconv.Itoa(c.version))
		w.Delete(gone)
	}
}

// put stores an object as someone else.
func (s *apiserver) put(resource string, obj runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if accessor(obj).GetUID() == "" {
		accessor(obj).SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
	}
	s.store(resource, obj)
}

func (s *apiserver) drop(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(resource, cache.NewObjectName(namespace, name))
}

func (s *apiserver) get(resource, namespace, name string) runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if obj := s.objects[resource][cache.NewObjectName(namespace, name)]; obj != nil {
		return obj.DeepCopyObject()
	}
	return nil
}

// wrote are the writes of the program since the last call, sorted.
func (s *apiserver) wrote() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	writes := s.writes
	s.writes = nil
	slices.Sort(writes)
	return slices.DeleteFunc(writes, func(text string) bool { return strings.HasPrefix(text, "patch events") })
}
