package quickstart

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// kind is what kind and Docker do for deploy/kind.sh. Its clusters are real control planes; their nodes are the tests'.
type kind struct {
	*env
	mu       sync.Mutex
	clusters map[string]*harness.Cluster
	images   map[string]*registry
	noDaemon bool // Docker has none
}

// newKind puts programs kind and docker first, which pass on their arguments.
func newKind(e *env) *kind {
	e.Helper()
	k := &kind{env: e, clusters: map[string]*harness.Cluster{}, images: map[string]*registry{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		out, err := k.command(strings.Split(strings.TrimSpace(string(body)), "\n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, out)
	}))
	e.Cleanup(server.Close)
	e.Cleanup(func() {
		for _, c := range k.clusters {
			c.Stop()
		}
	})
	dir := e.TempDir()
	for _, name := range []string{"kind", "docker"} {
		script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' %s \"$@\" | curl -sS --fail-with-body --data-binary @- %s\n", name, server.URL)
		e.must(os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	e.first(dir)
	return k
}

// command does what a command is for, and returns what it prints.
func (k *kind) command(words []string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	option := func(name string) string { return words[slices.Index(words, name)+1] }
	switch strings.Join(words[:min(len(words), 3)], " ") {
	case "kind get clusters":
		return strings.Join(slices.Sorted(maps.Keys(k.clusters)), "\n") + "\n", nil
	case "kind create cluster":
		return "", k.create(option("--name"), option("--kubeconfig"))
	case "kind export kubeconfig":
		return "", k.kubeconfig(option("--name"), option("--kubeconfig"))
	case "kind load image-archive":
		return "", k.images[option("--name")].load(words[3])
	case "kind delete cluster":
		if c := k.clusters[option("--name")]; c != nil {
			c.Stop()
			delete(k.clusters, option("--name"))
		}
		return "", nil
	case "docker info":
		if k.noDaemon {
			return "", errors.New("Cannot connect to the Docker daemon")
		}
		return "", nil
	case "docker inspect --format":
		return map[string]string{"service-mirror-london-control-plane": londonNode, "service-mirror-paris-control-plane": parisNode}[words[4]] + " \n", nil
	}
	return "", fmt.Errorf("unknown here: %q", words)
}

func (k *kind) create(name, kubeconfig string) error {
	address := map[string]string{"service-mirror-london": londonNode, "service-mirror-paris": parisNode}[name]
	c, err := harness.StartCluster(harness.ClusterOptions{
		Name: "kind-" + name, Dir: filepath.Join(k.TempDir(), name), Args: []string{"--bind-address", address, "--port", "6443"},
	})
	if err != nil {
		return err
	}
	k.clusters[name], k.images[name] = c, newRegistry()
	if address == londonNode {
		k.london = c
	} else {
		k.paris = c
	}
	newNode(k.T, c, k.images[name]).start()
	return k.kubeconfig(name, kubeconfig)
}

// kubeconfig adds a cluster's to a file.
func (k *kind) kubeconfig(name, to string) error {
	cmd := exec.Command(harness.Program("kubectl"), "config", "view", "--flatten", "--raw")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+to+":"+k.clusters[name].Kubeconfig)
	merged, err := cmd.Output()
	if err != nil {
		return err
	}
	return os.WriteFile(to, merged, 0o600)
}

// aliased tells whether a request is for a Service that has an alias, which is all that nginx routes.
func (k *kind) aliased(r *http.Request) bool {
	k.mu.Lock()
	paris := k.paris
	k.mu.Unlock()
	aliases, err := paris.CoreV1().Services("gateway-exports").List(r.Context(), metav1.ListOptions{})
	return err == nil && slices.ContainsFunc(aliases.Items, func(alias corev1.Service) bool {
		namespace, name, _ := strings.Cut(alias.Name, "--")
		return hostOf(r) == name+"-paris."+namespace+".svc.cluster.local"
	})
}

// deploy/kind.sh ends with a mirror that is verified. Run again it changes nothing, and it deletes what it has created. kind
// and Docker are not here: see kind.
func TestKind(t *testing.T) {
	e := newEnv(t)
	k := newKind(e)
	k.noDaemon = true
	if out, err := e.run("deploy/kind.sh"); err == nil || !strings.Contains(out, "start Docker") {
		t.Errorf("without a daemon of Docker: %v\n%s", err, out)
	}
	k.noDaemon = false
	e.serve(k.aliased)
	out, err := e.run("deploy/kind.sh")
	e.must(err)
	if !strings.Contains(out, "Linked and verified") || !strings.Contains(out, "run call --rm") {
		t.Error("it does not say that the mirror is verified, and how to call it")
	}
	e.mirrored(parisNode + ":80")
	before := k.generations()
	out, err = e.run("deploy/kind.sh")
	e.must(err)
	if after := k.generations(); after != before || !strings.Contains(out, "Linked and verified") {
		t.Errorf("run again, it changes\n%s\nto\n%s", before, after)
	}
	_, err = e.run("deploy/kind.sh --delete")
	e.must(err)
	if len(k.clusters) > 0 {
		t.Errorf("after --delete there are %v", k.clusters)
	}
	none := t.TempDir()
	dirname, err := exec.LookPath("dirname")
	e.must(errors.Join(err, os.Symlink(dirname, filepath.Join(none, "dirname"))))
	if out, err := e.run("PATH=" + none + " deploy/kind.sh"); err == nil || !strings.Contains(out, "docker is not installed: see https://") {
		t.Errorf("without Docker: %v\n%s", err, out)
	}
}

// generations are those of all Deployments, which change with their specs.
func (k *kind) generations() string {
	k.Helper()
	all := ""
	for _, c := range []*harness.Cluster{k.london, k.paris} {
		all += k.kubectl(c, "get", "deployments", "-A", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.generation}{"\n"}{end}`)
	}
	return all
}
