package plan

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// RemoteSlice identifies the EndpointSlice of one remote and IP family, of a Service that has one for each of them: a
// merged mirror, or one of the local cluster's own Services with failover.
type RemoteSlice struct {
	Key    cache.ObjectName // of the Service
	Remote string
	Family discoveryv1.AddressType
	// Failover tells that the Service is the local cluster's own. A slice of the other kind is foreign, although it
	// has the same name: the one must be gone before the other one is created.
	Failover bool
}

// FailoverLabel with the value "true" is set by its owner on a Service of the local cluster that fails over, and here on
// the EndpointSlices that are added to it, which have it as an annotation, too: whoever edits the one leaves the other.
const FailoverLabel = "service-mirror.io/failover"

const failoverOn = "true"

// RemoteSlices are those of a remote, IPv4 first.
func RemoteSlices(key cache.ObjectName, remote string, failover bool) []RemoteSlice {
	return []RemoteSlice{
		{Key: key, Remote: remote, Family: discoveryv1.AddressTypeIPv4, Failover: failover},
		{Key: key, Remote: remote, Family: discoveryv1.AddressTypeIPv6, Failover: failover},
	}
}

// Name is the name of the slice: SERVICE.REMOTE.FAMILY. No Service's name has a dot, so no other mirror has a
// slice of that name.
func (r RemoteSlice) Name() string {
	return r.Key.Name + "." + r.Remote + "." + strings.ToLower(string(r.Family))
}

// ObjectName is the namespace and the name of the slice.
func (r RemoteSlice) ObjectName() cache.ObjectName {
	return cache.NewObjectName(r.Key.Namespace, r.Name())
}

// RemoteSliceOf is the identity that a slice of ours records; false where it is foreign. A copy of it under another
// name or in another namespace is foreign. The label that names its Service may have been edited: it is corrected.
func RemoteSliceOf(slice *discoveryv1.EndpointSlice) (RemoteSlice, bool) {
	remote, labelled := Labelled(slice)
	key, recorded := parseName(slice.Annotations[MirrorAnnotation])
	r := RemoteSlice{Key: key, Remote: remote, Family: slice.AddressType, Failover: ForFailover(slice)}
	ours := labelled && recorded && r.ObjectName() == cache.MetaObjectToName(slice) && slice.Labels[discoveryv1.LabelManagedBy] == SliceManager
	return r, ours
}

// ForFailover tells a slice of ours that is beside one of the local cluster's own Services from one of a merged mirror. It has
// the label, the annotation, and records no exported Service: two of these decide, so that an edit by hand of one of them is
// undone. Slices from before the annotation was added lack it. Those of other mirrors have no dot in their names.
func ForFailover(slice metav1.Object) bool {
	_, merged := slice.GetAnnotations()[RemoteServiceAnnotation]
	label, annotation := labelledForFailover(slice), slice.GetAnnotations()[FailoverAnnotation] == failoverOn
	return strings.Contains(slice.GetName(), ".") && (label && annotation || !merged && (label || annotation))
}

func labelledForFailover(slice metav1.Object) bool {
	return slice.GetLabels()[FailoverLabel] == failoverOn
}

// Owns tells whether a slice is the one that is meant, and ours.
func (r RemoteSlice) Owns(slice *discoveryv1.EndpointSlice) bool {
	of, ours := RemoteSliceOf(slice)
	return ours && of == r
}

// desired is the slice as it should be, from the live one where that exists: labels and annotations of users stay. It is
// nil where there is no address of the family, or no port: one without ports would be of no use.
func (r RemoteSlice) desired(live *discoveryv1.EndpointSlice, targets []corev1.EndpointPort, addrs []endpoint) *discoveryv1.EndpointSlice {
	endpoints, ports := sliceEndpoints(r.Family, addrs), slicePorts(targets)
	if len(endpoints) == 0 || len(ports) == 0 {
		return nil
	}
	want := live.DeepCopy()
	if want == nil {
		want = &discoveryv1.EndpointSlice{AddressType: r.Family}
		want.Namespace, want.Name = r.Key.Namespace, r.Name()
	}
	setOwner(want, r.Remote, r.Key)
	belongTo(want, r.Key.Name)
	if r.Failover {
		want.Labels[FailoverLabel], want.Annotations[FailoverAnnotation] = failoverOn, failoverOn
		delete(want.Annotations, RemoteServiceAnnotation)
	} else {
		delete(want.Labels, FailoverLabel)
		delete(want.Annotations, FailoverAnnotation)
	}
	setContents(want, endpoints, ports)
	return want
}

// SliceDiffers tells whether a live slice must be updated to be as desired.
func SliceDiffers(live, desired *discoveryv1.EndpointSlice) bool {
	return !equality.Semantic.DeepEqual(live.Labels, desired.Labels) ||
		!equality.Semantic.DeepEqual(live.Annotations, desired.Annotations) || !sameSlices(live, desired)
}
