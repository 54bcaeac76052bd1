package link

import (
	"strings"
	"testing"
)

// The keys that are named change, the others stay, each where it is.
func TestKeysChange(t *testing.T) {
	for _, test := range []struct{ name, before, set, remove, want string }{
		{"the first", "", "gateway=a/b", "", "gateway=a/b"},
		{"nothing", "gateway=a/b,namespaces=a,b,uid=x", "", "", "gateway=a/b,namespaces=a,b,uid=x"},
		{"one more", "gateway=a/b,uid=x", "gateway-port=http", "", "gateway=a/b,uid=x,gateway-port=http"},
		{"another value", "gateway=a/b,uid=x", "gateway=c/d", "", "gateway=c/d,uid=x"},
		{"two values in place of three", "uid=x,gateway=a/b,gateway=c/d,gateway=e/f", "gateway=g/h,gateway=i/j", "", "uid=x,gateway=g/h,gateway=i/j"},
		{"another list", "namespaces=a,b,gateway=a/b", "namespaces=c,d", "", "namespaces=c,d,gateway=a/b"},
		{"removed", "gateway=a/b,namespaces=a,b,namespace=a:c,namespace=b:d", "", "namespaces namespace", "gateway=a/b"},
		{"removed that is not there", "gateway=a/b", "", "uid", "gateway=a/b"},
		{"both", "gateway=a/b,uid=x", "records=r", "uid", "gateway=a/b,records=r"},
	} {
		parse := func(text string) Keys {
			if text == "" {
				return nil
			}
			return ParseKeys(text)
		}
		got := parse(test.before).changed(parse(test.set), strings.Fields(test.remove))
		if text := strings.TrimPrefix(got.String(), ","); text != test.want {
			t.Errorf("%s: got %s, want %s", test.name, text, test.want)
		}
		if again := got.changed(parse(test.set), strings.Fields(test.remove)); again.String() != got.String() {
			t.Errorf("%s: the second time it is %s", test.name, again)
		}
	}
}

// What --remote has besides keys is of the Deployment: its path is not kept, nor is a context in it.
func TestKeysOfTheDeployment(t *testing.T) {
	for existing, want := range map[string]string{
		"":                                    "",
		"paris=/x":                            "",
		"paris=/x,context=c,gateway=a/b":      ",gateway=a/b",
		"paris=/x,namespaces=a,b,gateway=a/b": ",gateway=a/b,namespaces=a,b",
	} {
		d := Daemon{Args: []string{"--remote=berlin=/y,uid=z"}}
		if existing != "" {
			d.Args = append(d.Args, "--remote", existing)
		}
		keys, err := Request{Name: "paris"}.keys(Local{Daemon: d})
		if err != nil || keys.String() != want {
			t.Errorf("%s: got %s, %v, want %s", existing, keys, err, want)
		}
	}
}

func TestArguments(t *testing.T) {
	var r Request
	if err := r.ParseArguments([]string{"paris", "gateway=a/b,namespaces=a,b", "gateway-port-", "gateway=c/d", "uid-"}); err != nil {
		t.Fatal(err)
	}
	if r.Name != "paris" || r.Set.String() != ",gateway=a/b,namespaces=a,b,gateway=c/d" || strings.Join(r.Remove, " ") != "gateway-port uid" {
		t.Errorf("got %+v", r)
	}
	for _, test := range []struct {
		args string
		want []string
	}{
		{"", []string{"no remote name"}},
		{"gateway=a/b", []string{"no remote name"}},
		{"Paris", []string{`name "Paris" is not a DNS label`}},
		{"paris berlin", []string{"berlin: the remote name is already paris"}},
		{"paris gatway=a/b", []string{`unknown key "gatway"`}},
		{"paris gatway-", []string{`gatway-: key "gatway" cannot be removed`}},
		{"paris uid=x uid-", []string{"uid-: the same key is set"}},
		{"paris gateway=gateway", []string{`gateway "gateway" is not NAMESPACE/NAME`}},
		{"paris gateway=a/b,namespaces=a,B", []string{`namespaces= contains "B"`}},
		{"paris context=x", []string{"context=: not supported by link"}},
		{"paris name={cluster}", []string{"name="}},
		{"paris uid=x uid=y records=/", []string{"uid= is set twice: remove one", "records=/ is not"}},
	} {
		err := new(Request).ParseArguments(strings.Fields(test.args))
		if err == nil {
			t.Errorf("%s: no error", test.args)
			continue
		}
		got := strings.Split(err.Error(), "\n")
		if len(got) != len(test.want) {
			t.Errorf("%s: %v, want %q", test.args, err, test.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], test.want[i]) {
				t.Errorf("%s: %q, want %q", test.args, got[i], test.want[i])
			}
		}
	}
}
