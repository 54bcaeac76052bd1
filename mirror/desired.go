package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// Policy is what the operator decides for all remotes alike.
type Policy struct {
	CopyLabels      []string // label keys taken over from the exported Service
	CopyAnnotations []string // annotation keys likewise
	IncludeSystem   bool     // mirror kube-system's Services too
	EndpointsAPI    EndpointsAPI
}

// ValidateKeys refuses keys that must never be taken from a remote: our own, by
// which we know what is ours, and Kubernetes', which steer the local cluster.
func ValidateKeys(keys []string) error {
	var refused []error
	for _, key := range keys {
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			refused = append(refused, fmt.Errorf("%q is no key of a label or annotation: %s", key, problems[0]))
			continue
		}
		prefix, _, prefixed := strings.Cut(key, "/")
		if prefixed && (within(prefix, "service-mirror.io") || within(prefix, "kubernetes.io") || within(prefix, "k8s.io")) {
			refused = append(refused, fmt.Errorf("%s is not taken from a remote: it means something here to this program or to Kubernetes", key))
		}
	}
	return errors.Join(refused...)
}

func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

// Source is an exported Service together with what is known of its cluster.
type Source struct {
	Cluster string
	UID     types.UID // of the cluster; empty: not known
	Service *corev1.Service
	Gateway *gateway.Gateway // nil: not known, endpoints stay as they are
	// NoGateway says why Gateway is none at all; nil where the Service has one.
	NoGateway error
	// Holder is the exported Service that has a gateway port, of those that claim it.
	Holder func(claim string) cache.ObjectName
}

