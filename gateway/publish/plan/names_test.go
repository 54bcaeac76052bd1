package plan

import (
	"strings"
	"testing"

	"k8s.io/client-go/tools/cache"
)

// TestAliasOf has the aliases of Services, and why one has none.
func TestAliasOf(t *testing.T) {
	longest := strings.Repeat("n", 63-len("default--"))
	for _, test := range []struct{ namespace, name, want, wrong string }{
		{"default", "bar", "default--bar", ""},
		{"team-a", "bar-paris", "team-a--bar-paris", ""},
		{"default", longest, "default--" + longest, ""},
		{"default", longest + "n", "", "64 characters"},
		{"default", "a--b", "", "Service a--b has"},
		{"a--b", "bar", "", "namespace a--b has"},
		{"default--a", "b", "", "namespace default--a has"},
	} {
		got, err := AliasOf(cache.NewObjectName(test.namespace, test.name))
		if got != test.want || (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s/%s: got %q, %v, want %q, an error with %q", test.namespace, test.name, got, err, test.want, test.wrong)
		}
	}
}

// FuzzAliasOf has no two Services with one alias.
func FuzzAliasOf(f *testing.F) {
	f.Add("default", "a--b", "default--a", "b")
	f.Add("a", "b", "a", "b")
	f.Add("a-", "b", "a", "-b")
	f.Fuzz(func(t *testing.T, namespace, name, otherNamespace, otherName string) {
		one, other := cache.NewObjectName(namespace, name), cache.NewObjectName(otherNamespace, otherName)
		for _, part := range []string{namespace, name, otherNamespace, otherName} {
			if part == "" || strings.HasPrefix(part, "-") || strings.HasSuffix(part, "-") {
				return // the API server accepts no such name
			}
		}
		a, err := AliasOf(one)
		b, wrong := AliasOf(other)
		if err == nil && wrong == nil && a == b && one != other {
			t.Errorf("%v and %v have the alias %s", one, other, a)
		}
	})
}
