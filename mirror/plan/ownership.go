package plan

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// What a mirror carries, so that it is recognized.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "service-mirror"
	// ClusterLabel names the remote cluster, as the --remote flag does.
	ClusterLabel = "service-mirror.io/cluster"
	// MirrorAnnotation records the mirror that an object is part of: namespace/name. A copy of the
	// object under another name is not ours.
	MirrorAnnotation = "service-mirror.io/mirror"
	// RemoteServiceAnnotation is the exported Service: namespace/name.
	RemoteServiceAnnotation = "service-mirror.io/remote-service"
	// ClusterUIDAnnotation is the UID of the remote's kube-system namespace.
	ClusterUIDAnnotation = "service-mirror.io/cluster-uid"
	// SliceManager is the manager that our EndpointSlices name.
	SliceManager = "service-mirror.io"
)

// Labelled is the remote cluster that an object's labels name; false where the two labels of a
// mirror are not both there. Labels alone do not make an object ours: Owner does.
func Labelled(obj metav1.Object) (cluster string, labelled bool) {
	labels := obj.GetLabels()
	cluster = labels[ClusterLabel]
	return cluster, cluster != "" && labels[ManagedByLabel] == ManagedBy
}

// Owner is the remote cluster that a Service is the mirror of; false where it is foreign. Mirrors
// from before MirrorAnnotation are recognized by the name that their recorded source makes.
func Owner(svc *corev1.Service) (cluster string, owned bool) {
	cluster, labelled := Labelled(svc)
	if !labelled {
		return "", false
	}
	key := cache.MetaObjectToName(svc)
	if recorded, ok := svc.Annotations[MirrorAnnotation]; ok {
		return cluster, recorded == key.String()
	}
	source, found := Source(svc)
	return cluster, found && defaultKey(cluster, source) == key
}

// Source is the exported Service that a mirror records; false where it records none.
func Source(mirror *corev1.Service) (cache.ObjectName, bool) {
	return RecordedSource(mirror)
}

// RecordedSource is the same of any object of a mirror.
func RecordedSource(obj metav1.Object) (cache.ObjectName, bool) {
	return parseName(obj.GetAnnotations()[RemoteServiceAnnotation])
}

// ownsAddresses tells whether Endpoints or an EndpointSlice under a mirror's key are the mirror's.
// The key's Service is known to be ours where it exists.
func ownsAddresses(obj metav1.Object, key cache.ObjectName, serviceExists bool) bool {
	cluster, labelled := Labelled(obj)
	if !labelled {
		return false
	}
	mirror, _, part := PartOf(key)
	if recorded, ok := obj.GetAnnotations()[MirrorAnnotation]; ok || part {
		return recorded == mirror.String() && !(part && ForFailover(obj))
	}
	return serviceExists || Naming{Cluster: cluster}.Makes(key)
}

// SliceKey is the key of the mirror, or of the part of a merged one, that an EndpointSlice of ours belongs to.
func SliceKey(slice metav1.Object) cache.ObjectName {
	if recorded, ok := parseName(slice.GetAnnotations()[MirrorAnnotation]); ok && recorded.Namespace == slice.GetNamespace() {
		rest, part := strings.CutPrefix(slice.GetName(), recorded.Name+".")
		if remote, _, found := strings.Cut(rest, "."); part && found && !ForFailover(slice) {
			return Part(recorded, remote)
		}
		return recorded
	}
	return cache.NewObjectName(slice.GetNamespace(), slice.GetLabels()[discoveryv1.LabelServiceName])
}

// Source is the exported Service that a mirror of ours records; false where it records none.
func (o Objects) Source() (cache.ObjectName, bool) {
	if o.Service == nil {
		return cache.ObjectName{}, false
	}
	if _, ours := Owner(o.Service); !ours {
		return cache.ObjectName{}, false
	}
	return Source(o.Service)
}

func parseName(text string) (cache.ObjectName, bool) {
	namespace, name, found := strings.Cut(text, "/")
	return cache.NewObjectName(namespace, name), found && namespace != "" && name != ""
}

// owned is the part of the live objects that is ours, the Service being ours or absent; foreign
// says why the rest is not, and is empty where all of it is.
func (o Objects) owned(key cache.ObjectName) (own Objects, foreign string) {
	own = o
	for _, k := range addressKinds {
		if obj := o.Get(k); obj != nil && !ownsAddresses(obj, key, o.Service != nil) {
			own.Set(k, nil)
			if foreign == "" {
				foreign = k.Foreign(key)
			}
		}
	}
	return own, foreign
}

// Owned narrows the objects under a key down to those that are ours; of a foreign Service none is.
func (o Objects) Owned(key cache.ObjectName) Objects {
	if o.Service != nil {
		if _, ours := Owner(o.Service); !ours {
			return Objects{}
		}
	}
	own, _ := o.owned(key)
	return own
}

// Cluster is the remote that the objects of a mirror are labelled with, the Service counting before the
// Endpoints, and those before the slices; empty: none.
func (o Objects) Cluster() string {
	for _, k := range allKinds {
		if obj := o.Get(k); obj != nil {
			if cluster, labelled := Labelled(obj); labelled {
				return cluster
			}
		}
	}
	return ""
}

// labelledAlike reports whether the addresses of a mirror name the same remote as its Service does: nobody has edited that
// label alone. Without addresses it is false.
func (o Objects) labelledAlike() bool {
	cluster, addresses := o.Cluster(), false
	for _, k := range addressKinds {
		if obj := o.Get(k); obj != nil && o.Service != nil {
			of, labelled := Labelled(obj)
			if !labelled || of != cluster {
				return false
			}
			addresses = true
		}
	}
	return addresses
}
