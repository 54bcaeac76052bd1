package quickstart

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"service-mirror.io/service-mirror/testdata/harness"
)

// demo runs the demo with programs that are built already, and returns what it prints.
func demo(t *testing.T, more ...string) (string, error) {
	t.Helper()
	build, err := filepath.Abs(harness.BuildDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "../demo.sh")
	cmd.Env = append(variables(), append([]string{"BUILD=" + build, "VERSION=" + os.Getenv("VERSION"), "KUBEBUILDER_ASSETS=", "KEEP=", "REQUEST="}, more...)...)
	out, err := harness.Run(cmd)
	if err != nil {
		t.Errorf("%v", err)
	}
	return out, err
}

// inOrder checks that a text has these words, one after another.
func inOrder(t *testing.T, text string, words ...string) {
	t.Helper()
	rest := text
	for _, word := range words {
		_, after, found := strings.Cut(rest, word)
		if !found {
			t.Errorf("%q is missing, or not after those before it, in\n%s", word, text)
			return
		}
		rest = after
	}
}

// The demo shows a request first, and then how the mirror comes about.
func TestDemo(t *testing.T) {
	out, _ := demo(t)
	inOrder(t, out, "Building what is shown", "foo$ curl", "bar of paris", "The hops that it took", "Two clusters, London and Paris",
		"bar-paris", "bar moves to port 81", "it is recreated, with the same ClusterIP", "no longer exports bar", "(nothing)", "Done")
}

// Without the request, control planes of a folder as setup-envtest has it are enough: here they are linked from the modules
// that testdata/cluster has compiled.
func TestDemoWithAssets(t *testing.T) {
	assets := t.TempDir()
	run := func(words ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", words...)
		cmd.Dir, cmd.Env = "../cluster", append(variables(), "GOWORK=off")
		out, err := harness.Run(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	// Without these they do not know their version, and kubectl reads none.
	const version = "k8s.io/component-base/version."
	release := run("list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	stamp := fmt.Sprintf("-s -w -X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=1 -X %[1]sgitMinor=%[3]s", version, release, strings.Split(release, ".")[1])
	for name, of := range map[string]string{"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver", "etcd": "go.etcd.io/etcd/server/v3"} {
		run("build", "-buildvcs=false", "-ldflags="+stamp, "-o", filepath.Join(assets, name), of)
	}
	if err := os.Symlink(harness.Program("kubectl"), filepath.Join(assets, "kubectl")); err != nil {
		t.Fatal(err)
	}
	out, _ := demo(t, "KUBEBUILDER_ASSETS="+assets, "REQUEST=no")
	inOrder(t, out, "Two clusters, London and Paris", "bar-paris", "bar moves to port 81", "it is recreated, with the same ClusterIP",
		"no longer exports bar", "(nothing)", "Done")
	if strings.Contains(out, "foo$") {
		t.Errorf("it shows a request:\n%s", out)
	}
}

// progress runs progress.sh for a program with a cache of compiled packages, and returns what it says.
func progress(t *testing.T, cache, program string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/program\n\ngo 1.26\n", "main.go": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("../progress.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), script, "program", filepath.Join(dir, "program"), ".", "-buildvcs=false")
	cmd.Dir, cmd.Env = dir, append(variables(), "GOWORK=off", "GOCACHE="+cache, "PROGRESS_INTERVAL=1")
	return harness.Run(cmd)
}

// A build says how many packages there are to compile, and how many of them are compiled.
func TestProgress(t *testing.T) {
	cache := t.TempDir()
	out, err := progress(t, cache, "package main\n\nimport \"errors\"\n\nfunc main() { println(errors.New(\"an error\").Error()) }\n")
	if err != nil {
		t.Fatal(err)
	}
	total := regexp.MustCompile(`(?m)^program: compiling (\d+) packages, `).FindStringSubmatch(out)
	if total == nil {
		t.Fatalf("it does not say how many packages there are:\n%s", out)
	}
	inOrder(t, out, "program: compiling ", "program: compiled ", "program: built, ")
	last := 0
	for _, line := range regexp.MustCompile(`(?m)^program: compiled (\d+) (?:of (\d+) )?packages, `).FindAllStringSubmatch(out, -1) {
		compiled, err := strconv.Atoi(line[1])
		if err != nil || compiled < last || line[2] != "" && line[2] != total[1] || line[2] == "" && line[1] != total[1] {
			t.Errorf("of %s packages it says %q after %d", total[1], line[0], last)
		}
		last = compiled
	}
	out, err = progress(t, cache, "package main\n\nfunc main() { unknown() }\n")
	if err == nil || !strings.Contains(out, "undefined: unknown") {
		t.Errorf("a program that is wrong: %v\n%s", err, out)
	}
}

// The scripts have nothing that shellcheck knows to be wrong.
func TestScripts(t *testing.T) {
	scripts := []string{
		"setup.sh", "../demo.sh", "../progress.sh", "../cluster/build.sh", "../traffic/setup.sh", "../traffic/demo.sh",
		"../../deploy/kind.sh", "../../deploy/image/overlay.sh",
	}
	if _, err := harness.Run(exec.Command("shellcheck", scripts...)); err != nil {
		t.Error(err)
	}
}
