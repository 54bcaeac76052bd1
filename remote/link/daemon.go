package link

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// DefaultName is what the shipped manifests call the daemon: its namespace, its Deployment, its container and its
// ServiceAccount.
const DefaultName = "service-mirror"

// Daemon is the local cluster's Deployment, as far as a link concerns it.
type Daemon struct {
	Namespace, Name string
	Container       string
	Command, Args   []string
	Account         string
	Pods            map[string]string // labels of its pods
	Selector        *metav1.LabelSelector
	Earlier         string // Secret with the kubeconfigs of links by earlier versions, which is mounted; empty: there is none
	Replicas        int32
	version         string
}

// newDaemon is the Deployment as shipped, before it is applied.
func newDaemon(namespace, name string) Daemon {
	own := map[string]string{"app.kubernetes.io/name": DefaultName}
	return Daemon{
		Namespace: namespace, Name: name, Container: DefaultName, Account: DefaultName, Pods: own,
		Selector: &metav1.LabelSelector{MatchLabels: own}, Replicas: 1, Command: []string{DefaultName, "--remotes-from=" + namespace},
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
	all.Earlier = earlier(pod.Volumes)
	return all, nil
}

// earlier is the Secret with the kubeconfigs of links by earlier versions, by the shipped names of one of them.
func earlier(volumes []corev1.Volume) string {
	for _, v := range volumes {
		if v.Secret != nil && (v.Name == "remotes" || v.Secret.SecretName == "service-mirror-remotes") {
			return v.Secret.SecretName
		}
	}
	return ""
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

// remotesFrom is the namespace whose Secrets are remotes; empty: the daemon reads none.
func (d Daemon) remotesFrom() string {
	values := flag(d.words(), "remotes-from")
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// on tells whether a flag that is true or false is set: the last one counts.
func (d Daemon) on(name string) (on bool) {
	for _, word := range d.words() {
		if value, found := strings.CutPrefix(word, "--"+name+"="); found {
			on, _ = strconv.ParseBool(value)
		} else if word == "--"+name {
			on = true
		}
	}
	return on
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

// without is the arguments without the remote, in either form: one word or two.
func (d Daemon) without(name string) (all []string) {
	is := func(value string) bool { return strings.HasPrefix(value, name+"=") }
	for i := 0; i < len(d.Args); i++ {
		value, single := strings.CutPrefix(d.Args[i], "--remote=")
		switch {
		case single && is(value):
		case d.Args[i] == "--remote" && i+1 < len(d.Args) && is(d.Args[i+1]):
			i++
		default:
			all = append(all, d.Args[i])
		}
	}
	return all
}

// patch is a strategic merge patch for other arguments; nil: there is nothing to change.
func (d Daemon) patch(args []string) map[string]any {
	if slices.Equal(args, d.Args) {
		return nil
	}
	container := map[string]any{"name": d.Container, "args": args}
	if len(args) == 0 {
		container["args"] = nil
	}
	pod := map[string]any{"containers": []any{container}}
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
