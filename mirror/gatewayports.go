package mirror

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// gatewayPorts are the gateways of the remotes as they were last known: what a change of their ports does is
// logged as that, and not only as what comes of it for each mirror.
type gatewayPorts struct {
	mu   sync.Mutex
	last map[string]map[cache.ObjectName]*gateway.Gateway // by remote, and by the gateway's Service as remote.Gateways has it
}

// swap remembers what is known of a remote's gateways now, and returns what was. What is not known now
// stays as it was.
func (g *gatewayPorts) swap(cluster string, now remote.Gateways) (before remote.Gateways) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before.Known = g.last[cluster]
	next := maps.Clone(before.Known)
	if next == nil {
		next = map[cache.ObjectName]*gateway.Gateway{}
	}
	for name, gw := range now.Known {
		if gw != nil {
			next[name] = gw
		}
	}
	if g.last == nil {
		g.last = map[string]map[cache.ObjectName]*gateway.Gateway{}
	}
	g.last[cluster] = next
	return before
}

// forget forgets the gateways of a remote.
func (g *gatewayPorts) forget(cluster string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.last, cluster)
}

// portChange is how the ports of one gateway have changed.
type portChange struct {
	gained, lost []corev1.ServicePort
	// Mirrors of which some port is served now and was not, the other way round, or is served by another port.
	gaining, losing, moving int
}

// logPorts logs which ports a remote's gateways have gained and lost since it was last called, with what that does
// to how many mirrors: those of Services that are not refused.
func (r *remotes) logPorts(logger klog.Logger, cluster string, refuse func(plan.Candidate) *plan.Problem) {
	one := r.get(cluster)
	if one == nil {
		return
	}
	view, ok := one.View()
	if !ok {
		return
	}
	before := r.ports.swap(cluster, view.Gateways)
	changes := map[cache.ObjectName]*portChange{}
	for name, now := range view.Gateways.Known {
		was := before.Known[name]
		if was == nil || now == nil || was == now {
			continue
		}
		change := portChange{gained: without(now.Ports, was.Ports), lost: without(was.Ports, now.Ports)}
		if len(change.gained)+len(change.lost) > 0 {
			changes[name] = &change
		}
	}
	if len(changes) == 0 {
		return
	}
	for svc := range view.Services.All() {
		now := exportOf(plan.Candidate{Cluster: cluster}, view, svc)
		was := now
		was.Gateway, _ = before.For(svc)
		name, _, err := gateway.ParseName(svc.Annotations[gateway.Annotation])
		if err != nil {
			name = cache.ObjectName{}
		}
		if change := changes[name]; change != nil && refuse(now) == nil {
			change.add(was.Mapping(), now.Mapping())
		}
	}
	logPortChanges(klog.LoggerWithValues(logger, "cluster", cluster), view.Gateways, changes)
}

// logPortChanges logs the changes, those of the first gateway, which has two names, as one.
func logPortChanges(logger klog.Logger, now remote.Gateways, changes map[cache.ObjectName]*portChange) {
	first := cache.ObjectName{}
	if change := changes[first]; change != nil {
		for name, other := range changes {
			if name != first && now.Known[name] == now.Known[first] {
				other.gaining, other.losing, other.moving = other.gaining+change.gaining, other.losing+change.losing, other.moving+change.moving
				delete(changes, first)
				break
			}
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(changes), plan.CompareKeys) {
		change := changes[name]
		logger.Info("Gateway ports changed", "gateway", strings.Trim(name.String(), "/"),
			"gained", gateway.ListPorts(change.gained), "lost", gateway.ListPorts(change.lost),
			"mirrorsGaining", change.gaining, "mirrorsLosing", change.losing, "mirrorsMoving", change.moving)
	}
}

// add counts one mirror.
func (c *portChange) add(was, now []gateway.Mapping) {
	var gains, loses, moves int
	for i := range min(len(was), len(now)) { // of one Service, they are of the same ports
		switch had, has := was[i].Target, now[i].Target; {
		case had == has:
		case had == 0:
			gains = 1
		case has == 0:
			loses = 1
		default:
			moves = 1
		}
	}
	c.gaining, c.losing, c.moving = c.gaining+gains, c.losing+loses, c.moving+moves
}

// without are the ports of a gateway that another list lacks, as far as the port rule looks at them.
func without(ports, other []corev1.ServicePort) []corev1.ServicePort {
	type what struct {
		name     string
		number   int32
		protocol corev1.Protocol
		app      string
	}
	of := func(p corev1.ServicePort) what {
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		return what{p.Name, p.Port, cmp.Or(p.Protocol, corev1.ProtocolTCP), app}
	}
	has := map[what]bool{}
	for _, p := range other {
		has[of(p)] = true
	}
	return slices.DeleteFunc(slices.Clone(ports), func(p corev1.ServicePort) bool { return has[of(p)] })
}
