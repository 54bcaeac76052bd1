package link

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// Local is what is read of the local cluster.
type Local struct {
	UID       types.UID
	Daemon    Daemon
	Secret    *corev1.Secret // that links the remote; nil: there is none
	Others    []string       // names of more Secrets with the remote's name, which the daemon ignores
	Earlier   bool           // the kubeconfig of a link by an earlier version exists
	Policies  []networkingv1.NetworkPolicy
	HasEgress bool    // a NetworkPolicy of this link is among them
	Permitted *string // the annotation that permits its mirrors; nil: there is none
}

// Remote is what is read of the remote cluster.
type Remote struct {
	UID      types.UID
	Endpoint Endpoint // by your kubeconfig
	Servers  []string // where its API server is, besides
	Possible string   // gateways that it could have, for who names none
	Ports    []int32  // TCP ports of the gateways
	Notes    []string
	ReadsAll bool // the account can read all Services, by an earlier link

	PortsUnknown bool // a gateway cannot be read, so Ports lacks its own
}

// Plan is what a link writes.
type Plan struct {
	Name     string
	Keys     Keys
	Secret   cache.ObjectName // that links it
	Server   string
	Endpoint Endpoint
	CAFrom   string // where the CA of the endpoint is from
	Reads    string // what the account can read, for people
	Grants   []runtime.Object
	Notes    []string
	Egress   *networkingv1.NetworkPolicy // nil: none is needed
	Rule     string                      // how mirrors are called, for the admission policy
	Moves    bool                        // ... by the rule of before, too
}

// Decide decides what a link writes. The error refuses it, before anything is written.
func Decide(request Request, keys Keys, local Local, remote Remote) (Plan, error) {
	d, name := local.Daemon, request.Name
	if local.UID == remote.UID {
		return Plan{}, errors.New("the local and the remote cluster are the same: use --context or --remote-context")
	}
	spec, err := keys.spec(name)
	if err != nil {
		return Plan{}, err
	}
	gateways := gatewaysOf(spec, d)
	if gateways[0].Service == (cache.ObjectName{}) && gateways[0].ReadsService() {
		return Plan{}, fmt.Errorf("%s: no gateway is set: add gateway=NAMESPACE/NAME of a LoadBalancer Service, or gateway=gateway-api:NAMESPACE/NAME of a Gateway. %s", name, remote.Possible)
	}
	for _, one := range gateways {
		if err := one.Validate(gateway.Filter{Domain: d.domain()}); err != nil {
			return Plan{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := linkable(request, d); err != nil {
		return Plan{}, err
	}
	plan := Plan{Name: name, Keys: keys, Secret: cache.NewObjectName(d.remotesFrom(), secretName(name))}
	if local.Secret != nil {
		plan.Secret.Name = local.Secret.Name
	}
	plan.Rule, plan.Moves = permitted(d.rule(keys), local.Permitted)
	plan.Endpoint, plan.CAFrom = endpoint(request, remote)
	plan.Server = plan.Endpoint.Server
	host, port, err := parseServer(plan.Server)
	if err != nil {
		return Plan{}, fmt.Errorf("the server URL %w", err)
	}
	if request.Server == "" && ownHost(host) {
		return Plan{}, fmt.Errorf("the server %s of %s in your kubeconfig is not reachable from pods in the local cluster: use --server https://HOST:PORT. %s", plan.Server, name, candidates(remote.Servers))
	}
	plan.Grants, plan.Reads = grantsFor(request.Reader, spec, gateways), readsOf(spec)
	if len(spec.Namespaces) > 0 && remote.ReadsAll {
		plan.Notes = append(plan.Notes, fmt.Sprintf("ServiceAccount %s/%s can read Services in all namespaces because of an earlier link: remove it from the subjects of clusterrolebinding/%[2]s, or delete the binding if it has no other subjects", request.Reader, reader))
	}
	ports := slices.Concat([]int32{port}, remote.Ports)
	if remote.PortsUnknown {
		ports = append(ports, linkedPorts(name, local.Policies)...)
	}
	plan.Egress = egress(name, d, local.Policies, ports)
	return plan, nil
}

// linkable finds what keeps the daemon from reading a Secret of the remote.
func linkable(request Request, d Daemon) error {
	if d.remotesFrom() == "" {
		return fmt.Errorf("Deployment %s/%s does not read remotes from Secrets: apply deploy/local or the chart of this version, or add --remotes-from=%s to its command and allow it to list and watch Secrets there; then run link again", d.Namespace, d.Name, d.Namespace)
	}
	if before := d.remote(request.Name); before != "" && !request.Migrate {
		return fmt.Errorf("Deployment %s/%s has --remote=%s, which takes precedence over a Secret: run link again with --migrate to move it into a Secret", d.Namespace, d.Name, before)
	}
	return nil
}

// permitted is the annotation for a rule. While mirrors move to it from another rule, that one is permitted, too: until
// a mirror with the new name is complete, the old one is kept up to date.
func permitted(rule string, noted *string) (annotation string, moves bool) {
	if noted == nil {
		return rule, false
	}
	before, _, _ := strings.Cut(*noted, ";")
	if before == rule {
		return rule, false
	}
	return rule + ";" + before, true
}

// endpoint is where the daemon reaches the API server, and how it checks its certificate.
func endpoint(request Request, remote Remote) (at Endpoint, from string) {
	at, from = remote.Endpoint, "the CA in your kubeconfig"
	at.Server = cmp.Or(request.Server, at.Server)
	switch {
	case len(request.CA) > 0:
		at.CA, from = request.CA, "the CA of --ca"
	case len(at.CA) == 0 && at.Insecure: // the daemon must check it even if your kubeconfig does not
		from = clusterCA
	case len(at.CA) == 0:
		from = "public CAs, because your kubeconfig has no CA"
	}
	at.Insecure = false
	return at, from
}

// clusterCA says that the CA comes with the token.
const clusterCA = "the cluster's own CA"

// candidates are addresses of the API server, for people.
func candidates(servers []string) string {
	if len(servers) == 0 {
		return "No other address was found"
	}
	return "Other addresses: " + strings.Join(servers, ", ")
}

// gatewaysOf are the gateways of a remote; the daemon's flags say of them what its keys do not.
func gatewaysOf(spec remote.Spec, d Daemon) []gateway.Config {
	all := slices.Clone(spec.Gateways)
	for i := range all {
		if all[i].Service == (cache.ObjectName{}) {
			for _, text := range flag(d.words(), "gateway") {
				all[i].Service, all[i].API, _ = gateway.ParseName(text)
			}
		}
		for _, port := range flag(d.words(), "gateway-port") {
			all[i].Port = cmp.Or(all[i].Port, port)
		}
	}
	return all
}

// domain is the local cluster's, under which no gateway may have its name.
func (d Daemon) domain() string {
	return cmp.Or(strings.Join(flag(d.words(), "cluster-domain"), ""), "cluster.local")
}

// readsOf says what is read in the remote, for people.
func readsOf(spec remote.Spec) string {
	if len(spec.Namespaces) == 0 {
		return "Services"
	}
	return "Services in " + strings.Join(spec.Namespaces, ", ")
}

// secret is the Secret that links the remote.
func (p Plan) secret(credentials []byte) *corev1.Secret {
	return newSecret(p.Secret.Namespace, p.Secret.Name, p.Name, p.Keys, credentials)
}
