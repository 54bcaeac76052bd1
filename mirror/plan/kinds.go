package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Objects are what a mirror consists of; nil is absent. Endpoints or, one for each IP family,
// EndpointSlices carry the addresses: both only while one replaces the other.
type Objects struct {
	Service    *corev1.Service
	Endpoints  *corev1.Endpoints
	IPv4, IPv6 *discoveryv1.EndpointSlice
}

// Kind is one of the kinds of objects that a mirror consists of.
type Kind int

// The kinds, in the order in which they say whose a mirror is.
const (
	Service Kind = iota
	Endpoints
	IPv4Slice
	IPv6Slice
	Kinds = iota // how many there are
)

var (
	allKinds     = []Kind{Service, Endpoints, IPv4Slice, IPv6Slice}
	addressKinds = allKinds[1:]
	// SliceKinds are the kinds of EndpointSlices.
	SliceKinds = allKinds[2:]
)

// kinds is everything that differs from kind to kind.
var kinds = [Kinds]struct {
	name, title string // of the API kind; in a diff
	get         func(Objects) metav1.Object
	set         func(*Objects, metav1.Object)
	same        func(a, b metav1.Object) bool // apart from labels and annotations
}{
	Service: {
		"Service", "Service",
		func(o Objects) metav1.Object { return orNil(o.Service) },
		func(o *Objects, obj metav1.Object) { o.Service, _ = obj.(*corev1.Service) },
		comparing(func(a, b *corev1.Service) bool { return equality.Semantic.DeepEqual(a.Spec, b.Spec) }),
	},
	Endpoints: {
		"Endpoints", "Endpoints",
		func(o Objects) metav1.Object { return orNil(o.Endpoints) },
		func(o *Objects, obj metav1.Object) { o.Endpoints, _ = obj.(*corev1.Endpoints) },
		comparing(func(a, b *corev1.Endpoints) bool { return sameSubsets(a.Subsets, b.Subsets) }),
	},
	IPv4Slice: {
		"EndpointSlice", "EndpointSlice " + string(discoveryv1.AddressTypeIPv4),
		func(o Objects) metav1.Object { return orNil(o.IPv4) },
		func(o *Objects, obj metav1.Object) { o.IPv4, _ = obj.(*discoveryv1.EndpointSlice) },
		comparing(sameSlices),
	},
	IPv6Slice: {
		"EndpointSlice", "EndpointSlice " + string(discoveryv1.AddressTypeIPv6),
		func(o Objects) metav1.Object { return orNil(o.IPv6) },
		func(o *Objects, obj metav1.Object) { o.IPv6, _ = obj.(*discoveryv1.EndpointSlice) },
		comparing(sameSlices),
	},
}

// String is the name of the API kind.
func (k Kind) String() string { return kinds[k].name }

// Title is the name of the API kind, with the family where there is an object of each.
func (k Kind) Title() string { return kinds[k].title }

// ObjectName is the name of a mirror's object of this kind.
func (k Kind) ObjectName(key cache.ObjectName) cache.ObjectName {
	switch k {
	case IPv4Slice:
		key.Name = SliceName(key, discoveryv1.AddressTypeIPv4)
	case IPv6Slice:
		key.Name = SliceName(key, discoveryv1.AddressTypeIPv6)
	}
	return key
}

// Foreign says that a foreign object of this kind has the name of the mirror's, and what to do about it.
func (k Kind) Foreign(key cache.ObjectName) string {
	return fmt.Sprintf("%v %v already exists and is not managed by service-mirror: rename or delete it, or stop exporting the remote Service", k, k.ObjectName(key))
}

// Get is the object of a kind; a nil interface where it is absent.
func (o Objects) Get(k Kind) metav1.Object { return kinds[k].get(o) }

// Set sets or, with nil, removes the object of a kind.
func (o *Objects) Set(k Kind, obj metav1.Object) { kinds[k].set(o, obj) }

// Empty tells that there is none.
func (o Objects) Empty() bool { return o == Objects{} }

// differs tells whether two objects of a kind differ in what a mirror's objects are compared by.
func (k Kind) differs(live, desired metav1.Object) bool {
	return !equality.Semantic.DeepEqual(live.GetLabels(), desired.GetLabels()) ||
		!equality.Semantic.DeepEqual(live.GetAnnotations(), desired.GetAnnotations()) || !kinds[k].same(live, desired)
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil[T any, P interface {
	*T
	metav1.Object
}](obj P) metav1.Object {
	if obj == nil {
		return nil
	}
	return obj
}

func comparing[T metav1.Object](same func(a, b T) bool) func(a, b metav1.Object) bool {
	return func(a, b metav1.Object) bool { return same(a.(T), b.(T)) }
}

func sameSlices(a, b *discoveryv1.EndpointSlice) bool {
	return sameSet(a.Endpoints, b.Endpoints, same) && sameSet(a.Ports, b.Ports, same)
}

// DeepCopy copies all of them.
func (o Objects) DeepCopy() Objects {
	return Objects{Service: o.Service.DeepCopy(), Endpoints: o.Endpoints.DeepCopy(), IPv4: o.IPv4.DeepCopy(), IPv6: o.IPv6.DeepCopy()}
}
