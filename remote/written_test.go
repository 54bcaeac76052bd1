package remote

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// What was written is known once, in its version alone.
func TestWhatWasWrittenIsKnownOnce(t *testing.T) {
	lw := NewListWatch[*corev1.ServiceList](nil, func(*metav1.ListOptions) {})
	written := Written[*corev1.Service]{Informer: NewInformer(lw, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })}
	bar := cache.NewObjectName("default", "bar")
	written.Add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar", ResourceVersion: "7"}})
	for i, step := range []struct {
		key     cache.ObjectName
		version string
		want    bool
	}{{cache.NewObjectName("default", "foo"), "7", false}, {bar, "8", false}, {bar, "7", true}, {bar, "7", false}} {
		if got := written.Known(step.key, step.version); got != step.want {
			t.Errorf("step %d: %v in version %s is known: %v", i, step.key, step.version, got)
		}
	}
}
