package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"service-mirror.io/service-mirror/gateway"
)

// Policy is what the operator decides for all remotes alike.
type Policy struct {
	CopyLabels      []string // label keys taken over from the exported Service
	CopyAnnotations []string // annotation keys likewise
	IncludeSystem   bool     // mirror kube-system's Services too
	EndpointsAPI    EndpointsAPI
	// CreateNamespaces has a missing namespace created, instead of waiting for it.
	CreateNamespaces bool
	Names            Names
	// ClusterName is what exports call the local cluster in ExportToAnnotation; empty: nothing.
	ClusterName string
	Merge       Merge
	Order       []string // of the remotes, as the flags name them, and then the Secrets
	Pending     bool     // there may be more remotes, of which nothing is known yet
}

// ExportToAnnotation on an exported Service lists the clusters that may mirror it, with commas between them; without
// it all may.
const ExportToAnnotation = "service-mirror.io/export-to"

// Concerns tells an exported Service that is for the local cluster, or for all. Others are as if they were not
// exported.
func (p Policy) Concerns(exported *corev1.Service) bool {
	list, limited := exported.Annotations[ExportToAnnotation]
	return !limited || p.ClusterName == "" || slices.ContainsFunc(strings.Split(list, ","), func(name string) bool {
		return strings.TrimSpace(name) == p.ClusterName
	})
}

// ValidateKeys refuses keys that must never be copied from a remote: our own, by which we
// recognize what is ours, and Kubernetes', which control the local cluster.
func ValidateKeys(keys []string) error {
	var refused []error
	for _, key := range keys {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			refused = append(refused, fmt.Errorf("%q is not a valid key of a label or annotation: %s", key, problems[0]))
			continue
		}
		prefix, _, prefixed := strings.Cut(key, "/")
		if prefixed && (within(prefix, "service-mirror.io") || within(prefix, "kubernetes.io") || within(prefix, "k8s.io")) {
			refused = append(refused, fmt.Errorf("%s cannot be copied from a remote: it is reserved for service-mirror or Kubernetes", key))
		}
	}
	return errors.Join(refused...)
}

func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

// Refuse gives the reason why an exported Service is not mirrored; nil where it is.
func (p Policy) Refuse(c Candidate) *Problem {
	svc := c.Service
	refuse := func(reason Reason, why string) *Problem {
		problem := c.problem(reason, why)
		return &problem
	}
	if _, mirror := svc.Labels[ClusterLabel]; mirror {
		return refuse(IsMirror, "it is a mirror of another cluster's Service: export the original Service instead")
	}
	if svc.Namespace == metav1.NamespaceDefault && svc.Name == "kubernetes" {
		return refuse(SystemService, "it is the remote's own API server, which is never mirrored: remove its export label")
	}
	if svc.Namespace == metav1.NamespaceSystem && !p.IncludeSystem {
		return refuse(SystemService, "kube-system is excluded: use --include-system to mirror it")
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return refuse(ExternalName, "it is of type ExternalName, which a gateway cannot route to: export a Service with a ClusterIP instead")
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return refuse(Headless, "it is headless, and a gateway cannot address single pods: export a Service with a ClusterIP instead")
	}
	ports, _ := gateway.Selected(svc)
	if !slices.ContainsFunc(ports, func(port corev1.ServicePort) bool {
		return cmp.Or(port.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP
	}) && !cmp.Or(c.Gateway, &gateway.Gateway{}).Explicit(svc, c.Assigned) {
		return refuse(NoTCPPort, "it has no TCP port, and no gateway port is reserved for it: reserve one with the annotation "+gateway.PortsAnnotation+" or a ConfigMap")
	}
	if _, limited := svc.Annotations[ExportToAnnotation]; limited && p.ClusterName == "" {
		return refuse(NoClusterName, "the annotation "+ExportToAnnotation+" limits it to some clusters, and the name of this cluster is not set: set --cluster-name")
	}
	if err := p.Names.Of(c.Cluster).validate(svc); err != nil {
		return refuse(InvalidName, err.Error())
	}
	return nil
}
