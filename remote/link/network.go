package link

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const egressPrefix = "service-mirror-to-"

// egressName is the name of a remote's NetworkPolicy.
func egressName(name string) string { return egressPrefix + name }

// egress is the NetworkPolicy that allows the daemon those of the ports that nothing else allows it; nil: none is
// needed.
func egress(name string, d Daemon, others []networkingv1.NetworkPolicy, ports []int32) *networkingv1.NetworkPolicy {
	limited := false
	var missing []int32
	for _, port := range ports {
		allowed := false
		for _, policy := range others {
			if limits(policy, d) {
				limited = true
				allowed = allowed || allows(policy, port)
			}
		}
		if !allowed && !slices.Contains(missing, port) {
			missing = append(missing, port)
		}
	}
	if !limited || len(missing) == 0 {
		return nil
	}
	var rule networkingv1.NetworkPolicyEgressRule
	for _, port := range missing {
		number, protocol := intstr.FromInt32(port), corev1.ProtocolTCP
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: &number, Protocol: &protocol})
	}
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: egressName(name)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: d.selector(), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress: []networkingv1.NetworkPolicyEgressRule{rule},
		},
	}
}

// limits tells whether a policy limits where the daemon may connect to. Those of links only allow more.
func limits(policy networkingv1.NetworkPolicy, d Daemon) bool {
	return !strings.HasPrefix(policy.Name, egressPrefix) && d.selectedBy(&policy.Spec.PodSelector) &&
		slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// allows tells whether a policy allows a TCP port to any address.
func allows(policy networkingv1.NetworkPolicy, port int32) bool {
	for _, rule := range policy.Spec.Egress {
		if len(rule.To) > 0 {
			continue
		}
		if len(rule.Ports) == 0 {
			return true
		}
		for _, p := range rule.Ports {
			if p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
				continue
			}
			if p.Port == nil {
				return true
			}
			last := p.Port.IntVal
			if p.EndPort != nil {
				last = *p.EndPort
			}
			if p.Port.Type == intstr.Int && p.Port.IntVal <= port && port <= last {
				return true
			}
		}
	}
	return false
}

// linkedPorts are those that a link before has allowed the daemon for a remote.
func linkedPorts(name string, policies []networkingv1.NetworkPolicy) (ports []int32) {
	for _, policy := range policies {
		if policy.Name != egressName(name) {
			continue
		}
		for _, rule := range policy.Spec.Egress {
			for _, p := range rule.Ports {
				if p.Port != nil && p.Port.Type == intstr.Int {
					ports = append(ports, p.Port.IntVal)
				}
			}
		}
	}
	return ports
}

// portsOf are the ports that a policy of a link allows, for people.
func portsOf(policy *networkingv1.NetworkPolicy) string {
	var ports []string
	for _, p := range policy.Spec.Egress[0].Ports {
		ports = append(ports, fmt.Sprint(p.Port.IntVal))
	}
	return strings.Join(ports, ", ")
}
