// Package link makes a remote cluster known to the local one, and forgets it again.
//
// A link is a ServiceAccount in the remote cluster that can read what is exported, and in the local cluster an annotation
// that permits mirrors of the remote, and a Secret with its credentials and keys, which the daemon watches
// (--remotes-from). The way of one link:
//
//	keys.go        the KEY=VALUE of --remote: those of before, with the changes
//	read.go        Local and Remote, what is read of either cluster
//	decide.go      Decide turns these into a Plan, which says what is written; all that can be refused is refused here
//	grants.go      ... in the remote cluster: who may read what
//	secret.go      ... in the Secret
//	network.go     ... in the NetworkPolicy: the ports that the daemon needs
//	kubeconfig.go  the kubeconfig
//	credentials.go ... and its token, which is tried
//	daemon.go      the Deployment, and the --remote that an earlier version's link added to it
//	cluster.go     either cluster, found as kubectl does
//	linker.go      how objects are read and written, and what is said of it
//	link.go        Link applies the grants, tries the credentials, and then writes in the local cluster
//	migrate.go     ... and moves the link of an earlier version
//	rollout.go     it waits until the daemon's pods are ready
//	connected.go   ... and until the daemon has connected to the remote
//	verifying.go   and sends requests to the mirrors, from the daemon's pod
//	unlink.go      Unlink takes it all out of the local cluster again
//	print.go       the manifests of either side, in place of all this
//
// decide.go and what it calls are pure: they import no client, clock, logger or context.
package link

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Request is what someone wants to be linked.
type Request struct {
	Name   string        // of the remote cluster: a DNS label
	Set    Keys          // keys that change; others stay as they are
	Remove []string      // names of keys that are removed
	Server string        // URL of the remote's API server as pods reach it; empty: that of the kubeconfig
	CA     []byte        // of that server, PEM; empty: that of the kubeconfig
	Reader string        // namespace of the account in the remote cluster
	Wait   time.Duration // until the daemon has connected to the remote; 0: no requests are sent
	// Migrate moves what an earlier version's link added to the Deployment into the Secret.
	Migrate bool
}

// Result is what was done.
type Result struct {
	Name     string    `json:"name"`
	Local    string    `json:"local"`            // context of the local cluster
	Remote   string    `json:"remote,omitempty"` // context of the remote cluster
	Server   string    `json:"server,omitempty"`
	Secret   string    `json:"secret,omitempty"` // namespace/name of the one that links the remote
	Keys     []string  `json:"keys,omitempty"`   // KEY=VALUE, as in --remote
	Changes  []Change  `json:"changes"`
	Notes    []string  `json:"notes"`
	Linked   bool      `json:"linked"`
	Verified *Verified `json:"verification,omitempty"`

	RemotesFrom string `json:"-"` // namespace of the Secrets that link other remotes
}

func newResult(name, local string) Result {
	return Result{Name: name, Local: local, Changes: []Change{}, Notes: []string{}}
}

