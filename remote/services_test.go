package remote

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// The oldest is the first one created, of all namespaces that are watched; of two that
// were created in one second the first by name.
func TestOldest(t *testing.T) {
	const byTeam = "team"
	part := func(all ...*corev1.Service) *Informer[*corev1.Service] {
		lw := NewListWatch(fake.NewSimpleClientset().CoreV1().Services(""), func(*metav1.ListOptions) {})
		informer := NewInformer(lw, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
		informer.Index(byTeam, func(svc *corev1.Service) []string { return []string{svc.Labels["team"]} })
		for _, svc := range all {
			must(informer.GetIndexer().Add(Encode(svc)))
		}
		return informer
	}
	made := func(namespace, name, team string, second int64) *corev1.Service {
		svc := service(namespace, name)
		svc.Labels, svc.CreationTimestamp = map[string]string{"team": team}, metav1.Unix(second, 0)
		return svc
	}
	services := Services{
		part(made("a", "young", "red", 30), made("a", "old", "red", 20), made("a", "older", "blue", 10)),
		part(made("b", "old", "red", 20), made("b", "a", "green", 1)),
	}
	for team, want := range map[string]cache.ObjectName{
		"red":   cache.NewObjectName("a", "old"),
		"blue":  cache.NewObjectName("a", "older"),
		"green": cache.NewObjectName("b", "a"),
		"none":  {},
	} {
		if got := services.Oldest(byTeam, team); got != want {
			t.Errorf("of %s: got %v, want %v", team, got, want)
		}
	}
	if got := services.NamesByIndex(byTeam, "red"); len(got) != 3 {
		t.Errorf("of red there are %v", got)
	}
}

// A name that no API server takes is the key that it has in a cache.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{"", "/", "a", "a/b", "a/../b", "a//", "a/b/c\x00"} {
		key := nameOf(name).String()
		if nameOf(key) != nameOf(name) || name != "/" && name != "" && key != name {
			t.Errorf("%q became %q", name, key)
		}
	}
}
