package plan

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// What a template of names may have.
const (
	ofService   = "{service}"
	ofNamespace = "{namespace}"
	ofName      = "{name}"
)

// expand is what a template makes for a Service: one name for each name of the cluster that it mentions.
func (p Policy) expand(template string, svc *corev1.Service) (hosts []string) {
	text := strings.NewReplacer(ofService, svc.Name, ofNamespace, svc.Namespace).Replace(template)
	if !strings.Contains(text, ofName) {
		return []string{strings.ToLower(text)}
	}
	for _, name := range p.Names {
		hosts = append(hosts, strings.ToLower(strings.ReplaceAll(text, ofName, name)))
	}
	return hosts
}

// ValidateTemplates refuses templates that make no names, or one name for Services of two namespaces.
func (p Policy) ValidateTemplates() error {
	var problems []error
	for i, template := range p.HostTemplates {
		problems = append(problems, validateTemplate(template))
		for _, other := range p.HostTemplates[:i] {
			if mayCollide(strings.Split(strings.ToLower(template), "."), strings.Split(strings.ToLower(other), ".")) {
				problems = append(problems, fmt.Errorf("%.300q and %.300q can produce the same name for two Services: put {namespace} in the same place in both", other, template))
			}
		}
	}
	return errors.Join(problems...)
}

func validateTemplate(template string) error {
	text := strings.NewReplacer(ofService, "a", ofNamespace, "b", ofName, "c").Replace(template)
	switch {
	case !strings.Contains(template, ofService) || !strings.Contains(template, ofNamespace):
		return fmt.Errorf("%.300q must contain {service} and {namespace}, otherwise two Services have the same name", template)
	case len(validation.IsDNS1123Subdomain(strings.ToLower(text))) > 0:
		return fmt.Errorf("%.300q does not produce valid DNS names: set one such as {service}.{namespace}.example.com", template)
	}
	for label := range strings.SplitSeq(template, ".") {
		if strings.Contains(label, ofNamespace) && (strings.Contains(label, ofService) || strings.Contains(label, ofName)) {
			return fmt.Errorf("%.300q produces the same name for a in b-c and a-b in c: separate {namespace} by a dot, such as in {service}.{namespace}.example.com", template)
		}
	}
	return nil
}

// mayCollide tells whether two templates can make one name for Services of two namespaces. Nothing that is filled in has
// a dot, so that their labels can be compared one by one.
func mayCollide(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		fixed := !strings.Contains(a[i]+b[i], "{")
		if fixed && a[i] != b[i] || a[i] == b[i] && strings.Contains(a[i], ofNamespace) {
			return false
		}
	}
	return true
}
