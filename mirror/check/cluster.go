package check

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/gatewayapi"
)

// oldest is the first Kubernetes that is supported, on either side.
var oldest = utilversion.MustParseSemantic("1.31.0")

// maxSkew is how far two clocks may be apart before certificates and leases
// begin to suffer.
const maxSkew = 5 * time.Second

// reach requests the version of an API server, and its time.
func (r *report) reach(ctx context.Context, cfg *rest.Config) bool {
	client, err := remote.NewClient(cfg)
	if err != nil {
		r.fail("%s: %v", cfg.Host, err)
		return false
	}
	transport, err := rest.HTTPClientFor(cfg)
	if err != nil {
		r.fail("%s: %v", cfg.Host, err)
		return false
	}
	url := client.CoreV1().RESTClient().Get().AbsPath("/version").URL().String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		r.fail("%v", err)
		return false
	}
	begin := time.Now()
	resp, err := transport.Do(req)
	if err != nil {
		r.fail("the API server does not answer: %s. Check that %s is right, and that this machine can reach it", remote.Cause(err), cfg.Host)
		return false
	}
	took := time.Since(begin)
	defer resp.Body.Close()
	info, err := versionOf(resp)
	if err != nil {
		r.fail("%s %v", url, err)
		return false
	}
	if has, err := utilversion.ParseGeneric(info.GitVersion); err == nil && has.LessThan(oldest) {
		r.warn("Kubernetes %s is older than %v, the oldest version that is tested", info.GitVersion, oldest)
	}
	r.ok("Kubernetes %s answers in %v", info.GitVersion, took.Round(time.Millisecond))
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The header has whole seconds.
		if skew := begin.Add(took / 2).Sub(at.Add(time.Second / 2)); skew.Abs() > maxSkew {
			r.warn("its clock and this machine's are %v apart: set both by NTP", skew.Round(time.Second).Abs())
		}
	}
	r.client = client
	return true
}

// maxVersion is how many bytes the answer with the version may have; it has some hundreds.
const maxVersion = 64 << 10

// versionOf reads the version that an API server answers with. The error says what came instead.
func versionOf(resp *http.Response) (info version.Info, err error) {
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return info, fmt.Errorf("answers with status %s: check the credentials", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return info, fmt.Errorf("answers with status %s: check the server in the kubeconfig", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxVersion))
	if err != nil {
		return info, fmt.Errorf("does not answer to the end: %s", remote.Cause(err))
	}
	if json.Unmarshal(body, &info) != nil || info.GitVersion == "" {
		return info, fmt.Errorf("answers with %q of type %q, which is not the version of Kubernetes: something else answers in the API server's place, such as a proxy or a login page. Check the server in the kubeconfig",
			fmt.Sprintf("%.80s", body), resp.Header.Get("Content-Type"))
	}
	return info, nil
}

// need is a permission, and what for.
type need struct {
	group, resource, namespace, name string
	verbs                            []string
	why                              string // empty: without it nothing works
}

func localNeeds(options Options) []need {
	write := []string{"list", "watch", "create", "update", "delete"}
	slices := []string{"list", "watch", "delete"}
	if options.Policy.EndpointsAPI == plan.UseEndpointSlices {
		slices = write
	}
	needs := []need{
		{resource: "services", verbs: write},
		{resource: "endpoints", verbs: write},
		{group: "discovery.k8s.io", resource: "endpointslices", verbs: slices},
		{resource: "namespaces", verbs: []string{"list", "watch"}},
		{resource: "events", verbs: []string{"create", "patch"}, why: "no Events are created"},
		{group: "networking.k8s.io", resource: "servicecidrs", verbs: []string{"list", "watch"}, why: "a gateway address in this cluster's Service ranges is not recognized"},
		{group: "networking.k8s.io", resource: "ipaddresses", verbs: []string{"get"}, why: "a mirror that someone deletes may lose its ClusterIPs"},
		{resource: "nodes", verbs: []string{"list", "watch"}, why: "a gateway address in this cluster's pod ranges is not recognized"},
	}
	if options.Policy.CreateNamespaces {
		needs = append(needs, need{resource: "namespaces", verbs: []string{"create"}})
	}
	if lease := options.Lease; lease != (cache.ObjectName{}) {
		needs = append(needs, need{group: "coordination.k8s.io", resource: "leases", namespace: lease.Namespace, name: lease.Name, verbs: []string{"get", "update"}},
			need{group: "coordination.k8s.io", resource: "leases", namespace: lease.Namespace, verbs: []string{"create"}})
	}
	return needs
}

func remoteNeeds(spec remote.Spec) []need {
	read := []string{"list", "watch"}
	var needs []need
	for _, namespace := range spec.Namespaces {
		needs = append(needs, need{resource: "services", namespace: namespace, verbs: read})
	}
	if len(spec.Namespaces) == 0 {
		needs = append(needs, need{resource: "services", verbs: read})
	}
	for _, config := range spec.Gateways {
		switch {
		case !config.ReadsService():
		case config.API:
			needs = append(needs, need{group: gatewayapi.Group, resource: "gateways", namespace: config.Service.Namespace, name: config.Service.Name, verbs: read},
				need{group: gatewayapi.Group, resource: "listenersets", verbs: read, why: "nothing is known of a Gateway that allows ListenerSets"})
		default:
			needs = append(needs, need{resource: "services", namespace: config.Service.Namespace, name: config.Service.Name, verbs: read})
		}
	}
	for _, name := range []cache.ObjectName{spec.Gateways[0].TCPServices, spec.Gateways[0].UDPServices} {
		if name != (cache.ObjectName{}) {
			needs = append(needs, need{resource: "configmaps", namespace: name.Namespace, name: name.Name, verbs: read})
		}
	}
	if spec.Records != "" {
		needs = append(needs, need{resource: "configmaps", namespace: spec.Records, verbs: read})
	}
	// A Namespace is in itself, as the authorizer sees it: a Role there is enough.
	return append(needs, need{resource: "namespaces", namespace: metav1.NamespaceSystem, name: metav1.NamespaceSystem, verbs: []string{"get"},
		why: "another cluster behind this kubeconfig would not be noticed"})
}

// permissions checks with an API server what these credentials may do.
func (r *report) permissions(ctx context.Context, needs []need) {
	failed := false
	for _, need := range needs {
		var missing []string
		for _, verb := range need.verbs {
			review, err := r.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Group: need.group, Resource: need.resource, Namespace: need.namespace, Name: need.name, Verb: verb,
				}},
			}, metav1.CreateOptions{})
			if err != nil {
				r.warn("permissions cannot be checked: %s", remote.Cause(err))
				return
			}
			if !review.Status.Allowed {
				missing = append(missing, verb)
			}
		}
		if len(missing) == 0 {
			continue
		}
		failed, r.missing = true, true
		what := fmt.Sprintf("may not %s %s", strings.Join(missing, ", "), need)
		if need.why != "" {
			r.warn("%s: %s", what, need.why)
		} else {
			r.fail("%s: grant it (deploy/ has the roles)", what)
		}
	}
	if !failed {
		r.ok("all permissions that are needed are granted")
	}
}

func (n need) String() string {
	text := n.resource
	if n.group != "" {
		text += "." + n.group
	}
	if n.name != "" {
		text += " " + n.name
	}
	if n.namespace != "" && n.resource != "namespaces" {
		text += " in namespace " + n.namespace
	}
	return text
}
