package remote

import (
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// View is what is known of a remote cluster.
type View struct {
	Services Services
	Gateways Gateways
	Records  *Records  // nil: none are read
	UID      types.UID // empty: it could never be read
	// Namespaces are those whose exports are known; none: all.
	Namespaces []string
}

// Knows tells whether the exports of a namespace are known: it is watched, and its
// cache is filled.
func (v View) Knows(namespace string) bool {
	return len(v.Namespaces) == 0 || slices.Contains(v.Namespaces, namespace)
}

// Services are the exported Services of a remote: of all its namespaces, or of
// each that is known.
type Services []*Informer[*corev1.Service]

// Get returns one of them; nil if there is none.
func (s Services) Get(name cache.ObjectName) *corev1.Service {
	for _, part := range s {
		if svc := part.Get(name); svc != nil {
			return svc
		}
	}
	return nil
}

// Names are the names of all of them.
func (s Services) Names() []cache.ObjectName {
	var all []cache.ObjectName
	for _, part := range s {
		for _, key := range part.GetIndexer().ListKeys() {
			all = append(all, nameOf(key))
		}
	}
	return all
}

// NamesByIndex are the names of those that have a value in an index.
func (s Services) NamesByIndex(index, value string) []cache.ObjectName {
	var all []cache.ObjectName
	for _, part := range s {
		keys, err := part.GetIndexer().IndexKeys(index, value)
		must(err)
		for _, key := range keys {
			all = append(all, nameOf(key))
		}
	}
	return all
}

// Oldest is the name of the oldest of those that have a value in an index, if one is given, and of others; the first
// by name of those created in the same second; zero if there is none.
func (s Services) Oldest(index, value string, others ...cache.ObjectName) (name cache.ObjectName) {
	var all []*encoded
	for _, part := range s {
		if index != "" {
			all = append(all, part.indexed(index, value)...)
		}
		for _, other := range others {
			if found, exists, _ := part.GetIndexer().GetByKey(other.String()); exists {
				all = append(all, found.(*encoded))
			}
		}
	}
	if len(all) > 0 {
		name = nameOf(slices.MinFunc(all, compareAge).name)
	}
	return name
}

// All are all of them, each decoded when it is its turn: decoded all at once they would take many times what they do in
// the cache.
func (s Services) All() iter.Seq[*corev1.Service] {
	return func(yield func(*corev1.Service) bool) {
		for _, part := range s {
			for _, obj := range part.GetIndexer().List() {
				if !yield(part.decode(obj)) {
					return
				}
			}
		}
	}
}

// Len is how many there are.
func (s Services) Len() (n int) {
	for _, part := range s {
		n += len(part.GetIndexer().ListKeys())
	}
	return n
}
