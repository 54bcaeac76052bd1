package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/remote"
)

// identity compares who the cluster is with who it should be.
func (r *report) identity(ctx context.Context, local *target, spec remote.Spec) {
	system, err := r.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return // the permissions tell
	}
	if local != nil && local.namespaces[metav1.NamespaceSystem] == system.UID {
		r.fail("its kubeconfig leads to the local cluster itself: give it the remote's")
		return
	}
	if spec.UID != "" && spec.UID != system.UID {
		r.fail("it is the cluster with UID %s, but uid=%s is expected: change the kubeconfig or the flag", system.UID, spec.UID)
		return
	}
	r.ok("it is the cluster with UID %s", system.UID)
}

// gateways looks at those that the flags list.
func (r *report) gateways(ctx context.Context, spec remote.Spec, options gateway.Options) remote.Gateways {
	known := map[cache.ObjectName]*gateway.Gateway{}
	reserved := r.reserved(ctx, spec.Gateways[0])
	for i, config := range spec.Gateways {
		gw := r.gateway(ctx, config, options)
		gw.Reserved = reserved
		if i == 0 {
			known[cache.ObjectName{}] = gw
		}
		known[config.Service] = gw
	}
	return remote.Gateways{Known: known}
}

// gateway looks for a gateway Service and tries to connect to its addresses. What
// cannot be read of it has no ports.
func (r *report) gateway(ctx context.Context, config gateway.Config, options gateway.Options) *gateway.Gateway {
	var svc *corev1.Service
	name := "gateway"
	if config.ReadsService() {
		name += " " + config.Service.String()
		list, err := r.client.CoreV1().Services(config.Service.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, config.Service.Name).String(),
		})
		if err != nil {
			r.fail("%s cannot be read: %s", name, remote.Cause(err))
			return &gateway.Gateway{Static: true}
		}
		if len(list.Items) > 0 {
			svc = &list.Items[0]
		}
	}
	entrance, err := config.Read(svc, options.Filter)
	if err != nil {
		r.fail("%s: %s", name, oneLine(err))
	}
	found, complete := []netip.Addr(nil), true
	for _, host := range entrance.Hostnames {
		addrs, err := options.Resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
		if err != nil {
			complete = false
			r.fail("%s: hostname %s: %s", name, host, remote.Cause(err))
			continue
		}
		found = append(found, addrs...)
	}
	gw, err := entrance.Gateway(found, complete, options.Filter)
	if err != nil {
		r.warn("%s: %s", name, oneLine(err))
	}
	if len(gw.Addresses) == 0 {
		return gw // said before
	}
	port, err := options.Probe.Target(gw)
	if err != nil {
		r.warn("%s: %v", name, err)
		return gw
	}
	for _, address := range gw.Addresses {
		target := netip.AddrPortFrom(address.Addr, port).String()
		conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", target)
		if err != nil {
			r.warn("%s does not answer at %s: %s; pods may reach it where this machine does not", name, target, remote.Cause(err))
			continue
		}
		conn.Close()
		r.ok("%s answers at %s", name, target)
	}
	return gw
}

// exports looks at what would be mirrored, and at what is in its way.
func (r *report) exports(ctx context.Context, local *target, options Options, spec remote.Spec, gateways remote.Gateways) {
	namespaces := spec.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var exported []corev1.Service
	for _, namespace := range namespaces {
		list, err := r.client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{LabelSelector: options.Remote.Selector})
		if err != nil {
			return // the permissions tell
		}
		exported = append(exported, list.Items...)
	}
	if len(exported) == 0 {
		r.warn("no Service is exported: label one with %s", options.Remote.Selector)
		return
	}
	var refused, unserved []string
	for i := range exported {
		svc := &exported[i]
		source := mirror.Source{Cluster: spec.Name, Service: svc}
		var noGateway error
		source.Gateway, noGateway = gateways.For(svc)
		problem := ""
		if refusal := options.Mirror.Refuse(source); refusal != nil {
			problem = refusal.Message
		} else if local != nil {
			problem = local.obstacle(mirror.KeyOf(spec.Name, cache.MetaObjectToName(svc)), spec.Name, options.Mirror.CreateNamespaces)
		}
		if problem != "" {
			refused = append(refused, fmt.Sprintf("%s/%s will not be mirrored: %s", svc.Namespace, svc.Name, problem))
			continue
		}
		_, err := source.Gateway.Targets(svc, nil)
		if err := errors.Join(noGateway, err); err != nil {
			unserved = append(unserved, fmt.Sprintf("%s/%s will be mirrored, but does not lead to all of its ports: %s", svc.Namespace, svc.Name, oneLine(err)))
		}
	}
	r.some(refused, "will not be mirrored")
	r.some(unserved, "do not lead to all of their ports")
	r.ok("%d Services are exported, %d of them can be mirrored", len(exported), len(exported)-len(refused))
}

// some warns of the first of many, and says of the others how many do, or do not.
func (r *report) some(lines []string, do string) {
	const most = 20
	for _, line := range lines[:min(most, len(lines))] {
		r.warn("%s", line)
	}
	if more := len(lines) - most; more > 0 {
		r.warn("and %d more %s", more, do)
	}
}

// reserved reads which gateway ports the ConfigMaps reserve, for TCP and for UDP.
func (r *report) reserved(ctx context.Context, config gateway.Config) gateway.Reserved {
	all := gateway.Reserved{}
	for _, source := range []struct {
		name     cache.ObjectName
		protocol corev1.Protocol
	}{{config.TCPServices, corev1.ProtocolTCP}, {config.UDPServices, corev1.ProtocolUDP}} {
		if source.name == (cache.ObjectName{}) {
			continue
		}
		list, err := r.client.CoreV1().ConfigMaps(source.name.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, source.name.Name).String(),
		})
		if err != nil {
			continue // the permissions tell
		}
		if len(list.Items) == 0 {
			r.warn("ConfigMap %s does not exist: no port is reserved", source.name)
			continue
		}
		some, err := gateway.ParseReserved(list.Items[0].Data, source.protocol)
		if err != nil {
			r.warn("ConfigMap %s: %s", source.name, oneLine(err))
		}
		maps.Copy(all, some)
	}
	return all
}

// target is what stands in the local cluster, as far as it may be read.
type target struct {
	services   map[cache.ObjectName]*corev1.Service
	namespaces map[string]types.UID // nil: not known
}

// look lists what a mirror may meet.
func (r *report) look(ctx context.Context) *target {
	t := &target{services: map[cache.ObjectName]*corev1.Service{}}
	if list, err := r.client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{}); err == nil {
		for i := range list.Items {
			t.services[cache.MetaObjectToName(&list.Items[i])] = &list.Items[i]
		}
	}
	if list, err := r.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
		t.namespaces = map[string]types.UID{}
		for _, namespace := range list.Items {
			t.namespaces[namespace.Name] = namespace.UID
		}
	}
	return t
}

// obstacle is what is in the way of a mirror; empty: nothing.
func (t *target) obstacle(key cache.ObjectName, cluster string, createNamespaces bool) string {
	if svc := t.services[key]; svc != nil {
		if owner, ours := mirror.Owner(svc); !ours {
			return fmt.Sprintf("a Service %v stands there that is not ours", key)
		} else if owner != cluster {
			return fmt.Sprintf("the mirror of remote %s has the name %v", owner, key)
		}
	}
	if t.namespaces != nil && t.namespaces[key.Namespace] == "" && !createNamespaces {
		return fmt.Sprintf("namespace %s does not exist in the local cluster", key.Namespace)
	}
	return ""
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
