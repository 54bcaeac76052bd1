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
func (r *Report) Reach(ctx context.Context, cfg *rest.Config) bool {
	client, err := remote.NewClient(cfg)
	if err != nil {
		r.Fail("%s: %v", cfg.Host, err)
		return false
	}
	transport, err := rest.HTTPClientFor(cfg)
	if err != nil {
		r.Fail("%s: %v", cfg.Host, err)
		return false
	}
	url := client.CoreV1().RESTClient().Get().AbsPath("/version").URL().String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		r.Fail("%v", err)
		return false
	}
	begin := time.Now()
	resp, err := transport.Do(req)
	if err != nil {
		r.Fail("the API server does not answer: %s. Check that %s is correct and reachable from this machine", remote.Cause(err), cfg.Host)
		return false
	}
	took := time.Since(begin)
	defer resp.Body.Close()
	info, err := versionOf(resp)
	if err != nil {
		r.Fail("%s %v", url, err)
		return false
	}
	if has, err := utilversion.ParseGeneric(info.GitVersion); err == nil && has.LessThan(oldest) {
		r.Warn("Kubernetes %s is older than %v, the oldest supported version", info.GitVersion, oldest)
	}
	r.OK("Kubernetes %s answers in %v", info.GitVersion, took.Round(time.Millisecond))
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The header has whole seconds.
		if skew := begin.Add(took / 2).Sub(at.Add(time.Second / 2)); skew.Abs() > maxSkew {
			r.Warn("its clock differs from this machine's by %v: synchronize both with NTP", skew.Round(time.Second).Abs())
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
		return info, fmt.Errorf("sends an incomplete answer: %s", remote.Cause(err))
	}
	if json.Unmarshal(body, &info) != nil || info.GitVersion == "" {
		return info, fmt.Errorf("answers with %q of type %q instead of a Kubernetes version: it may be a proxy or a login page. Check the server in the kubeconfig",
			fmt.Sprintf("%.80s", body), resp.Header.Get("Content-Type"))
	}
	return info, nil
}

// Need is a permission, and what for.
type Need struct {
	Group, Resource, Namespace, Name string
	Verbs                            []string
	Why                              string // empty: without it nothing works
}

func localNeeds(options Options) []Need {
	write := []string{"list", "watch", "create", "update", "delete"}
	slices := []string{"list", "watch", "delete"}
	if options.Policy.EndpointsAPI == plan.UseEndpointSlices {
		slices = write
	}
	needs := []Need{
		{Resource: "services", Verbs: write},
		{Resource: "endpoints", Verbs: write},
		{Group: "discovery.k8s.io", Resource: "endpointslices", Verbs: slices},
		{Resource: "namespaces", Verbs: []string{"list", "watch"}},
		{Resource: "events", Verbs: []string{"create", "patch"}, Why: "no Events will be created"},
		{Group: "networking.k8s.io", Resource: "servicecidrs", Verbs: []string{"list", "watch"}, Why: "gateway addresses in this cluster's Service ranges will not be recognized"},
		{Group: "networking.k8s.io", Resource: "ipaddresses", Verbs: []string{"get"}, Why: "a recreated mirror may lose its ClusterIPs"},
		{Resource: "nodes", Verbs: []string{"list", "watch"}, Why: "gateway addresses in this cluster's pod ranges will not be recognized"},
	}
	if options.From != "" {
		needs = append(needs, Need{Resource: "secrets", Namespace: options.From, Verbs: []string{"list", "watch"}, Why: "remotes configured by Secrets will not be found"})
	}
	if options.Policy.CreateNamespaces {
		needs = append(needs, Need{Resource: "namespaces", Verbs: []string{"create"}})
	}
	return append(needs, LeaseNeeds(options.Lease)...)
}

// LeaseNeeds are the permissions of an election; none where there is none.
func LeaseNeeds(lease cache.ObjectName) []Need {
	if lease == (cache.ObjectName{}) {
		return nil
	}
	of := Need{Group: "coordination.k8s.io", Resource: "leases", Namespace: lease.Namespace, Verbs: []string{"create"}}
	named := of
	named.Name, named.Verbs = lease.Name, []string{"get", "update"}
	return []Need{named, of}
}

func remoteNeeds(spec remote.Spec) []Need {
	read := []string{"list", "watch"}
	var needs []Need
	for _, namespace := range spec.Namespaces {
		needs = append(needs, Need{Resource: "services", Namespace: namespace, Verbs: read})
	}
	if len(spec.Namespaces) == 0 {
		needs = append(needs, Need{Resource: "services", Verbs: read})
	}
	for _, config := range spec.Gateways {
		switch {
		case !config.ReadsService():
		case config.API:
			needs = append(needs, Need{Group: gatewayapi.Group, Resource: "gateways", Namespace: config.Service.Namespace, Name: config.Service.Name, Verbs: read},
				Need{Group: gatewayapi.Group, Resource: "listenersets", Verbs: read, Why: "Gateways that allow ListenerSets cannot be used"})
		default:
			needs = append(needs, Need{Resource: "services", Namespace: config.Service.Namespace, Name: config.Service.Name, Verbs: read})
		}
	}
	for _, name := range []cache.ObjectName{spec.Gateways[0].TCPServices, spec.Gateways[0].UDPServices} {
		if name != (cache.ObjectName{}) {
			needs = append(needs, Need{Resource: "configmaps", Namespace: name.Namespace, Name: name.Name, Verbs: read})
		}
	}
	if spec.Records != "" {
		needs = append(needs, Need{Resource: "configmaps", Namespace: spec.Records, Verbs: read})
	}
	if spec.UID == remote.Unverified {
		return needs // the operator knows
	}
	// A Namespace is in itself, as the authorizer sees it: a Role there is enough.
	return append(needs, Need{Resource: "namespaces", Namespace: metav1.NamespaceSystem, Name: metav1.NamespaceSystem, Verbs: []string{"get"},
		Why: "a replaced cluster cannot be detected"})
}

// Permissions checks with an API server what these credentials may do.
func (r *Report) Permissions(ctx context.Context, needs []Need) {
	if r.Granted(ctx, needs...) {
		r.OK("all required permissions are granted")
	}
}

// Granted tells whether permissions are granted, and reports those that are not.
func (r *Report) Granted(ctx context.Context, needs ...Need) bool {
	all := true
	for _, need := range needs {
		var missing []string
		for _, verb := range need.Verbs {
			review, err := r.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Group: need.Group, Resource: need.Resource, Namespace: need.Namespace, Name: need.Name, Verb: verb,
				}},
			}, metav1.CreateOptions{})
			if err != nil {
				r.Warn("permissions cannot be checked: %s", remote.Cause(err))
				return false
			}
			if !review.Status.Allowed {
				missing = append(missing, verb)
			}
		}
		if len(missing) == 0 {
			continue
		}
		all, r.missing = false, true
		what := fmt.Sprintf("no permission to %s %s", strings.Join(missing, ", "), need)
		if need.Why != "" {
			r.Warn("%s: %s", what, need.Why)
		} else {
			r.Fail("%s: grant it, see the roles in deploy/", what)
		}
	}
	return all
}

func (n Need) String() string {
	text := n.Resource
	if n.Group != "" {
		text += "." + n.Group
	}
	if n.Name != "" {
		text += " " + n.Name
	}
	if n.Namespace != "" && n.Resource != "namespaces" {
		text += " in namespace " + n.Namespace
	}
	return text
}
