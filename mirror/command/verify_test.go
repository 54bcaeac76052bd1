package command

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestVerifyArguments(t *testing.T) {
	paris := []string{"--remote", "paris=a,gateway=ingress/gateway", "--workers=5"}
	for _, test := range []struct {
		args    []string
		mirrors []string
		remote  string
		json    bool
	}{
		{[]string{"default/bar-paris", "web-paris"}, []string{"default/bar-paris", "web-paris"}, "", false},
		{[]string{"--remote", "paris"}, []string{}, "paris", false},
		{[]string{"bar-paris", "--remote=paris", "-o", "json"}, []string{"bar-paris"}, "paris", true},
		{[]string{"--all", "--output=json"}, []string{}, "", true},
	} {
		v, err := parseVerify(append(test.args, paris...))
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		want := test.mirrors
		if got := v.wanted; !reflect.DeepEqual(got.Mirrors, want) || got.Remote != test.remote || got.JSON != test.json || got.From == "" {
			t.Errorf("%q: got %+v", test.args, got)
		}
		if len(v.remotes) != 1 || v.remotes[0].Name != "paris" || v.mirror.Workers != 5 {
			t.Errorf("%q: the daemon's flags are not read: %+v", test.args, v.config)
		}
	}
}

func TestVerifyMistakes(t *testing.T) {
	paris := []string{"--remote", "paris=a,gateway=ingress/gateway"}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"verify: nothing selected"}},
		{[]string{"--all", "bar-paris"}, []string{"--all: mirrors or a remote are selected"}},
		{[]string{"--all", "--remote", "paris"}, []string{"--all: mirrors or a remote are selected"}},
		{[]string{"--remote", "paris", "--remote", "berlin"}, []string{"--remote berlin: only one remote can be selected"}},
		{[]string{"--all", "-o", "yaml"}, []string{`--output: unknown format "yaml"`}},
		{[]string{"--all", "--prune", "x"}, []string{"unknown flag: --prune"}},
		{[]string{"--all", "--ca-file=/does/not/exist", "--verify=1s"}, []string{"--verify: 1s is less", "--ca-file: open /does/not/exist"}},
	} {
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), append(append([]string{"verify"}, test.args...), paris...), &stdout, &stderr); code != 2 || stdout.Len() > 0 {
			t.Errorf("%q: exit code %d, stdout %s", test.args, code, &stdout)
		}
		lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
		if len(lines) != len(test.want)+1 {
			t.Fatalf("%q: stderr %s", test.args, &stderr)
		}
		for i, want := range test.want {
			if !strings.HasPrefix(lines[i], "service-mirror: "+want) {
				t.Errorf("%q: got %q, want %q", test.args, lines[i], want)
			}
		}
	}
}

func TestVerifyOfAnUnknownRemote(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"verify", "--remote", "rome", "--remote", "paris=a,gateway=ingress/gateway"}
	if code := Run(t.Context(), args, &stdout, &stderr); code != 1 || !strings.HasPrefix(stderr.String(), "service-mirror: --remote rome: the remote is not configured") {
		t.Errorf("exit code %d, stderr %s", code, &stderr)
	}
}

// Each command has a help of its own, and the daemon's names them all.
func TestHelpOfCommands(t *testing.T) {
	var daemon, stderr bytes.Buffer
	Run(t.Context(), []string{"--help"}, &daemon, &stderr)
	for _, c := range commands {
		if !strings.Contains(daemon.String(), "  service-mirror "+c.name) {
			t.Errorf("--help does not have %s", c.name)
		}
		var stdout bytes.Buffer
		if code := Run(t.Context(), []string{c.name, "--help"}, &stdout, &stderr); code != 0 || !strings.HasPrefix(stdout.String(), "service-mirror "+c.name) {
			t.Errorf("%s --help: exit code %d, %.200s", c.name, code, &stdout)
		}
		for line := range strings.Lines(stdout.String()) {
			if len([]rune(line)) > 101 {
				t.Errorf("this line is long: %s", line)
			}
		}
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr: %s", &stderr)
	}
}
