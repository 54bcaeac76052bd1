package remote

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"

	"service-mirror.io/service-mirror/remote/failure"
)

// wellFormed says what a list or an event must look like to be believed. client-go
// decodes any answer with status 200 that it can: {}, null, or a list of another kind
// become an empty list without an error, and an empty list deletes every mirror.
type wellFormed struct {
	object    reflect.Type // of the objects; nil: any
	scope     scope
	namespace string // the only one that was requested; empty: all
}

// scope is whether the objects of a kind are in namespaces.
type scope int

const (
	anyScope scope = iota // not known: metadata of any kind
	namespaceScope
	clusterScope
)

// scopeOf is the scope of the kinds that this program reads.
func scopeOf(example any) scope {
	switch example.(type) {
	case *metav1.PartialObjectMetadata, *Unstructured:
		return anyScope
	case *corev1.Namespace, *corev1.Node, *networkingv1.ServiceCIDR:
		return clusterScope
	}
	return namespaceScope
}

// list checks a list, or a page of one, and returns the keys of its items. seen are the
// keys of the pages before.
func (f wellFormed) list(list runtime.Object, seen map[string]bool) (keys []string, err error) {
	listMeta, err := meta.ListAccessor(list)
	if err != nil {
		return nil, malformed(err)
	}
	if err := checkVersion(listMeta.GetResourceVersion()); err != nil {
		return nil, malformed(fmt.Errorf("the list %w", err))
	}
	known := make(map[string]bool, meta.LenList(list))
	err = meta.EachListItem(list, func(item runtime.Object) error {
		key, err := f.item(item)
		if err == nil && (known[key] || seen[key]) {
			err = fmt.Errorf("%.320q is in the list twice", key)
		}
		known[key] = true
		keys = append(keys, key)
		return err
	})
	if err != nil {
		return nil, malformed(err)
	}
	return keys, nil
}

// event checks an event of a watch and returns the key of its object; empty: of a bookmark.
func (f wellFormed) event(event watch.Event) (key string, err error) {
	if f.object != nil && reflect.TypeOf(event.Object) != f.object {
		return "", malformed(fmt.Errorf("an event has a %T", event.Object))
	}
	obj, err := meta.Accessor(event.Object)
	if err == nil && event.Type != watch.Bookmark {
		key, err = f.item(event.Object)
	}
	if err == nil {
		if err = checkVersion(obj.GetResourceVersion()); err != nil {
			err = fmt.Errorf("an event of type %s %w", event.Type, err)
		}
	}
	if err != nil {
		return "", malformed(err)
	}
	return key, nil
}

// What a server gives to be sent back in the URL of a request has a length that a URL can have.
const (
	// maxVersion is the length of a resourceVersion: it is a number (KEP-5504), but other stores have others.
	maxVersion = 128
	// maxContinue is the length of a token for the next page: it has the key at which that begins.
	maxContinue = 8 << 10
)

// checkVersion checks the resourceVersion of what must have one.
func checkVersion(version string) error {
	switch {
	case version == "":
		return errors.New("has no resourceVersion")
	case len(version) > maxVersion:
		return fmt.Errorf("has a resourceVersion of %d characters", len(version))
	}
	return nil
}

// item checks one object and returns its key.
func (f wellFormed) item(item runtime.Object) (key string, err error) {
	obj, err := meta.Accessor(item)
	if err != nil {
		return "", err
	}
	name, namespace := obj.GetName(), obj.GetNamespace()
	switch {
	case name == "":
		return "", errors.New("an object has no name")
	case len(name) > validation.DNS1123SubdomainMaxLength, len(path.IsValidPathSegmentName(name)) > 0, failure.Printable(name) != name:
		return "", fmt.Errorf("an object has the invalid name %.320q", name)
	case obj.GetUID() == "":
		return "", fmt.Errorf("%.320q has no UID", name)
	case f.namespace != "" && namespace != f.namespace:
		return "", fmt.Errorf("%.320q is in namespace %.320q, but namespace %q was requested", name, namespace, f.namespace)
	case f.scope == clusterScope && namespace != "":
		return "", fmt.Errorf("%.320q has a namespace, but its kind is cluster-scoped", name)
	case namespace == "" && f.scope == namespaceScope:
		return "", fmt.Errorf("%.320q has no namespace", name)
	case namespace != "" && f.namespace == "" && !validNamespace(namespace):
		return "", fmt.Errorf("%.320q is in the invalid namespace %.320q", name, namespace)
	case namespace == "":
		return name, nil
	}
	return namespace + "/" + name, nil
}

// validNamespace is whether a namespace can have this name: a DNS label.
func validNamespace(name string) bool {
	if len(name) > validation.DNS1123LabelMaxLength || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") {
		return false
	}
	for _, char := range []byte(name) { // a regular expression would take longer than the rest of the check
		if (char < 'a' || char > 'z') && (char < '0' || char > '9') && char != '-' {
			return false
		}
	}
	return name != ""
}

// malformed has its text whole: Cause shows the innermost error.
func malformed(err error) error { return fmt.Errorf("malformed answer: %v", err) }
