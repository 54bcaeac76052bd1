package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Annotations on an exported Service. What they say is the remote's word: bounded, and nothing but a
// choice among the Service's own ports and those of the remote's gateway.
const (
	// SelectAnnotation lists the only ports to mirror, by name or number: "http, grpc".
	SelectAnnotation = "service-mirror.io/ports"
	// PortAnnotation names the gateway port for all of its ports, "http", or for each: "8080=http, 50051=http".
	// Any number of Services may choose the same one: it is not reserved, as by PortsAnnotation.
	PortAnnotation = "service-mirror.io/gateway-port"
)

// Annotations are the keys of all that the port rule reads.
var Annotations = []string{Annotation, PortsAnnotation, PortAnnotation, SelectAnnotation}

const (
	// maxEntries bounds what is read of an annotation: a Service has few ports.
	maxEntries = 256
	// maxLength is the length from which on SelectAnnotation and PortAnnotation are not read at all.
	maxLength = 8 << 10
)

// TrimAnnotation is what a cache need hold of the value of one of Annotations.
func TrimAnnotation(key, value string) string {
	if (key == SelectAnnotation || key == PortAnnotation) && len(value) > maxLength {
		return strings.Clone(value[:maxLength+1]) // it is still too long
	}
	return value
}

// entries are the entries of an annotation of an exported Service. The error says that they are too many, or
// that it is too long.
func entries(exported *corev1.Service, key string) (list []string, err error) {
	value := exported.Annotations[key]
	if len(value) > maxLength {
		return nil, fmt.Errorf("annotation %s is longer than %d bytes and is ignored: shorten it", key, maxLength)
	}
	for entry := range strings.SplitSeq(value, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if len(list) == maxEntries {
			return list, fmt.Errorf("annotation %s has more than %d entries: remove some", key, maxEntries)
		}
		list = append(list, entry)
	}
	return list, nil
}

func badEntry(key, entry string, err error) error {
	return fmt.Errorf("annotation %s, entry %.40q: %w", key, entry, err)
}

// portRef is how an annotation names ports of its Service.
type portRef struct {
	name     string          // empty: by number
	number   int32           //
	protocol corev1.Protocol // empty: any
}

func parsePortRef(text string) (portRef, error) {
	text = strings.TrimSpace(text)
	if n, protocol, ok := portAndProtocol(text); ok {
		if !strings.Contains(text, "/") {
			protocol = ""
		}
		return portRef{number: n, protocol: protocol}, nil
	}
	if ValidatePort(text) != nil {
		return portRef{}, errors.New("not a port name or number")
	}
	return portRef{name: text}, nil
}

func (r portRef) matches(port corev1.ServicePort) bool {
	if r.name != "" {
		return port.Name == r.name
	}
	return port.Port == r.number && (r.protocol == "" || r.protocol == protocol(port))
}

// find refuses a reference to a port that a Service does not have.
func (r portRef) find(exported *corev1.Service) error {
	if slices.ContainsFunc(exported.Spec.Ports, r.matches) {
		return nil
	}
	return fmt.Errorf("the Service has no such port: it has %s: correct the annotation", ListPorts(exported.Spec.Ports))
}

// Selected are the ports of an exported Service that are mirrored: those that SelectAnnotation lists, else
// all; so too if it lists none that exists, since a mistake must not delete a mirror. The error says what is
// wrong with the annotation.
func Selected(exported *corev1.Service) ([]corev1.ServicePort, error) {
	all := exported.Spec.Ports
	list, err := entries(exported, SelectAnnotation)
	problems := []error{err}
	var refs []portRef
	for _, entry := range list {
		ref, err := parsePortRef(entry)
		if err == nil {
			err = ref.find(exported)
		}
		if err != nil {
			problems = append(problems, badEntry(SelectAnnotation, entry, err))
			continue
		}
		refs = append(refs, ref)
	}
	problem := join(dropNil(problems))
	if len(refs) == 0 {
		if problem != nil {
			problem = fmt.Errorf("%w; all of its ports are mirrored", problem)
		}
		return all, problem
	}
	selected := slices.DeleteFunc(slices.Clone(all), func(port corev1.ServicePort) bool {
		return !slices.ContainsFunc(refs, func(ref portRef) bool { return ref.matches(port) })
	})
	return selected, problem
}

// choice is one entry of PortAnnotation.
type choice struct {
	of      portRef // zero: every port that has no entry of its own
	gateway string  // name or number of the gateway port
}

// choices reads PortAnnotation. The error names the entries that cannot be used; the others can.
func choices(exported *corev1.Service) (all []choice, err error) {
	list, err := entries(exported, PortAnnotation)
	problems := []error{err}
	for _, entry := range list {
		one, err := parseChoice(entry)
		if err == nil && one.of != (portRef{}) {
			err = one.of.find(exported)
		}
		if err == nil && slices.ContainsFunc(all, func(other choice) bool { return other.of == one.of }) {
			err = errors.New("another entry for the same port is used: remove one")
		}
		if err != nil {
			problems = append(problems, badEntry(PortAnnotation, entry, err))
			continue
		}
		all = append(all, one)
	}
	return all, join(dropNil(problems))
}

func parseChoice(entry string) (one choice, err error) {
	left, right, each := strings.Cut(entry, "=")
	if !each {
		right = left
	} else if one.of, err = parsePortRef(left); err != nil {
		return choice{}, errors.New("expected GATEWAYPORT such as http, or PORT=GATEWAYPORT such as 8080=http")
	}
	one.gateway = strings.TrimSpace(right)
	if ValidatePort(one.gateway) != nil {
		return choice{}, errors.New("expected GATEWAYPORT such as http, or PORT=GATEWAYPORT such as 8080=http")
	}
	return one, nil
}

// Choices are the names and numbers of the gateway ports that an exported Service chooses with PortAnnotation.
func Choices(exported *corev1.Service) (ports []string) {
	all, _ := choices(exported)
	for _, one := range all {
		ports = append(ports, one.gateway)
	}
	return ports
}

// chosen is the name or number of the gateway port that PortAnnotation has for a port; empty: none.
func chosen(all []choice, port corev1.ServicePort) string {
	for _, one := range all {
		if one.of != (portRef{}) && one.of.matches(port) {
			return one.gateway
		}
	}
	for _, one := range all {
		if one.of == (portRef{}) {
			return one.gateway
		}
	}
	return ""
}

func dropNil(problems []error) []error {
	return slices.DeleteFunc(problems, func(err error) bool { return err == nil })
}
