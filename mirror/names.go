package mirror

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// What a mirror carries, so that it is known as ours and for what it is.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "service-mirror"
	// ClusterLabel names the remote cluster, as the --remote flag does.
	ClusterLabel = "service-mirror.io/cluster"
	// RemoteServiceAnnotation is the exported Service: namespace/name.
	RemoteServiceAnnotation = "service-mirror.io/remote-service"
	// ClusterUIDAnnotation is the UID of the remote's kube-system namespace.
	ClusterUIDAnnotation = "service-mirror.io/cluster-uid"
)

// Name is the name of the mirror of a remote cluster's Service. It does not tell
// of which cluster: "api-eu" of "paris" and "api" of "eu-paris" make the same one.
// A name that no Service can have (RFC 1123 label, 63 characters) is an error.
func Name(cluster, exported string) (string, error) {
	name := exported + "-" + cluster
	if len(name) > validation.DNS1123LabelMaxLength {
		return name, fmt.Errorf("its name %s would have %d characters, %d more than a Service name may have",
			name, len(name), len(name)-validation.DNS1123LabelMaxLength)
	}
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return name, fmt.Errorf("its name %.70q could not be a Service name: %s", name, problems[0])
	}
	return name, nil
}

// KeyOf is the key under which everything about a mirror is done: its namespace
// and name in the local cluster. It exists even where Name is an error, so that
// the refusal is reported under it.
func KeyOf(cluster string, exported cache.ObjectName) cache.ObjectName {
	name, _ := Name(cluster, exported.Name)
	return cache.NewObjectName(exported.Namespace, name)
}

// exportedAs is the Service that a remote cluster would have to export for this
// to be its mirror's key; without a name where it cannot.
func exportedAs(cluster string, key cache.ObjectName) cache.ObjectName {
	if name, found := strings.CutSuffix(key.Name, "-"+cluster); found {
		return cache.NewObjectName(key.Namespace, name)
	}
	return cache.ObjectName{}
}

// Owner is the remote cluster for which an object was made by us; false where
// the object is a stranger's.
func Owner(obj metav1.Object) (cluster string, ours bool) {
	labels := obj.GetLabels()
	cluster = labels[ClusterLabel]
	return cluster, cluster != "" && labels[ManagedByLabel] == ManagedBy
}

// Objects are what a mirror is made of; nil is absent. Endpoints or, one for each
// family, EndpointSlices carry the addresses: both only while one takes the
// other's place.
type Objects struct {
	Service    *corev1.Service
	Endpoints  *corev1.Endpoints
	IPv4, IPv6 *discoveryv1.EndpointSlice
}

// sliceName is the name of a mirror's EndpointSlice. The EndpointSlice
// controllers' own names end with five characters.
func sliceName(key cache.ObjectName, family discoveryv1.AddressType) string {
	return key.Name + "-" + strings.ToLower(string(family))
}

// sliceKey is the key of the mirror that an EndpointSlice of ours belongs to.
func sliceKey(slice cache.ObjectName) cache.ObjectName {
	return cache.NewObjectName(slice.Namespace, slice.Name[:max(0, strings.LastIndexByte(slice.Name, '-'))])
}
