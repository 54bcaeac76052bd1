package mirror

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

func TestName(t *testing.T) {
	long := strings.Repeat("a", 57)
	for _, test := range []struct {
		cluster, exported string
		want              string
		wantErr           string
	}{
		{cluster: "paris", exported: "bar", want: "bar-paris"},
		{cluster: "paris", exported: "api-eu", want: "api-eu-paris"},
		{cluster: "eu-paris", exported: "api", want: "api-eu-paris"},
		{cluster: "paris", exported: long, want: long + "-paris"}, // 63
		{cluster: "paris", exported: long + "a", want: long + "a-paris",
			wantErr: "its name " + long + "a-paris would have 64 characters, 1 more than a Service name may have"},
		{cluster: "paris", exported: strings.Repeat(long, 2), want: long + long + "-paris", wantErr: "would have 120 characters, 57 more"},
		{cluster: "paris", exported: "1st", want: "1st-paris"},
		{cluster: "paris", exported: "", want: "-paris", wantErr: `its name "-paris" could not be a Service name`},
		{cluster: "paris", exported: "a.b", want: "a.b-paris", wantErr: "could not be a Service name"},
		{cluster: "paris", exported: "A", want: "A-paris", wantErr: "could not be a Service name"},
		{cluster: "paris", exported: "a/b", want: "a/b-paris", wantErr: "could not be a Service name"},
	} {
		got, err := Name(test.cluster, test.exported)
		if got != test.want {
			t.Errorf("%s of %s: got %q, want %q", test.exported, test.cluster, got, test.want)
		}
		if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
			t.Errorf("%s of %s: got error %v, want %q", test.exported, test.cluster, err, test.wantErr)
		}
	}
}

func TestKeyOf(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, test := range []struct {
		cluster  string
		exported cache.ObjectName
		want     cache.ObjectName
	}{
		{"paris", cache.NewObjectName("default", "bar"), cache.NewObjectName("default", "bar-paris")},
		// A refusal needs a key too.
		{"paris", cache.NewObjectName("default", long), cache.NewObjectName("default", long+"-paris")},
	} {
		if got := KeyOf(test.cluster, test.exported); got != test.want {
			t.Errorf("got %v, want %v", got, test.want)
		}
	}
}

func TestOwner(t *testing.T) {
	for _, test := range []struct {
		name    string
		labels  map[string]string
		cluster string
		ours    bool
	}{
		{name: "none"},
		{name: "both", labels: map[string]string{ManagedByLabel: ManagedBy, ClusterLabel: "paris"}, cluster: "paris", ours: true},
		{name: "managed-by alone", labels: map[string]string{ManagedByLabel: ManagedBy}},
		{name: "cluster alone", labels: map[string]string{ClusterLabel: "paris"}, cluster: "paris"},
		{name: "no cluster", labels: map[string]string{ManagedByLabel: ManagedBy, ClusterLabel: ""}},
		{name: "managed by another", labels: map[string]string{ManagedByLabel: "Helm", ClusterLabel: "paris"}, cluster: "paris"},
	} {
		cluster, ours := Owner(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Labels: test.labels}})
		if ours != test.ours || ours && cluster != test.cluster {
			t.Errorf("%s: got %q, %v", test.name, cluster, ours)
		}
	}
}

func TestExportedAs(t *testing.T) {
	for _, name := range []string{"bar", "api-eu", "paris", "x-paris"} {
		exported := cache.NewObjectName("default", name)
		if got := exportedAs("paris", KeyOf("paris", exported)); got != exported {
			t.Errorf("%v comes back as %v", exported, got)
		}
	}
	for _, name := range []string{"bar", "bar-berlin", "barparis", "paris", ""} {
		if got := exportedAs("paris", cache.NewObjectName("default", name)); got.Name != "" {
			t.Errorf("%q is taken for the mirror of %v", name, got)
		}
	}
}
