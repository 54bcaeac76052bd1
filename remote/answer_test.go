package remote

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// but is default/bar with a change.
func but(change func(*corev1.Service)) corev1.Service {
	svc := service("default", "bar")
	change(svc)
	return *svc
}

var malformedServices = []struct {
	name, cause string
	service     corev1.Service
}{
	{"no name", "no name", but(func(svc *corev1.Service) { svc.Name = "" })},
	{"a name with a slash", "invalid name", but(func(svc *corev1.Service) { svc.Name = "a/b" })},
	{"no UID", "no UID", but(func(svc *corev1.Service) { svc.UID = "" })},
	{"no namespace", "no namespace", but(func(svc *corev1.Service) { svc.Namespace = "" })},
	{"a name with a line break", "invalid name", but(func(svc *corev1.Service) { svc.Name = "a\n\x1b[2Jb" })},
	{"a name that is too long", "invalid name", but(func(svc *corev1.Service) { svc.Name = strings.Repeat("a", 254) })},
	{"a namespace that cannot exist", "invalid namespace", but(func(svc *corev1.Service) { svc.Namespace = "a/b" })},
}

func TestListsAreWellFormed(t *testing.T) {
	list := func(items ...corev1.Service) *corev1.ServiceList {
		return &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "17"}, Items: items}
	}
	bar, foo := *service("default", "bar"), *service("team", "foo")
	ofService := wellFormed{scope: namespaceScope}
	inTeam := wellFormed{scope: namespaceScope, namespace: "team"}
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "a"}}
	nodeInNamespace := node
	nodeInNamespace.Namespace = "default"
	metadata := func(namespace string) runtime.Object {
		return &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "17"},
			Items: []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a", UID: "a"}}}}
	}
	nodes := func(node corev1.Node) runtime.Object {
		return &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "17"}, Items: []corev1.Node{node}}
	}
	type test struct {
		name string
		form wellFormed
		list runtime.Object
		seen map[string]bool
		want string // empty: it is well-formed
	}
	tests := []test{
		{"empty", ofService, list(), nil, ""},
		{"two", ofService, list(bar, foo), nil, ""},
		{"one of the namespace", inTeam, list(foo), nil, ""},
		{"a node", wellFormed{scope: clusterScope}, nodes(node), nil, ""},
		{"metadata", wellFormed{}, metadata("default"), nil, ""},
		{"metadata without a namespace", wellFormed{}, metadata(""), nil, ""},
		{"no resourceVersion", ofService, &corev1.ServiceList{}, nil, "no resourceVersion"},
		{"a long resourceVersion", ofService, &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: strings.Repeat("1", 129)}}, nil, "a resourceVersion of 129 characters"},
		{"no list", ofService, &corev1.Service{}, nil, "malformed"},
		{"one of another namespace", inTeam, list(foo, bar), nil, `namespace "team" was requested`},
		{"one twice", ofService, list(bar, foo, bar), nil, "twice"},
		{"one of the page before", ofService, list(bar), map[string]bool{"default/bar": true}, "twice"},
		{"a node with a namespace", wellFormed{scope: clusterScope}, nodes(nodeInNamespace), nil, "has a namespace"},
	}
	for _, bad := range malformedServices {
		tests = append(tests, test{bad.name, ofService, list(foo, bad.service), nil, bad.cause})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.form.list(test.list, test.seen)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestEventsAreWellFormed(t *testing.T) {
	form := wellFormed{object: reflect.TypeFor[*corev1.Service](), scope: namespaceScope}
	unversioned := but(func(svc *corev1.Service) { svc.ResourceVersion = "" })
	type test struct {
		name  string
		event watch.Event
		want  string
	}
	tests := []test{
		{"added", watch.Event{Type: watch.Added, Object: service("default", "bar")}, ""},
		{"deleted", watch.Event{Type: watch.Deleted, Object: service("default", "bar")}, ""},
		{"bookmark", watch.Event{Type: watch.Bookmark, Object: bookmark("17")}, ""},
		{"a bookmark without a version", watch.Event{Type: watch.Bookmark, Object: bookmark("")}, "no resourceVersion"},
		{"no version", watch.Event{Type: watch.Modified, Object: &unversioned}, "no resourceVersion"},
		{"another kind", watch.Event{Type: watch.Added, Object: &corev1.Pod{ObjectMeta: service("default", "bar").ObjectMeta}}, "Pod"},
		{"a bookmark of another kind", watch.Event{Type: watch.Bookmark, Object: &corev1.Pod{ObjectMeta: bookmark("17").ObjectMeta}}, "Pod"},
		{"a Status", watch.Event{Type: watch.Added, Object: &metav1.Status{}}, "Status"},
	}
	for _, bad := range malformedServices {
		tests = append(tests, test{bad.name, watch.Event{Type: watch.Deleted, Object: &bad.service}, bad.cause})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := form.event(test.event)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestNamespaceNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a-1": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a/b": false, "é": false, strings.Repeat("a", 64): false,
	} {
		if got := validNamespace(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
}
