package plan

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

func TestOwner(t *testing.T) {
	both := map[string]string{ManagedByLabel: ManagedBy, ClusterLabel: "paris"}
	recorded := map[string]string{MirrorAnnotation: "default/bar-paris"}
	for _, test := range []struct {
		name                string
		labels, annotations map[string]string
		ours                bool
	}{
		{name: "nothing"},
		{name: "labels and annotation", labels: both, annotations: recorded, ours: true},
		{name: "labels alone", labels: both},
		{name: "annotation alone", annotations: recorded},
		{name: "managed-by alone", labels: map[string]string{ManagedByLabel: ManagedBy}, annotations: recorded},
		{name: "cluster alone", labels: map[string]string{ClusterLabel: "paris"}, annotations: recorded},
		{name: "no cluster", labels: map[string]string{ManagedByLabel: ManagedBy, ClusterLabel: ""}, annotations: recorded},
		{name: "managed by another", labels: map[string]string{ManagedByLabel: "Helm", ClusterLabel: "paris"}, annotations: recorded},
		{name: "a copy of a mirror", labels: both, annotations: map[string]string{MirrorAnnotation: "default/other-paris"}},
		{name: "a copy in another namespace", labels: both, annotations: map[string]string{MirrorAnnotation: "shop/bar-paris"}},
		{name: "of a version without the annotation", labels: both, annotations: map[string]string{RemoteServiceAnnotation: "default/bar"}, ours: true},
		{name: "a copy of one of that version", labels: both, annotations: map[string]string{RemoteServiceAnnotation: "default/other"}},
		{name: "the annotation counts before the source", labels: both,
			annotations: map[string]string{MirrorAnnotation: "default/other-paris", RemoteServiceAnnotation: "default/bar"}},
		{name: "a source that is no name", labels: both, annotations: map[string]string{RemoteServiceAnnotation: "bar"}},
	} {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris", Labels: test.labels, Annotations: test.annotations}}
		if cluster, ours := Owner(svc); ours != test.ours || ours && cluster != "paris" {
			t.Errorf("%s: got %q, %v", test.name, cluster, ours)
		}
		if again, ours := Owner(TrimLocal(svc.DeepCopy())); ours != test.ours {
			t.Errorf("%s: trimmed, got %q, %v", test.name, again, ours)
		}
	}
}

func TestOwnedAddresses(t *testing.T) {
	key := cache.NewObjectName("default", "bar-paris")
	labels := func(cluster string) map[string]string {
		return map[string]string{ManagedByLabel: ManagedBy, ClusterLabel: cluster}
	}
	service := storedBar().Service
	for _, test := range []struct {
		name                string
		service             *corev1.Service
		labels, annotations map[string]string
		ours                bool
	}{
		{name: "recorded", labels: labels("paris"), annotations: map[string]string{MirrorAnnotation: "default/bar-paris"}, ours: true},
		{name: "recorded elsewhere", labels: labels("paris"), annotations: map[string]string{MirrorAnnotation: "default/x-paris"}, service: service},
		{name: "of an older version, with its Service", labels: labels("paris"), service: service, ours: true},
		{name: "of an older version, alone", labels: labels("paris"), ours: true},
		{name: "alone, under a name that its cluster does not make", labels: labels("berlin")},
		{name: "half labelled", labels: map[string]string{ManagedByLabel: ManagedBy}, annotations: map[string]string{MirrorAnnotation: "default/bar-paris"}, service: service},
	} {
		meta := metav1.ObjectMeta{Namespace: "default", Name: "bar-paris", Labels: test.labels, Annotations: test.annotations}
		objects := Objects{Service: test.service, Endpoints: &corev1.Endpoints{ObjectMeta: meta}}
		if got := objects.Owned(key).Endpoints != nil; got != test.ours {
			t.Errorf("%s: ours %v, want %v", test.name, got, test.ours)
		}
	}
	foreign := Objects{Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}}, Endpoints: storedBar().Endpoints}
	if !foreign.Owned(key).Empty() {
		t.Error("something under a foreign Service is ours")
	}
}

func TestSliceKey(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "x", Labels: map[string]string{discoveryv1.LabelServiceName: "bar-paris"},
	}}
	if got := SliceKey(slice); got != cache.NewObjectName("default", "bar-paris") {
		t.Errorf("by its label: %v", got)
	}
	slice.Annotations = map[string]string{MirrorAnnotation: "default/foo-paris"}
	if got := SliceKey(slice); got != cache.NewObjectName("default", "foo-paris") {
		t.Errorf("by its annotation: %v", got)
	}
	slice.Annotations[MirrorAnnotation] = "other/foo-paris"
	if got := SliceKey(slice); got != cache.NewObjectName("default", "bar-paris") {
		t.Errorf("by an annotation of another namespace: %v", got)
	}
}
