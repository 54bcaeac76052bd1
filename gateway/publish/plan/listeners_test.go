package plan

import (
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// Every field counts: of a Gateway that seems to be the same nothing is looked at again.
func TestSameGateway(t *testing.T) {
	make := func() Gateway {
		return Gateway{Known: true, Exists: true, Name: cache.NewObjectName("ingress", "public"), Listeners: []Listener{{
			Name: "http", Port: 80, Protocol: "HTTP", From: "Selector", Kinds: []Kind{HTTPRoute}, Selector: labels.SelectorFromSet(labels.Set{"team": "blue"})}}}
	}
	if !SameGateway(make(), make()) || !SameGateway(Gateway{}, Gateway{}) {
		t.Error("the same is not the same")
	}
	for name, change := range map[string]func(*Gateway){
		"unknown": func(g *Gateway) { g.Known = false }, "absent": func(g *Gateway) { g.Exists = false },
		"managed": func(g *Gateway) { g.Managed = true }, "rewrites": func(g *Gateway) { g.Rewrites = true },
		"no listeners": func(g *Gateway) { g.Listeners = nil }, "port": func(g *Gateway) { g.Listeners[0].Port = 81 },
		"protocol": func(g *Gateway) { g.Listeners[0].Protocol = "TCP" }, "kinds": func(g *Gateway) { g.Listeners[0].Kinds = nil },
		"hostname": func(g *Gateway) { g.Listeners[0].Hostname = "*.example.com" }, "refused": func(g *Gateway) { g.Listeners[0].Refused = "why" },
		"sets used": func(g *Gateway) { g.Sets.Used = true }, "sets unknown": func(g *Gateway) { g.Sets.Unknown = "why" },
		"sets offered": func(g *Gateway) { g.Sets.Offer = "what" }, "foreign sets": func(g *Gateway) { g.Sets.Foreign = []string{"x"} },
		"in a set": func(g *Gateway) { g.Listeners[0].Set.Name = "x" }, "pending": func(g *Gateway) { g.Listeners[0].Pending = true },
		"promised":    func(g *Gateway) { g.Listeners[0].Promised = true },
		"outside":     func(g *Gateway) { g.Outside = &Outside{} },
		"no selector": func(g *Gateway) { g.Listeners[0].Selector = nil },
		"selector":    func(g *Gateway) { g.Listeners[0].Selector = labels.SelectorFromSet(labels.Set{"team": "red"}) },
	} {
		changed := make()
		if change(&changed); SameGateway(make(), changed) {
			t.Errorf("%s: it counts as the same", name)
		}
	}
}
