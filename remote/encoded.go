package remote

import (
	"cmp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

// Object is what an informer can keep.
type Object interface {
	comparable
	cache.Object
	metav1.Object
	runtime.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
	Size() int // of the encoding
}

// encoded is an object as the bytes of its protobuf encoding. As a struct it takes
// four times as much: most of its fields are empty, and each of its maps has room
// for eight. A cache is read seldom, and one object at a time.
type encoded struct {
	name    string // NAMESPACE/NAME, or NAME
	version string
	made    int64 // when it was created, in seconds since 1970
	data    []byte
}

// Encode makes of an object what a cache keeps.
func Encode[T Object](obj T) any {
	data, err := obj.Marshal()
	must(err)
	return &encoded{cache.MetaObjectToName(obj).String(), obj.GetResourceVersion(), obj.GetCreationTimestamp().Unix(), data}
}

// GetObjectMeta has client-go find what it looks for in each object of a cache.
func (p *encoded) GetObjectMeta() metav1.Object {
	name := nameOf(p.name)
	return &metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, ResourceVersion: p.version}
}

// nameOf is the name that has this key in a cache, whatever is in it: a remote may send
// names with slashes, which client-go's own function does not take.
func nameOf(key string) cache.ObjectName {
	namespace, name, found := strings.Cut(key, "/")
	if !found {
		return cache.NewObjectName("", key)
	}
	return cache.NewObjectName(namespace, name)
}

// compareAge orders by age; of two that were made in one second, by name.
func compareAge(a, b *encoded) int {
	return cmp.Or(cmp.Compare(a.made, b.made), strings.Compare(a.name, b.name))
}
