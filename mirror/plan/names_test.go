package plan

import (
	"slices"
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
		naming, exported := Naming{Cluster: test.cluster}, named("default", test.exported)
		got, err := naming.Key(exported).Name, naming.validate(exported)
		if got != test.want {
			t.Errorf("%s of %s: got %q, want %q", test.exported, test.cluster, got, test.want)
		}
		if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
			t.Errorf("%s of %s: got error %v, want %q", test.exported, test.cluster, err, test.wantErr)
		}
	}
}

// A refusal needs a key too.
func TestKey(t *testing.T) {
	long := strings.Repeat("a", 63)
	moved := map[string]string{"web": "shop", "shop": "shop-2"}
	for name, test := range map[string]struct {
		naming   Naming
		exported string
		chosen   string
		want     string
	}{
		"default":                     {Naming{}, "default/bar", "", "default/bar-paris"},
		"too long":                    {Naming{}, "default/" + long, "", "default/" + long + "-paris"},
		"cluster first":               {Naming{Template: "{cluster}-{service}"}, "default/bar", "", "default/paris-bar"},
		"the same name":               {Naming{Template: "{service}"}, "default/bar", "", "default/bar"},
		"with the namespace":          {Naming{Template: "{namespace}-{service}-x", Namespaces: moved}, "web/bar", "", "shop/web-bar-x"},
		"another namespace":           {Naming{Namespaces: moved}, "web/bar", "", "shop/bar-paris"},
		"a namespace that gives way":  {Naming{Namespaces: moved}, "shop/bar", "", "shop-2/bar-paris"},
		"its own choice":              {Naming{ObeyNames: true, Namespaces: moved}, "web/bar", "till", "shop/till"},
		"its own choice, not allowed": {Naming{}, "web/bar", "till", "web/bar-paris"},
		"no choice":                   {Naming{ObeyNames: true}, "web/bar", "", "web/bar-paris"},
		"a placeholder in a name":     {Naming{Template: "{service}-{namespace}"}, "web/{cluster}", "", "web/{cluster}-web"},
	} {
		t.Run(name, func(t *testing.T) {
			test.naming.Cluster = "paris"
			namespace, service, _ := strings.Cut(test.exported, "/")
			exported := named(namespace, service)
			if test.chosen != "" {
				exported.Annotations = map[string]string{NameAnnotation: test.chosen}
			}
			key := test.naming.Key(exported)
			if key.String() != test.want {
				t.Errorf("got %v, want %s", key, test.want)
			}
			if !test.naming.Makes(key) {
				t.Errorf("%v is not taken for a key of the remote", key)
			}
			if sources := test.naming.Sources(key); test.naming.Key(exported) == test.naming.KeyByTemplate(cache.NewObjectName(namespace, service)) &&
				!slices.Contains(sources, cache.NewObjectName(namespace, service)) {
				t.Errorf("%v comes back as %v", exported.Name, sources)
			}
		})
	}
}

func TestSources(t *testing.T) {
	for name, test := range map[string]struct {
		naming Naming
		key    string
		want   []string
	}{
		"default":                  {Naming{}, "default/bar-paris", []string{"default/bar"}},
		"its own suffix":           {Naming{}, "default/paris-paris", []string{"default/paris"}},
		"another name":             {Naming{}, "default/bar", nil},
		"another remote's":         {Naming{}, "default/bar-berlin", nil},
		"no hyphen":                {Naming{}, "default/barparis", nil},
		"nothing but the suffix":   {Naming{}, "default/-paris", nil},
		"nothing":                  {Naming{}, "default/", nil},
		"the same name":            {Naming{Template: "{service}"}, "default/bar", []string{"default/bar"}},
		"overlapping affixes":      {Naming{Template: "ab{service}ba"}, "default/aba", nil},
		"two namespaces":           {Naming{Namespaces: map[string]string{"web": "shop"}}, "shop/bar-paris", []string{"shop/bar", "web/bar"}},
		"two, told by their names": {Naming{Template: "{namespace}-{service}", Namespaces: map[string]string{"web": "shop"}}, "shop/web-bar", []string{"web/bar"}},
		"a namespace that moved":   {Naming{Namespaces: map[string]string{"web": "shop"}}, "web/bar-paris", nil},
	} {
		t.Run(name, func(t *testing.T) {
			test.naming.Cluster = "paris"
			namespace, service, _ := strings.Cut(test.key, "/")
			var got []string
			for _, source := range test.naming.Sources(cache.NewObjectName(namespace, service)) {
				got = append(got, source.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestValidateTemplate(t *testing.T) {
	for template, want := range map[string]string{
		DefaultTemplate:                       "",
		"{cluster}-{namespace}-{service}":     "",
		"{service}":                           "",
		"":                                    "must contain {service} exactly once, not 0 times",
		"{cluster}":                           "must contain {service} exactly once, not 0 times",
		"{service}-{service}":                 "must contain {service} exactly once, not 2 times",
		"{service}-{remote}":                  "unknown placeholder",
		"{service}-{":                         "unknown placeholder",
		"-{service}":                          "does not produce a valid Service name",
		"{service}.{cluster}":                 "does not produce a valid Service name",
		"{service}-Paris":                     "does not produce a valid Service name",
		"{service}" + strings.Repeat("a", 63): "does not produce a valid Service name",
	} {
		err := ValidateTemplate(template)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", template, err, want)
		}
	}
}
