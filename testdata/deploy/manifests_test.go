package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// The namespace demands Pod Security's strictest profile, and the Pod has it: whatever of it
// is taken away, the API server refuses the Pod.
func TestPodSecurity(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	if _, err := e.podObject(func(*corev1.Pod) {}); err != nil {
		t.Errorf("the Pod as it is shipped: %v", err)
	}
	yes := true
	for name, change := range map[string]func(*corev1.Pod){
		"may be root":         func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsNonRoot, p.Spec.SecurityContext.RunAsUser = nil, nil },
		"no seccomp":          func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil },
		"capabilities":        func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.Capabilities = nil },
		"may gain privileges": func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = &yes },
	} {
		if _, err := e.podObject(change); !apierrors.IsForbidden(err) {
			t.Errorf("%s: want it refused, got %v", name, err)
		}
	}
	security := e.container().SecurityContext
	if security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
		t.Error("the root file system can be written to")
	}
	resources := e.container().Resources
	if resources.Requests.Cpu().IsZero() || resources.Requests.Memory().IsZero() || resources.Limits.Memory().IsZero() {
		t.Errorf("requests and limits are %v", resources)
	}
}

// What selects Pods selects the Deployment's, and there are two of these.
func TestSelectors(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	deployment, err := london.AppsV1().Deployments(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	if *deployment.Spec.Replicas != 2 {
		t.Errorf("there are %d replicas", *deployment.Spec.Replicas)
	}
	budget, err := london.PolicyV1().PodDisruptionBudgets(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	network, err := london.NetworkingV1().NetworkPolicies(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	pods := labels.Set(deployment.Spec.Template.Labels)
	selectors := map[string]*metav1.LabelSelector{"budget": budget.Spec.Selector, "network policy": &network.Spec.PodSelector}
	for _, spread := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
		selectors["spread over "+spread.TopologyKey] = spread.LabelSelector
	}
	if len(selectors) != 4 {
		t.Errorf("there are %v", selectors)
	}
	for name, selector := range selectors {
		if parsed, err := metav1.LabelSelectorAsSelector(selector); err != nil || parsed.Empty() || !parsed.Matches(pods) {
			t.Errorf("%s selects %v (%v), the Pods have %v", name, selector, err, pods)
		}
	}
	for _, port := range []int{443, 6443, 53} {
		if !slices.ContainsFunc(network.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntValue() == port })
		}) {
			t.Errorf("the daemon is not let out to port %d", port)
		}
	}
}

// Every file in these folders belongs to a kustomization, and every kustomization that is
// alone is one that an API server takes.
func TestEveryManifest(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local")) // the namespace that the others' objects are in
	used, all := map[string]bool{}, []string{}
	alone := 0
	for _, side := range []string{"local", "remote", "publish"} {
		e.must(filepath.WalkDir(shipped(side), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			if entry.Name() != "kustomization.yaml" {
				all = append(all, path)
				return nil
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var file struct {
				Kind      string
				Resources []string
			}
			if err := yaml.Unmarshal(content, &file); err != nil {
				return err
			}
			for _, resource := range file.Resources {
				used[filepath.Join(filepath.Dir(path), resource)] = true
			}
			if file.Kind == "Kustomization" {
				alone++
				_, err = london.Kubectl(e.ctx, "apply", "--dry-run=server", "-k", filepath.Dir(path))
			}
			return err
		}))
	}
	for _, path := range all {
		if !used[path] {
			t.Errorf("%s is in no kustomization", path)
		}
	}
	if alone != 10 {
		t.Errorf("%d kustomizations stand alone, want local, publish, remote and its seven parts", alone)
	}
	for _, component := range []string{"create-namespaces", "endpointslices"} {
		_, err := london.Kubectl(e.ctx, "apply", "--dry-run=server", "-k", e.localWith(component))
		e.must(err)
	}
}
