package plan

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// basis is what the desired state of a mirror is computed from.
type basis struct {
	Candidate
	key       cache.ObjectName // of the mirror
	live      Objects
	families  []corev1.IPFamily // of mirrors, where there is no Service yet
	tombstone *Tombstone
	merged    *mergedBasis // nil: it is no merged mirror
}

// Desired is the mirror as it should be. families are the IP families that the local cluster gives to
// mirrors, where that is known; tombstone is what the mirror had, nil where nothing is lost. The
// objects are right whatever the problems are.
func (p Policy) Desired(c Candidate, live Objects, families []corev1.IPFamily, tombstone *Tombstone) (Objects, []Problem) {
	return p.desiredOf(basis{c, p.Names.Of(c.Cluster).Key(c.Service), live, families, tombstone, nil})
}

func (p Policy) desiredOf(b basis) (Objects, []Problem) {
	want := Objects{Service: p.service(b)}
	problems := p.addresses(b, &want)
	return want, problems
}

// desired is the object of one kind as it should be.
func (p Policy) desired(k Kind, b basis) metav1.Object {
	if k == Service {
		return p.service(b)
	}
	var want Objects
	p.addresses(b, &want)
	if b.merged != nil {
		want.setStandby(b.merged.standby)
	}
	return want.Get(k)
}

// service is the mirror's Service: its spec is made from nothing, and what the API server assigned is
// carried over. Labels and annotations of users stay.
func (p Policy) service(b basis) *corev1.Service {
	want := &corev1.Service{ObjectMeta: b.meta()}
	if live := b.live.Service; live != nil {
		live.ObjectMeta.DeepCopyInto(&want.ObjectMeta)
		want.Status = live.Status
	}
	p.setServiceMeta(b, want)
	everywhere, policy := corev1.ServiceInternalTrafficPolicyCluster, corev1.IPFamilyPolicyPreferDualStack
	exported := b.Service.Spec
	ports, _ := gateway.Selected(b.Service)
	want.Spec = corev1.ServiceSpec{
		Type:                  corev1.ServiceTypeClusterIP,
		IPFamilyPolicy:        &policy,
		InternalTrafficPolicy: &everywhere, // Local is no node's: the endpoints are outside
		SessionAffinity:       cmp.Or(exported.SessionAffinity, corev1.ServiceAffinityNone),
		SessionAffinityConfig: affinityConfig(exported),
		Ports:                 mirrorPorts(ports),
	}
	if live := b.live.Service; live != nil && sameSet(live.Spec.Ports, want.Spec.Ports, same) {
		want.Spec.Ports = slices.Clone(live.Spec.Ports) // their order does not matter
	}
	b.keepClusterIPs(&want.Spec)
	return want
}

// keepClusterIPs carries over what the API server assigned: what is live or, where that has lost some of
// them, what the mirror had.
func (b basis) keepClusterIPs(spec *corev1.ServiceSpec) {
	var ips []string
	if live := b.live.Service; live != nil && assigned(live) {
		ips, spec.IPFamilies = live.Spec.ClusterIPs, live.Spec.IPFamilies
	}
	if had := b.tombstone; b.lost(had) && len(had.ClusterIPs) > len(ips) && slices.Equal(had.ClusterIPs[:len(ips)], ips) {
		ips, spec.IPFamilies = had.ClusterIPs, had.Families
	}
	if len(ips) > 0 {
		spec.ClusterIP, spec.ClusterIPs = ips[0], slices.Clone(ips)
	}
}

// assigned tells whether a Service has ClusterIPs: neither one of type ExternalName has, nor a headless one.
func assigned(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeExternalName && len(svc.Spec.ClusterIPs) > 0 && svc.Spec.ClusterIPs[0] != corev1.ClusterIPNone
}

// headless tells a Service that cannot be given a ClusterIP by an update.
func headless(svc *corev1.Service) bool {
	return svc != nil && svc.Spec.Type != corev1.ServiceTypeExternalName && svc.Spec.ClusterIP == corev1.ClusterIPNone
}

// affinityConfig is the exported Service's, with the API's default made explicit: an edit of it must
// be noticed.
func affinityConfig(exported corev1.ServiceSpec) *corev1.SessionAffinityConfig {
	if exported.SessionAffinityConfig != nil || exported.SessionAffinity != corev1.ServiceAffinityClientIP {
		return exported.SessionAffinityConfig.DeepCopy()
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
}

// What stops the traffic to a mirror, whoever sets it: kube-proxy ignores Services and EndpointSlices
// with one of these labels, and the EndpointSlice mirroring controller Endpoints with LabelSkipMirror or
// with the annotation of a leader election.
var stopTraffic = []string{"service.kubernetes.io/service-proxy-name", corev1.IsHeadlessService}

const leaderElection = "control-plane.alpha.kubernetes.io/leader"

func (b basis) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: b.key.Namespace, Name: b.key.Name}
}

// setOwner records whose an object is.
func (b basis) setOwner(obj metav1.Object) { setOwner(obj, b.Cluster, b.key) }

func setOwner(obj metav1.Object, cluster string, key cache.ObjectName) {
	labels, annotations := obj.GetLabels(), obj.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[ManagedByLabel], labels[ClusterLabel] = ManagedBy, cluster
	annotations[MirrorAnnotation] = key.String()
	for _, label := range stopTraffic {
		delete(labels, label)
	}
	obj.SetLabels(labels)
	obj.SetAnnotations(annotations)
}

// setServiceMeta sets the labels and annotations that are ours on a mirror's Service.
func (p Policy) setServiceMeta(b basis, svc *corev1.Service) {
	svc.Labels = overlay(svc.Labels, b.Service.Labels, p.CopyLabels)
	svc.Annotations = overlay(svc.Annotations, b.Service.Annotations, p.CopyAnnotations)
	b.setOwner(svc)
	delete(svc.Annotations, ConfirmAnnotation)
	svc.Annotations[RemoteServiceAnnotation] = b.name().String()
	if b.UID != "" {
		svc.Annotations[ClusterUIDAnnotation] = string(b.UID)
	}
	delete(svc.Annotations, RemotesAnnotation)
	if b.merged != nil {
		b.merged.service(svc)
	}
}

// overlay takes the given keys from one map into another, absence included.
func overlay(to, from map[string]string, keys []string) map[string]string {
	for _, key := range keys {
		if value, ok := from[key]; !ok {
			delete(to, key)
		} else {
			if to == nil {
				to = map[string]string{}
			}
			to[key] = value
		}
	}
	return to
}

// mirrorPorts are the remote's ports without what has a meaning only there. The target is written
// as the API server defaults it.
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

// WithoutAnnotations is a copy of an object without the annotations named or, if none is, without all of
// users'; ours stay. removed are those that it had.
func (p Plan) WithoutAnnotations(k Kind, obj metav1.Object, named []string) (without metav1.Object, removed []string) {
	var objects Objects
	objects.Set(k, obj)
	without = objects.DeepCopy().Get(k)
	without.SetAnnotations(nil)
	objects.Set(k, without)
	fresh := p.policy.desired(k, p.basis(objects)) // nil: it is not known what the object should be
	kept := map[string]string{}
	for key, value := range obj.GetAnnotations() {
		ours := fresh == nil
		if !ours {
			_, ours = fresh.GetAnnotations()[key]
		}
		if ours || len(named) > 0 && !slices.Contains(named, key) {
			kept[key] = value
		} else {
			removed = append(removed, key)
		}
	}
	without.SetAnnotations(kept)
	slices.Sort(removed)
	return without, removed
}
