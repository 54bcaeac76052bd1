package plan

import (
	"cmp"
	"fmt"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Name is the name of the mirror of a remote cluster's Service. The cluster cannot be read back
// from it: "api-eu" of "paris" and "api" of "eu-paris" have the same one. A name that no Service
// can have (RFC 1123 label, 63 characters) is an error.
func Name(cluster, exported string) (string, error) {
	name := exported + "-" + cluster
	if len(name) > validation.DNS1123LabelMaxLength {
		return name, fmt.Errorf("its mirror's name %s has %d characters, %d more than a Service name may have",
			name, len(name), len(name)-validation.DNS1123LabelMaxLength)
	}
	if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
		return name, fmt.Errorf("its mirror's name %.70q is not a valid Service name: %s", name, problems[0])
	}
	return name, nil
}

// KeyOf is the key of a mirror: its namespace and name in the local cluster. It exists even where
// Name is an error, so that the refusal is reported under it.
func KeyOf(cluster string, exported cache.ObjectName) cache.ObjectName {
	name, _ := Name(cluster, exported.Name)
	return cache.NewObjectName(exported.Namespace, name)
}

// ExportedAs is the Service that a remote cluster would have to export for this to be its mirror's
// key; false where no Service can.
func ExportedAs(cluster string, key cache.ObjectName) (cache.ObjectName, bool) {
	name, found := strings.CutSuffix(key.Name, "-"+cluster)
	if !found || name == "" {
		return cache.ObjectName{}, false
	}
	return cache.NewObjectName(key.Namespace, name), true
}

// SliceName is the name of a mirror's EndpointSlice. The names that Kubernetes' own controllers
// make end with five random characters.
func SliceName(key cache.ObjectName, family discoveryv1.AddressType) string {
	return key.Name + "-" + strings.ToLower(string(family))
}

// CompareKeys orders keys by namespace, then by name.
func CompareKeys(a, b cache.ObjectName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
