package publish

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// Page is what the status page shows. What it says of names and ports is what the records say, so that a standby knows
// it, too; only a replica that leads knows what is wrong.
func (c *Controller) Page() status.Publisher {
	page := status.Publisher{Leader: c.workers.Leading(), Now: time.Now(), Problems: c.problems.OfLocal(), Synced: c.workers.IsReady()}
	for _, target := range c.options.Targets {
		page.Targets = append(page.Targets, c.targetRow(target))
	}
	for _, key := range (remoteServices{c.caches.services}).names() {
		page.Services = append(page.Services, c.serviceRow(key))
	}
	return page
}

func (c *Controller) targetRow(target plan.Target) status.Target {
	row := status.Target{Kind: string(target), State: status.Up}
	switch target {
	case plan.ToGatewayAPI:
		c.showGateway(&row)
	case plan.ToIngress:
		row.Name = "IngressClass " + c.options.IngressClass
		showKind(&row, c.caches.routes[plan.Ingress])
	case plan.ToNames:
		c.showAliases(&row)
	}
	return row
}

// showKind shows that it is not known which objects of a kind there are, if it is not.
func showKind(row *status.Target, k *kind) {
	if _, known := k.state(); !known {
		row.State, row.Problem = status.Connecting, k.problem()
	}
}

func (c *Controller) showAliases(row *status.Target) {
	row.Name = "namespace " + c.options.Aliases
	if showKind(row, c.caches.routes[plan.Alias]); row.State == status.Connecting {
		return
	}
	if !c.caches.hasNamespace(c.options.Aliases) {
		row.State, row.Problem = status.Down, "it does not exist: create it, or set another one with --names-namespace"
	}
}

func (c *Controller) showGateway(row *status.Target) {
	row.Name = "Gateway " + c.options.Gateway.String()
	_, known := c.caches.gateway.state()
	gw, class, _ := c.caches.gatewayObjects()
	switch {
	case !known:
		row.State, row.Problem = status.Connecting, c.caches.gateway.problem()
		return
	case gw == nil:
		row.State, row.Problem = status.Down, "it does not exist: create it, or set another one with --gateway"
		return
	}
	if row.Problem = plan.Unmet(gw, "Accepted", "Programmed"); row.Problem != "" {
		row.State = status.Down
	}
	for _, l := range plan.ReadWithSets(c.options.Gateway, gw, class, c.caches.readSets()).Listeners {
		row.Listeners = append(row.Listeners, status.Listener{Name: l.Key(), Port: l.Port, Protocol: l.Protocol, Own: l.Own(), Problem: l.Refused})
	}
}

func (c *Controller) serviceRow(key cache.ObjectName) status.Service {
	state, problems := c.stateOf(key)
	row := status.Service{Namespace: key.Namespace, Name: key.Name, Problems: problems}
	recorded := c.showRecord(&row, key)
	if state == mirrors.StateWaiting && len(problems) == 0 && recorded {
		state = mirrors.StateMirrored // by the leader, as far as a standby knows
	}
	row.State = shown(state)
	for _, of := range plan.Kinds {
		objects := c.caches.routes[of].cached()
		if objects == nil {
			continue
		}
		for _, route := range objects.Informer.ByIndex(byService, key.String()) {
			if plan.Owned(route) {
				row.Routes = append(row.Routes, fmt.Sprintf("%s %s", of, route.GetName()))
			}
		}
	}
	slices.Sort(row.Routes)
	return row
}

// showRecord shows what other clusters read; false: nothing yet.
func (c *Controller) showRecord(row *status.Service, key cache.ObjectName) bool {
	configMap := c.caches.records.Latest(cache.NewObjectName(c.options.Records, record.NameOf(key)))
	if configMap == nil || !plan.RecordOwned(configMap) {
		return false
	}
	says, err := record.Parse(configMap)
	if err != nil {
		return false // released, or of another version: the leader writes it again
	}
	row.Ready, row.Hosts = says.Ready, says.Hosts
	for _, p := range says.Ports {
		row.Ports = append(row.Ports, status.Port{Port: p.Port, Protocol: string(p.Protocol), Class: p.Class, GatewayPort: p.Gateway, Shared: p.Shared})
	}
	return true
}