// Refuse gives the reason for which an exported Service is not mirrored,
// nil where it is.
func (p Policy) Refuse(src Source) *Problem {
	svc := src.Service
	refuse := func(reason Reason, why string) *Problem {
		return &Problem{Reason: reason, Cluster: src.Cluster, Source: src.name(), Message: why}
	}
	if _, mirror := svc.Labels[ClusterLabel]; mirror {
		return refuse(IsMirror, "it is itself a mirror of another cluster's Service")
	}
	if svc.Namespace == metav1.NamespaceDefault && svc.Name == "kubernetes" {
		return refuse(SystemService, "it is the remote's own API server")
	}
	if svc.Namespace == metav1.NamespaceSystem && !p.IncludeSystem {
		return refuse(SystemService, "kube-system is left out without --include-system")
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return refuse(ExternalName, "it is of type ExternalName and has nothing behind the gateway")
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return refuse(Headless, "it is headless: its pods cannot be told apart through a gateway")
	}
	if !slices.ContainsFunc(svc.Spec.Ports, func(port corev1.ServicePort) bool {
		return cmp.Or(port.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP
	}) && !cmp.Or(src.Gateway, &gateway.Gateway{}).Reserves(svc) {
		return refuse(NoTCPPort, "it has no TCP port, and no gateway port is reserved for it")
	}
	if _, err := Name(src.Cluster, svc.Name); err != nil {
		return refuse(InvalidName, err.Error())
	}
	return nil
}

// Desired is the mirror as it should be: a copy of what is live with our fields
// set, so that what others may set stays. families are the IP families that the
// local cluster gives to mirrors, where that is known before the mirror is. The
// error lists the ports that the gateway does not serve; the objects are right
// all the same.
func (p Policy) Desired(src Source, live Objects, families []corev1.IPFamily) (Objects, error) {
	var want Objects
	if live.Service != nil {
		want.Service = live.Service.DeepCopy()
		families = live.Service.Spec.IPFamilies
	} else {
		want.Service = &corev1.Service{ObjectMeta: src.meta()}
	}
	p.setMeta(src, want.Service)
	setSpec(src.Service, &want.Service.Spec)
	for _, label := range stopTraffic {
		delete(want.Service.Labels, label)
	}
	return want, errors.Join(src.NoGateway, p.setEndpoints(src, live, families, &want))
}

// What would stop the traffic to a mirror, whoever sets it: kube-proxy leaves a
// Service and an EndpointSlice with one of these labels alone, and the
// EndpointSlice mirroring controller Endpoints with LabelSkipMirror or with
// leaderElection, an annotation.
var stopTraffic = []string{"service.kubernetes.io/service-proxy-name", corev1.IsHeadlessService}

const leaderElection = "control-plane.alpha.kubernetes.io/leader"

func (s Source) name() cache.ObjectName {
	return cache.MetaObjectToName(s.Service)
}

func (s Source) key() cache.ObjectName { return KeyOf(s.Cluster, s.name()) }

func (s Source) meta() metav1.ObjectMeta {
	key := s.key()
	return metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
}

func setOwner(src Source, obj metav1.Object) {
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[ManagedByLabel] = ManagedBy
	labels[ClusterLabel] = src.Cluster
	obj.SetLabels(labels)
}

// setMeta sets the labels and annotations that are ours on a mirror Service.
func (p Policy) setMeta(src Source, svc *corev1.Service) {
	svc.Labels = overlay(svc.Labels, src.Service.Labels, p.CopyLabels)
	svc.Annotations = overlay(svc.Annotations, src.Service.Annotations, p.CopyAnnotations)
	setOwner(src, svc)
	svc.Annotations[RemoteServiceAnnotation] = src.name().String()
	if src.UID != "" {
		svc.Annotations[ClusterUIDAnnotation] = string(src.UID)
	}
}

// overlay takes the given keys from one map into another, absence included.
func overlay(to, from map[string]string, keys []string) map[string]string {
	if to == nil {
		to = map[string]string{}
	}
	for _, key := range keys {
		if value, ok := from[key]; ok {
			to[key] = value
		} else {
			delete(to, key)
		}
	}
	return to
}

func setSpec(exported *corev1.Service, spec *corev1.ServiceSpec) {
	spec.Type = corev1.ServiceTypeClusterIP
	spec.Selector = nil
	policy := corev1.IPFamilyPolicyPreferDualStack
	spec.IPFamilyPolicy = &policy
	everywhere := corev1.ServiceInternalTrafficPolicyCluster // Local is no node's: the endpoints are outside
	spec.InternalTrafficPolicy = &everywhere
	spec.SessionAffinity = cmp.Or(exported.Spec.SessionAffinity, corev1.ServiceAffinityNone)
	if exported.Spec.SessionAffinityConfig != nil || spec.SessionAffinity == corev1.ServiceAffinityNone {
		spec.SessionAffinityConfig = exported.Spec.SessionAffinityConfig.DeepCopy()
	} // else the API server's default time-out
	if ports := mirrorPorts(exported.Spec.Ports); !sameSet(spec.Ports, ports, same) {
		spec.Ports = ports
	}
}

// mirrorPorts are the remote's ports without what means something only there.
// The target is written as the API server would default it.
func mirrorPorts(exported []corev1.ServicePort) []corev1.ServicePort {
	var ports []corev1.ServicePort
	for _, port := range exported {
		ports = append(ports, corev1.ServicePort{
			Name:        port.Name,
			Protocol:    cmp.Or(port.Protocol, corev1.ProtocolTCP),
			Port:        port.Port,
			AppProtocol: port.AppProtocol,
			TargetPort:  intstr.FromInt32(port.Port),
		})
	}
	return ports
}

// sameSubsets compares what subsets say, not how they are ordered.
func sameSubsets(a, b []corev1.EndpointSubset) bool {
	return sameSet(a, b, func(x, y corev1.EndpointSubset) bool {
		return sameSet(x.Addresses, y.Addresses, same) &&
			sameSet(x.NotReadyAddresses, y.NotReadyAddresses, same) &&
			sameSet(x.Ports, y.Ports, same)
	})
}

func same[T any](a, b T) bool { return equality.Semantic.DeepEqual(a, b) }

// maxUnordered bounds the lists that are compared whatever their order: that
// takes the square of their length, and the remote chooses it.
const maxUnordered = 256

// sameSet tells whether two lists without duplicates hold the same elements.
func sameSet[T any](a, b []T, equal func(T, T) bool) bool {
	if slices.EqualFunc(a, b, equal) {
		return true
	}
	return len(a) == len(b) && len(a) <= maxUnordered && !slices.ContainsFunc(a, func(x T) bool {
		return !slices.ContainsFunc(b, func(y T) bool { return equal(x, y) })
	})
}
