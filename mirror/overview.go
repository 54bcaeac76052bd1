package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// Overview is how everything stands now: for the status page and the metrics.
func (c *Controller) Overview() status.Page {
	page := status.Page{Leader: c.leading.Load(), Now: time.Now()}
	for _, r := range c.remotes {
		page.Remotes = append(page.Remotes, remoteRow(r.Status()))
	}
	select {
	case <-c.ready:
		page.Synced = true
	default:
		return page // what is local is not known
	}
	seen := map[cache.ObjectName]bool{}
	for _, r := range c.remotes {
		if view, ok := r.View(); ok {
			for _, svc := range view.Services.All() {
				key := KeyOf(r.Name(), cache.MetaObjectToName(svc))
				seen[key] = true
				page.Mirrors = append(page.Mirrors, c.mirrorRow(r.Name(), key, svc))
			}
		}
	}
	for _, svc := range c.local.services.All() {
		key := cache.MetaObjectToName(svc)
		if cluster, ours := Owner(svc); ours && !seen[key] {
			page.Mirrors = append(page.Mirrors, c.leftRow(cluster, key, svc))
		}
	}
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
		one := status.Gateway{Name: cmp.Or(gw.Name, "address="), Known: gw.Gateway != nil, Problem: gw.Problem}
		if gw.Gateway != nil {
			for _, address := range gw.Gateway.Addresses {
				one.Addresses = append(one.Addresses, status.Address{IP: address.Addr.String(), Health: address.Health.String()})
			}
		}
		row.Gateways = append(row.Gateways, one)
	}
	return row
}

// mirrorRow tells how the mirror of an exported Service stands.
func (c *Controller) mirrorRow(cluster string, key cache.ObjectName, svc *corev1.Service) status.Mirror {
	row := c.row(cluster, key)
	row.Source = cache.MetaObjectToName(svc).String()
	for _, port := range svc.Spec.Ports {
		row.Ports = append(row.Ports, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
	}
	live := c.local.live(key)
	owner := ownerOf(live)
	row.State = status.Mirrored
	switch {
	case live.Service == nil || owner != cluster:
		row.State = status.Waiting
	case len(live.endpoints()) == 0:
		row.State = status.Incomplete
	}
	for _, problem := range c.reports.of(key) {
		if problem.Cluster == cluster && (problem.Source == cache.ObjectName{} || problem.Source == cache.MetaObjectToName(svc)) {
			row.State = worse(row.State, problem.Reason.State())
			row.Problems = append(row.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
		}
	}
	if owner == cluster {
		row.show(live)
	}
	return status.Mirror(row)
}

// leftRow tells how a mirror stands that nothing known makes.
func (c *Controller) leftRow(cluster string, key cache.ObjectName, svc *corev1.Service) status.Mirror {
	row := c.row(cluster, key)
	row.Source = svc.Annotations[RemoteServiceAnnotation]
	row.State = status.Orphan
	if r := c.remote(cluster); r != nil {
		if view, ok := r.View(); !ok || !view.Knows(key.Namespace) {
			row.State = status.Mirrored // as far as is known
		}
	}
	for _, problem := range c.reports.of(key) {
		row.Problems = append(row.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
	}
	row.show(c.local.live(key))
	return status.Mirror(row)
}

// row is a line of the table of mirrors in the making.
type row status.Mirror

func (c *Controller) row(cluster string, key cache.ObjectName) row {
	return row{Namespace: key.Namespace, Name: key.Name, Cluster: cluster}
}

func (r *row) show(live Objects) {
	if live.Service != nil {
		r.ClusterIP = live.Service.Spec.ClusterIP
		if len(r.Ports) == 0 {
			for _, port := range live.Service.Spec.Ports {
				r.Ports = append(r.Ports, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
			}
		}
	}
	for addr, ready := range live.endpoints() {
		text := addr.String()
		if !ready {
			text += " (not ready)"
		}
		r.Endpoints = append(r.Endpoints, text)
	}
	slices.Sort(r.Endpoints)
}

// severity orders the states of a mirror.
var severity = []string{status.Mirrored, status.Incomplete, status.Waiting, status.Conflict, status.Refused}

func worse(a, b string) string {
	if slices.Index(severity, b) > slices.Index(severity, a) {
		return b
	}
	return a
}
