package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// DefaultTemplate makes the names of mirrors where the operator chooses no other one.
const DefaultTemplate = servicePlaceholder + "-" + clusterPlaceholder

// What a template may contain.
const (
	servicePlaceholder   = "{service}"   // the exported Service's name
	clusterPlaceholder   = "{cluster}"   // the remote's name
	namespacePlaceholder = "{namespace}" // the exported Service's namespace
)

// NamesCluster tells a template by which no two remotes have mirrors of one name.
func NamesCluster(template string) bool { return strings.Contains(template, clusterPlaceholder) }

// NameAnnotation on an exported Service is the name of its mirror, where the operator allows that.
const NameAnnotation = "service-mirror.io/name"

// ValidateTemplate refuses a template that can make no valid name, or one name for all Services.
func ValidateTemplate(template string) error {
	if n := strings.Count(template, servicePlaceholder); n != 1 {
		return fmt.Errorf("%.70q must contain %s exactly once, not %d times", template, servicePlaceholder, n)
	}
	sample := expand(strings.Replace(template, servicePlaceholder, "a", 1), "a", "a")
	if strings.ContainsAny(sample, "{}") {
		return fmt.Errorf("%.70q has an unknown placeholder: the known ones are %s, %s and %s", template, servicePlaceholder, clusterPlaceholder, namespacePlaceholder)
	}
	if problems := validation.IsDNS1123Label(sample); len(problems) > 0 {
		return fmt.Errorf("%.70q does not produce a valid Service name: %s", template, problems[0])
	}
	return nil
}

// Naming says what the mirrors of one remote's Services are called. Keys are made by it and never parsed: two
// exported Services, of one remote or of two, may have the same one.
type Naming struct {
	Cluster  string
	Template string // as ValidateTemplate accepts it; empty: DefaultTemplate
	// Namespaces are the local namespaces of those of the remote that have another one.
	Namespaces map[string]string
	ObeyNames  bool // an exported Service may choose its mirror's name by NameAnnotation
}

// affixes are what comes before and after the exported Service's name.
func (n Naming) affixes(namespace string) (prefix, suffix string) {
	prefix, suffix, _ = strings.Cut(cmp.Or(n.Template, DefaultTemplate), servicePlaceholder)
	return expand(prefix, n.Cluster, namespace), expand(suffix, n.Cluster, namespace)
}

func expand(text, cluster, namespace string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, namespacePlaceholder, namespace), clusterPlaceholder, cluster)
}

// Local is the namespace of the mirrors of a remote's namespace.
func (n Naming) Local(namespace string) string { return cmp.Or(n.Namespaces[namespace], namespace) }

// Remote are the remote's namespaces whose mirrors are in a local one, sorted.
func (n Naming) Remote(local string) (namespaces []string) {
	for from, to := range n.Namespaces {
		if to == local {
			namespaces = append(namespaces, from)
		}
	}
	if n.Local(local) == local && !slices.Contains(namespaces, local) {
		namespaces = append(namespaces, local)
	}
	slices.Sort(namespaces)
	return namespaces
}

// Key is the key of an exported Service's mirror: its namespace and name in the local cluster. It exists even
// where Validate has an error, so that the refusal is reported under it.
func (n Naming) Key(exported *corev1.Service) cache.ObjectName {
	if name := exported.Annotations[NameAnnotation]; n.ObeyNames && name != "" {
		return cache.NewObjectName(n.Local(exported.Namespace), name)
	}
	return n.KeyByTemplate(cache.MetaObjectToName(exported))
}

// KeyByTemplate is the key of an exported Service that chooses no name.
func (n Naming) KeyByTemplate(exported cache.ObjectName) cache.ObjectName {
	prefix, suffix := n.affixes(exported.Namespace)
	return cache.NewObjectName(n.Local(exported.Namespace), prefix+exported.Name+suffix)
}

// Sources are the Services that the remote would have to export for this to be the key of their mirror, of those
// that choose no name: at most one in each of its namespaces.
func (n Naming) Sources(key cache.ObjectName) (sources []cache.ObjectName) {
	for _, namespace := range n.Remote(key.Namespace) {
		prefix, suffix := n.affixes(namespace)
		if name, found := strings.CutPrefix(key.Name, prefix); found {
			if name, found = strings.CutSuffix(name, suffix); found && name != "" {
				sources = append(sources, cache.NewObjectName(namespace, name))
			}
		}
	}
	return sources
}

// Makes tells whether a mirror of the remote can have the key.
func (n Naming) Makes(key cache.ObjectName) bool { return n.ObeyNames || len(n.Sources(key)) > 0 }

// validate refuses a name that no Service can have (RFC 1123 label, 63 characters).
func (n Naming) validate(exported *corev1.Service) error {
	name := n.Key(exported).Name
	problems := validation.IsDNS1123Label(name)
	switch excess := len(name) - validation.DNS1123LabelMaxLength; {
	case len(problems) == 0:
		return nil
	case len(problems) == 1 && excess > 0: // so it is printable
		return fmt.Errorf("its mirror's name %.200s has %d characters, %d more than a Service name may have: rename the Service, or set a shorter name template for its remote", name, len(name), excess)
	}
	return fmt.Errorf("its mirror's name %.70q is not a valid Service name: %s: set another name template for its remote, or another name in the annotation %s", name, problems[len(problems)-1], NameAnnotation)
}

// Names are the rules of all remotes, by the remote's name.
type Names map[string]Naming

// Of is the rule of a remote.
func (n Names) Of(cluster string) Naming {
	naming := n[cluster]
	naming.Cluster = cluster
	return naming
}

// defaultKey is the key that the default template makes, by which mirrors are recognized that do not record theirs.
func defaultKey(cluster string, exported cache.ObjectName) cache.ObjectName {
	return Naming{Cluster: cluster}.KeyByTemplate(exported)
}

// SliceName is the name of a mirror's EndpointSlice. The names that Kubernetes' own controllers
// make end with five random characters.
func SliceName(key cache.ObjectName, family discoveryv1.AddressType) string {
	if mirror, remote, part := PartOf(key); part {
		return RemoteSlice{Key: mirror, Remote: remote, Family: family}.Name()
	}
	return key.Name + "-" + strings.ToLower(string(family))
}

// CompareKeys orders keys by namespace, then by name.
func CompareKeys(a, b cache.ObjectName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
