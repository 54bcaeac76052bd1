package plan

import (
	"strings"
	"testing"

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
			wantErr: "its mirror's name " + long + "a-paris has 64 characters, 1 more than a Service name may have"},
		{cluster: "paris", exported: strings.Repeat(long, 2), want: long + long + "-paris", wantErr: "has 120 characters, 57 more"},
		{cluster: "paris", exported: "1st", want: "1st-paris"},
		{cluster: "paris", exported: "", want: "-paris", wantErr: `its mirror's name "-paris" is not a valid Service name`},
		{cluster: "paris", exported: "a.b", want: "a.b-paris", wantErr: "is not a valid Service name"},
		{cluster: "paris", exported: "A", want: "A-paris", wantErr: "is not a valid Service name"},
		{cluster: "paris", exported: "a/b", want: "a/b-paris", wantErr: "is not a valid Service name"},
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

func TestExportedAs(t *testing.T) {
	for _, name := range []string{"bar", "api-eu", "paris", "x-paris"} {
		exported := cache.NewObjectName("default", name)
		if got, _ := ExportedAs("paris", KeyOf("paris", exported)); got != exported {
			t.Errorf("%v comes back as %v", exported, got)
		}
	}
	for _, name := range []string{"bar", "bar-berlin", "barparis", "paris", ""} {
		if got, possible := ExportedAs("paris", cache.NewObjectName("default", name)); possible {
			t.Errorf("%q is taken for the mirror of %v", name, got)
		}
	}
}
