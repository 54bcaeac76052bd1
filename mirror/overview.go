package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// Overview is the state of everything now: for the status page and the metrics.
func (c *Controller) Overview() status.Page {
	page := status.Page{Leader: c.workers.Leading(), Verifying: c.options.Verify.Period > 0, Now: time.Now(), Problems: c.problems.OfLocal()}
	for _, r := range c.remotes.all() {
		page.Remotes = append(page.Remotes, remoteRow(r.Status()))
	}
	if page.Synced = c.workers.IsReady(); !page.Synced {
		return page // what is local is not known
	}
	for _, n := range c.local.Unknown() {
		page.Unknown += n
	}
	page.Failover = c.failover.Rows()
	shown := map[cache.ObjectName]bool{} // mirrors that exist
	for _, r := range c.remotes.all() {
		if view, ok := r.View(); ok {
			naming := c.remotes.policy().Names.Of(r.Name())
			for svc := range view.Services.All() {
				if !c.remotes.policy().Concerns(svc) {
					continue
				}
				key := naming.Key(svc)
				row, exists := mirrorRow(c, key, exportOf(plan.Candidate{Cluster: r.Name()}, view, svc))
				shown[key] = shown[key] || exists
				shown[plan.Part(key, r.Name())] = exists && c.remotes.policy().Merges()
				page.Mirrors = append(page.Mirrors, row)
			}
		}
	}
	for _, cluster := range c.local.Clusters() {
		for _, svc := range c.local.Mirrors(cluster) {
			if key := cache.MetaObjectToName(svc); !shown[key] && (!plan.IsMerged(svc) || len(c.local.PartsOf(key)) == 0) {
				page.Mirrors = append(page.Mirrors, otherRow(c, cluster, key, svc))
			}
		}
	}
	page.Mirrors = append(page.Mirrors, orphanParts(c, shown)...)
	return page
}

func remoteRow(s remote.Status) status.Remote {
	row := status.Remote{
		Name: s.Name, State: string(s.State), Since: s.Since, LastSync: s.LastSync, LastEvent: s.LastEvent,
		UID: string(s.UID), Exported: s.Exported,
	}
	for _, problem := range s.Problems {
		row.Problems = append(row.Problems, status.Problem(problem))
	}
	for _, gw := range s.Gateways {
		one := status.Gateway{Name: cmp.Or(gw.Name, "address="), Problem: gw.Problem}
		if gw.Gateway != nil {
			// Of one whose names were not resolved yet nothing is known.
			one.Known = !gw.Gateway.Partial || gw.Gateway.Missing != "" || len(gw.Gateway.Addresses) > 0
			for _, address := range gw.Gateway.Addresses {
				one.Addresses = append(one.Addresses, status.Address{IP: address.Addr.String(), Health: address.Health.String()})
			}
		}
		row.Gateways = append(row.Gateways, one)
	}
	return row
}

// mirrorRow is the state of the mirror of an exported Service. exists tells whether what has the key is that mirror.
func mirrorRow(c *Controller, key cache.ObjectName, of plan.Candidate) (_ status.Mirror, exists bool) {
	if c.remotes.policy().Merges() {
		return mergedRow(c, key, of)
	}
	cluster, svc := of.Cluster, of.Service
	row := newRow(c, key, of)
	live := c.local.Live(key).Owned(key)
	state := plan.StateMirrored
	exists = live.Service != nil && live.Cluster() == cluster
	if source, recorded := live.Source(); recorded {
		exists = exists && source == cache.MetaObjectToName(svc)
	}
	switch {
	case !exists:
		state = plan.StateWaiting
	case len(live.Endpointed()) == 0:
		state = plan.StateIncomplete
	}
	for _, problem := range c.problems.Of(key) {
		if problem.Cluster == cluster && (problem.Source == cache.ObjectName{} || problem.Source == cache.MetaObjectToName(svc)) {
			state = state.Worse(problem.Reason.State())
			row.Problems = append(row.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
		}
	}
	row.State = string(state)
	if exists {
		row.setVerified(c, key)
		row.show(live)
	}
	return status.Mirror(row), exists
}

// newRow is what is known of the mirror of an exported Service without it.
func newRow(c *Controller, key cache.ObjectName, of plan.Candidate) row {
	row := row{Namespace: key.Namespace, Name: key.Name, Cluster: of.Cluster, Source: cache.MetaObjectToName(of.Service).String()}
	ports, _ := gateway.Selected(of.Service)
	for _, port := range ports {
		row.Ports = append(row.Ports, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
	}
	if c.remotes.policy().Refuse(of) == nil {
		row.mapped(of.Mapping())
	}
	return row
}

// otherRow is the state of a mirror that exists, but that no known remote exports a Service for: an orphan, unless that
// is not known, or its source has another name now.
func otherRow(c *Controller, cluster string, key cache.ObjectName, svc *corev1.Service) status.Mirror {
	row := row{Namespace: key.Namespace, Name: key.Name, Cluster: cluster}
	row.Source = svc.Annotations[plan.RemoteServiceAnnotation]
	row.State = status.Orphan
	if c.remotes.has(cluster) {
		source, recorded := plan.Source(svc)
		if !recorded {
			source.Namespace = key.Namespace
		}
		switch fate, to := c.remotes.policy().Fate(c.remotes.origin(cluster, source), key); fate {
		case plan.Unknown, plan.Stays:
			row.State = status.Mirrored // as far as is known
		case plan.Moves:
			row.State = status.Mirrored
			row.Problems = []status.MirrorProblem{{Reason: string(plan.Renaming), Message: plan.Renamed(to)}}
		}
	}
	if slices.ContainsFunc(plan.Remotes(svc), func(l plan.Listed) bool { return !c.remotes.knows(l) }) {
		row.State = status.Mirrored // likewise
	}
	for _, problem := range c.problems.Of(key) {
		of := problem.Source == cache.ObjectName{} || problem.Source.String() == row.Source
		if of && problem.Cluster == cluster && problem.Reason != plan.Renaming {
			row.State = string(plan.State(row.State).Worse(problem.Reason.State()))
			row.Problems = append(row.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
		}
	}
	row.setVerified(c, key)
	row.show(c.local.Live(key))
	return status.Mirror(row)
}

// row is a line of the table of mirrors in the making.
type row status.Mirror

// mapped shows which gateway port serves which of the mirror's.
func (r *row) mapped(all []gateway.Mapping) {
	for _, m := range all {
		r.Mapping = append(r.Mapping, status.Mapping{
			Name: m.Port.Name, Port: m.Port.Port, Protocol: string(m.Port.Protocol), Class: string(m.Class), GatewayPort: m.Target, Line: string(m.Line),
		})
	}
}

// setVerified sets what the last verification found.
func (r *row) setVerified(c *Controller, key cache.ObjectName) {
	result, at := c.verified.of(key, r.Cluster)
	r.Verified, r.VerifiedAt = string(result), at
}

func (r *row) show(live plan.Objects) {
	if live.Service != nil {
		r.ClusterIP = live.Service.Spec.ClusterIP
		if len(r.Ports) == 0 {
			for _, port := range live.Service.Spec.Ports {
				r.Ports = append(r.Ports, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
			}
		}
	}
	for addr, ready := range live.Endpointed() {
		text := addr.String()
		if !ready {
			text += " (not ready)"
		}
		r.Endpoints = append(r.Endpoints, text)
	}
	slices.Sort(r.Endpoints)
}
