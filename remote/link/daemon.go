package link

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// What the shipped manifests call it.
const (
	DefaultName  = "service-mirror" // of the namespace, the Deployment, its container and its ServiceAccount
	defaultMount = "/etc/service-mirror/remotes"
	defaultStore = "service-mirror-remotes"
	volumeName   = "remotes"
)

// Daemon is the local cluster's Deployment, as far as a link concerns it.
type Daemon struct {
	Namespace, Name string
	Container       string
	Command, Args   []string
	Account         string
	Pods            map[string]string // labels of its pods
	Selector        *metav1.LabelSelector
	Secret, Mount   string // which has the kubeconfigs, and where they are mounted
	Mounted         bool
	Replicas        int32
	version         string
}

// newDaemon is the Deployment as shipped, before it is applied.
func newDaemon(namespace, name string) Daemon {
	own := map[string]string{"app.kubernetes.io/name": DefaultName}
	return Daemon{
		Namespace: namespace, Name: name, Container: DefaultName, Account: DefaultName, Pods: own,
		Selector: &metav1.LabelSelector{MatchLabels: own}, Secret: defaultStore, Mount: defaultMount, Mounted: true, Replicas: 1,
	}
}

// readDaemon is what a Deployment says.
func readDaemon(d *appsv1.Deployment) (Daemon, error) {
	pod := d.Spec.Template.Spec
	i := slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == DefaultName })
	if i < 0 && len(pod.Containers) == 1 {
		i = 0
	}
	if i < 0 {
		return Daemon{}, fmt.Errorf("Deployment %s/%s has no container %s: use --namespace and --deployment to select the daemon", d.Namespace, d.Name, DefaultName)
	}
	c := pod.Containers[i]
	all := newDaemon(d.Namespace, d.Name)
	all.Container, all.Command, all.Args = c.Name, c.Command, c.Args
	all.Account, all.version = pod.ServiceAccountName, d.ResourceVersion
	if all.Account == "" {
		all.Account = "default"
	}
	all.Pods, all.Selector = d.Spec.Template.Labels, d.Spec.Selector
	if d.Spec.Replicas != nil {
		all.Replicas = *d.Spec.Replicas
	}
	all.Secret, all.Mount, all.Mounted = store(pod.Volumes, c.VolumeMounts)
	return all, nil
}

// store is the Secret that has the kubeconfigs, and where the container has it, by the shipped names of one of them.
func store(volumes []corev1.Volume, mounts []corev1.VolumeMount) (secret, mount string, mounted bool) {
	secret, mount = defaultStore, defaultMount
	for _, v := range volumes {
		if v.Secret == nil || v.Name != volumeName && v.Secret.SecretName != defaultStore {
			continue
		}
		secret = v.Secret.SecretName
		for _, m := range mounts {
			if m.Name == v.Name {
				return secret, strings.TrimSuffix(m.MountPath, "/"), true
			}
		}
	}
	return secret, mount, false
}

// words are the command line of the daemon.
func (d Daemon) words() []string { return slices.Concat(d.Command, d.Args) }

// flag is the values of a flag in a command line.
func flag(words []string, name string) (values []string) {
	for i, word := range words {
		if value, found := strings.CutPrefix(word, "--"+name+"="); found {
			values = append(values, value)
		} else if word == "--"+name && i+1 < len(words) {
			values = append(values, words[i+1])
		}
	}
	return values
}

// on tells whether a flag without a value is set.
func (d Daemon) on(name string) bool {
	return slices.Contains(d.words(), "--"+name) || slices.Contains(d.words(), "--"+name+"=true")
}

// remoteIn is the --remote of a name in a command line; empty: there is none.
func remoteIn(words []string, name string) string {
	for _, value := range flag(words, "remote") {
		if strings.HasPrefix(value, name+"=") {
			return value
		}
	}
	return ""
}

// remote is the --remote of a name; empty: there is none.
func (d Daemon) remote(name string) string { return remoteIn(d.words(), name) }

// inCommand tells that it is in the command, which is of the manifests, and not in the arguments, which are of links.
func (d Daemon) inCommand(name string) bool { return remoteIn(d.Command, name) != "" }

// with is the arguments with --remote=wanted, in place of the remote's.
func (d Daemon) with(name, wanted string) []string {
	if d.inCommand(name) {
		return d.Args
	}
	if remoteIn(d.Args, name) == "" {
		return append(slices.Clone(d.Args), "--remote="+wanted)
	}
	return replaced(d.Args, name, wanted)
}

// without is the arguments without the remote.
func (d Daemon) without(name string) []string { return replaced(d.Args, name, "") }

// replaced is a command line with another --remote of a name, in the form that it has: one word or two. More of that
// name are left out, and with nothing wanted, all are.
func replaced(words []string, name, wanted string) (all []string) {
	is := func(value string) bool { return strings.HasPrefix(value, name+"=") }
	for i := 0; i < len(words); i++ {
		value, single := strings.CutPrefix(words[i], "--remote=")
		double := words[i] == "--remote" && i+1 < len(words) && is(words[i+1])
		switch {
		case single && is(value):
			if wanted != "" {
				all = append(all, "--remote="+wanted)
			}
			wanted = ""
		case double:
			if wanted != "" {
				all = append(all, "--remote", wanted)
			}
			i, wanted = i+1, ""
		default:
			all = append(all, words[i])
		}
	}
	return all
}

// change is what is to become of the Deployment.
type change struct {
	args   []string
	mounts bool // the Secret, if it is not mounted yet
}

// patch is a strategic merge patch of a change; nil: there is nothing to change.
func (d Daemon) patch(c change) map[string]any {
	container := map[string]any{"name": d.Container}
	pod := map[string]any{}
	if !slices.Equal(c.args, d.Args) {
		container["args"] = c.args
		if len(c.args) == 0 {
			container["args"] = nil
		}
	}
	if c.mounts && !d.Mounted {
		container["volumeMounts"] = []any{map[string]any{"name": volumeName, "mountPath": d.Mount, "readOnly": true}}
		pod["volumes"] = []any{map[string]any{"name": volumeName, "secret": map[string]any{"secretName": d.Secret, "defaultMode": 0o440, "optional": true}}}
	}
	if len(container) == 1 && len(pod) == 0 {
		return nil
	}
	pod["containers"] = []any{container}
	return map[string]any{"spec": map[string]any{"template": map[string]any{"spec": pod}}}
}

// rule is how mirrors of the remote are called, for the admission policy: by the remote's keys, else by the flags for
// all remotes.
func (d Daemon) rule(keys Keys) string {
	var rule []string
	for _, key := range keys {
		if key.Name == "name" || key.Name == "namespace" {
			rule = append(rule, key.Name+"="+key.Value)
		}
	}
	if len(keys.values("name")) == 0 {
		for _, template := range flag(d.words(), "name-template") {
			rule = append(rule, "name="+template)
		}
	}
	if d.on("allow-names") {
		rule = append(rule, "allow-names")
	}
	return strings.Join(rule, ",")
}

// selectedBy tells whether a selector selects the daemon's pods.
func (d Daemon) selectedBy(selector *metav1.LabelSelector) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(d.Pods))
}

// selector is the daemon's, for what is to select its pods.
func (d Daemon) selector() metav1.LabelSelector {
	if d.Selector == nil {
		return metav1.LabelSelector{MatchLabels: maps.Clone(d.Pods)}
	}
	return *d.Selector.DeepCopy()
}