// Change is what became of an object.
type Change struct {
	Cluster   string `json:"cluster"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Change    string `json:"change"`
}

// Verified is whether requests to the mirrors of the remote arrive.
type Verified struct {
	State   State           `json:"state"`
	Reason  string          `json:"reason,omitempty"` // why it is not known
	Command string          `json:"command"`          // that verifies again
	Results json.RawMessage `json:"results,omitempty"`
	Exports bool            `json:"-"` // the remote is known to export Services
}

// State is what is known of requests to mirrors.
type State string

// The states.
const (
	Reached    State = "reached"     // all arrive
	NotReached State = "not reached" // some do not
	Unknown    State = "not verified"
)

// Link links the remote cluster. The result is what was done until it ended, with an error or without.
func (l *Linker) Link(ctx context.Context, request Request) (Result, error) {
	result := &l.result
	l.result = newResult(request.Name, l.Local.Name)
	result.Remote = l.Remote.Name
	local, err := l.readLocal(ctx, request.Name)
	if err != nil {
		return *result, err
	}
	keys, err := request.keys(local)
	if err != nil {
		return *result, err
	}
	remote, err := l.readRemote(ctx, keys, local.Daemon, request)
	if err != nil {
		return *result, err
	}
	plan, err := Decide(request, keys, local, remote)
	if err != nil {
		return *result, err
	}
	result.Server, result.Secret, result.Keys = plan.Server, plan.Secret.String(), plan.Keys.list()
	for _, text := range remote.Notes {
		l.remark(l.Remote, text)
	}
	if err := l.grant(ctx, plan); err != nil {
		return *result, err
	}
	credentials, err := l.credentials(ctx, request, remote, plan)
	if err != nil {
		return *result, err
	}
	if err := l.write(ctx, plan, local, credentials); err != nil {
		return *result, err
	}
	result.Linked = true
	if err := l.migrate(ctx, plan, local); err != nil {
		return *result, err
	}
	err = l.verify(ctx, request)
	return *result, err
}

// grant creates the account that reads in the remote cluster.
func (l *Linker) grant(ctx context.Context, plan Plan) error {
	l.step(l.Remote, "creating a ServiceAccount that can read %s", plan.Reads)
	for _, object := range plan.Grants {
		if err := l.apply(ctx, l.Remote, manager, object); err != nil {
			return err
		}
	}
	for _, text := range plan.Notes {
		l.note(l.Remote, "%s", text)
	}
	return nil
}

// manager is the field manager of what is written. A remote has one of its own in what several share.
const manager = "service-mirror-link"

// write makes the remote known to the daemon. The Secret comes last: the daemon acts on it at once.
func (l *Linker) write(ctx context.Context, plan Plan, local Local, credentials []byte) error {
	d := local.Daemon
	if err := l.allow(ctx, plan, local); err != nil {
		return err
	}
	l.step(l.Local, "setting annotation %s of ServiceAccount %s/%s to %q", annotation(plan.Name), d.Namespace, d.Account, plan.Rule)
	if plan.Moves {
		l.note(l.Local, "the old mirror names are allowed, too, until you run link again: old mirrors are kept until the renamed ones are complete")
	}
	if err := l.annotate(ctx, d, plan.Name, &plan.Rule); err != nil {
		return err
	}
	l.step(l.Local, "storing the kubeconfig and the keys %q in Secret %s", strings.TrimPrefix(plan.Keys.String(), ","), plan.Secret)
	if local.Secret != nil {
		if before := serverOf(local.Secret.Data[kubeconfigKey]); before != "" && before != plan.Server {
			l.note(l.Local, "the server was %s before", before)
		}
	}
	for _, other := range local.Others {
		l.note(l.Local, "Secret %s/%s also has the label of this remote, and is ignored because it is newer: delete it", plan.Secret.Namespace, other)
	}
	return l.store(ctx, plan.secret(credentials), local.Secret)
}

// store writes the Secret in one step: the daemon must not see keys of before beside those of now.
func (l *Linker) store(ctx context.Context, wanted, live *corev1.Secret) error {
	if live == nil || len(extra(live, wanted)) == 0 {
		return l.apply(ctx, l.Local, manager+"-"+wanted.Labels[remoteLabel], wanted)
	}
	data := map[string]any{}
	for _, name := range extra(live, wanted) {
		data[name] = nil
	}
	for name, content := range wanted.Data {
		data[name] = base64.StdEncoding.EncodeToString(content)
	}
	patch := map[string]any{"metadata": map[string]any{"resourceVersion": live.ResourceVersion}, "data": data}
	return l.patch(ctx, l.Local, secrets, wanted.Namespace, wanted.Name, patch)
}

// allow has the NetworkPolicy that the link needs, and removes one that it needs no more.
func (l *Linker) allow(ctx context.Context, plan Plan, local Local) error {
	if plan.Egress != nil {
		l.step(l.Local, "creating a NetworkPolicy that allows the daemon to connect to ports %s", portsOf(plan.Egress))
		return l.apply(ctx, l.Local, manager, plan.Egress)
	}
	if local.HasEgress {
		return l.delete(ctx, l.Local, networkPolicies, local.Daemon.Namespace, egressName(plan.Name))
	}
	return nil
}

// annotate sets the annotation that permits mirrors of a remote; nil removes it.
func (l *Linker) annotate(ctx context.Context, d Daemon, name string, rule *string) error {
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]any{annotation(name): rule}}}
	return l.patch(ctx, l.Local, serviceAccounts, d.Namespace, d.Account, patch)
}

// annotation is the one of the daemon's ServiceAccount that permits mirrors of a remote.
func annotation(name string) string { return "remote.service-mirror.io/" + name }

// fileOf is the key of a remote's kubeconfig in the Secret of earlier versions.
func fileOf(name string) string { return name + ".kubeconfig" }

// Resources that are read and written by name.
var (
	serviceAccounts = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	secrets         = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	namespaces      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	services        = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	configMaps      = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	endpointSlices  = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	pods            = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	deployments     = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	networkPolicies = schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
	clusterBindings = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}
)

// resourceOf is the resource of an object that this package makes.
func resourceOf(kind schema.GroupVersionKind) schema.GroupVersionResource {
	plural := map[string]string{
		"Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "Secret": "secrets", "NetworkPolicy": "networkpolicies",
		"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "Role": "roles", "RoleBinding": "rolebindings",
		"Deployment": "deployments",
	}[kind.Kind]
	return kind.GroupVersion().WithResource(plural)
}
