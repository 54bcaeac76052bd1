package e2e

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

type kind struct {
	weight int
	make   func(w *walk) *step
}

// kinds are what may happen, and how often. What makes a step chooses by the
// random source and the model alone; nil: there is nothing for it to happen to.
var kinds = []kind{
	{14, (*walk).export},
	{6, (*walk).unexport},
	{4, (*walk).deleteExported},
	{4, (*walk).recreate},
	{14, (*walk).changePorts},
	{5, (*walk).changeLabels},
	{8, (*walk).changeAddresses},
	{3, (*walk).changeGatewayPorts},
	{2, (*walk).deleteGateway},
	{6, (*walk).makeGateway},
	{1, (*walk).removeNamespace},
	{8, (*walk).makeNamespaceAgain},
	{4, (*walk).makeForeignService},
	{1, (*walk).makeForeignEndpoints},
	{3, (*walk).removeForeign},
	{6, (*walk).deleteMirrorService},
	{4, (*walk).deleteMirrorEndpoints},
	{8, (*walk).editMirrorService},
	{4, (*walk).editMirrorEndpoints},
	{8, (*walk).trouble},
	{6, (*walk).healOne},
	{3, (*walk).killDaemon},
	{1, (*walk).stopDaemon},
	{8, (*walk).startAgain},
	{2, (*walk).restartInTrouble},
	{5, (*walk).renameMirrors},
	{2, (*walk).removeRemote},
	{6, (*walk).addRemote},
}

func weights(kinds []kind) (sum int) {
	for _, kind := range kinds {
		sum += kind.weight
	}
	return sum
}

// pick takes one of those that fit.
func pick[T any](w *walk, from []T, fits func(T) bool) (T, bool) {
	var some []T
	for _, one := range from {
		if fits(one) {
			some = append(some, one)
		}
	}
	if len(some) == 0 {
		var none T
		return none, false
	}
	return some[w.rnd.IntN(len(some))], true
}

func any1[T any](w *walk, from ...T) T { return from[w.rnd.IntN(len(from))] }

// exportedStep is a step that something happens in to an exported Service.
func (w *walk) exportedStep(e *entry, what string, act func(*remote) error) *step {
	r := w.far[e.remote.short]
	return &step{text: fmt.Sprintf("%v %s", e, what), touches: []string{"far/" + e.String()}, act: func() error { return act(r) }}
}

func (w *walk) export() *step {
	e, ok := pick(w, w.entries(), func(e *entry) bool { return !e.exported })
	if !ok {
		return nil
	}
	if e.there {
		e.change(false, func() { e.exported = true })
		return w.exportedStep(e, "is exported", func(r *remote) error {
			return w.update(r.cluster, w.long(e.namespace), e.name, w.label)
		})
	}
	e.change(false, func() { e.there, e.exported, e.ports, e.team = true, true, w.exportedPorts(), "" })
	svc := w.far[e.remote.short].asService(e)
	return w.exportedStep(e, fmt.Sprintf("is made, exported, with ports %v", e.ports), func(r *remote) error {
		return w.createIn(r.cluster, svc)
	})
}

// removable: no user has their own Endpoints under the mirror, which Kubernetes
// deletes with its Service.
func removable(e *entry) bool { return e.exported && e.foreign != underTheMirror }

func (w *walk) unexport() *step {
	e, ok := pick(w, w.entries(), removable)
	if !ok {
		return nil
	}
	return w.unexportOf(e)
}

func (w *walk) unexportOf(e *entry) *step {
	e.change(true, func() { e.exported = false })
	return w.exportedStep(e, "is not exported any more", func(r *remote) error {
		return w.update(r.cluster, w.long(e.namespace), e.name, w.unlabel)
	})
}

func (w *walk) deleteExported() *step {
	e, ok := pick(w, w.entries(), removable)
	if !ok {
		return nil
	}
	return w.deleteExportOf(e)
}

func (w *walk) deleteExportOf(e *entry) *step {
	e.change(true, func() { e.there, e.exported = false, false })
	return w.exportedStep(e, "is deleted", func(r *remote) error { return w.delete(r.cluster, w.long(e.namespace), e.name) })
}

func (w *walk) recreate() *step {
	e, ok := pick(w, w.entries(), removable)
	if !ok {
		return nil
	}
	e.change(true, func() { e.ports, e.team = w.exportedPorts(), "" })
	svc := w.far[e.remote.short].asService(e)
	return w.exportedStep(e, fmt.Sprintf("is deleted and recreated with ports %v", e.ports), func(r *remote) error {
		if err := w.delete(r.cluster, w.long(e.namespace), e.name); err != nil {
			return err
		}
		return w.createIn(r.cluster, svc)
	})
}

func (w *walk) randomPort() modelPort {
	return modelPort{
		name:     any1(w, "http", "https", "grpc", "db", "dns"),
		number:   any1[int32](w, 80, 443, 8080, 5432, 53),
		protocol: any1(w, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP),
		app:      any1(w, "", "", "http", "kubernetes.io/ws", "grpc", "kubernetes.io/h2c"),
	}
}

func (w *walk) randomPorts() []modelPort {
	ports := []modelPort{w.randomPort()}
	for range w.rnd.IntN(3) {
		if more := append(slices.Clone(ports), w.randomPort()); allowed(more) {
			ports = more
		}
	}
	return ports
}

// exportedPorts are those of an exported Service.
func (w *walk) exportedPorts() []modelPort {
	if w.joins() && w.rnd.IntN(6) > 0 {
		return any1(w, ownPorts...)
	}
	return w.randomPorts()
}

// joins: a Service in London is served by several remotes. Most of the time, what they export must fit together.
func (w *walk) joins() bool { return w.failing != nil || w.merged != nil }

// allowed: an API server takes these ports.
func allowed(ports []modelPort) bool {
	names, numbers := map[string]bool{}, map[string]bool{}
	for _, p := range ports {
		names[p.name], numbers[fmt.Sprint(p.number, p.protocol)] = true, true
	}
	return len(ports) > 0 && len(names) == len(ports) && len(numbers) == len(ports)
}

func (w *walk) changePorts() *step {
	e, ok := pick(w, w.entries(), func(e *entry) bool { return e.exported })
	if !ok {
		return nil
	}
	ports, other := slices.Clone(e.ports), w.randomPort()
	i := w.rnd.IntN(len(ports))
	switch w.rnd.IntN(6) {
	case 0:
		ports[i].number = other.number
	case 1:
		ports[i].name = other.name
	case 2:
		ports[i].protocol = other.protocol
	case 3:
		ports[i].app = other.app
	case 4:
		ports = append(ports, other)
	case 5:
		ports = slices.Delete(ports, i, i+1)
	}
	if w.joins() && w.rnd.IntN(2) > 0 {
		ports = any1(w, ownPorts...)
	}
	changed := &entry{exported: true, ports: ports}
	if !allowed(ports) || e.foreign == underTheMirror && !changed.mirrorable() {
		return nil
	}
	e.change(false, func() { e.ports = ports })
	return w.portsStep(e)
}

func (w *walk) portsStep(e *entry) *step {
	ports := slices.Clone(e.ports)
	return w.exportedStep(e, fmt.Sprintf("has ports %v", ports), func(r *remote) error {
		return w.update(r.cluster, w.long(e.namespace), e.name, func(svc *corev1.Service) { svc.Spec.Ports = servicePorts(ports) })
	})
}

// changeLabels changes a label that is copied, and one that is not.
func (w *walk) changeLabels() *step {
	e, ok := pick(w, w.entries(), func(e *entry) bool { return e.exported })
	if !ok {
		return nil
	}
	team, other := any1(w, "", "red", "blue"), fmt.Sprint(w.rnd.IntN(100))
	e.change(false, func() { e.team = team })
	return w.exportedStep(e, fmt.Sprintf("is labelled team=%s", team), func(r *remote) error {
		return w.update(r.cluster, w.long(e.namespace), e.name, func(svc *corev1.Service) {
			setTeam(svc, team)
			svc.Labels["other"] = other
		})
	})
}

var gatewayPorts = [][]modelPort{
	{{"all", 8080, corev1.ProtocolTCP, ""}},
	{{"http", 80, corev1.ProtocolTCP, ""}, {"https", 443, corev1.ProtocolTCP, ""}},
	{{"web", 80, corev1.ProtocolTCP, "http"}, {"rpc", 81, corev1.ProtocolTCP, "kubernetes.io/h2c"}, {"db", 15432, corev1.ProtocolTCP, ""}},
	{{"http", 80, corev1.ProtocolTCP, ""}, {"names", 53, corev1.ProtocolUDP, ""}, {"any", 9000, corev1.ProtocolUDP, ""}},
	{{"web", 8080, corev1.ProtocolTCP, "http"}, {"all", 9000, corev1.ProtocolUDP, ""}},
}

// randomAddresses are some, or one, or now and then none.
func (w *walk) randomAddresses() []string {
	pool := []string{"203.0.113.1", "203.0.113.2", "203.0.113.3", "198.51.100.200", "198.51.100.201", theLinkLocal}
	w.rnd.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	if w.joins() { // most of the time one of them can be used
		return pool[:any1(w, 0, 1, 1, 2, 2, 2, 3, 3, 3, 5)]
	}
	return pool[:any1(w, 0, 1, 1, 1, 2, 2, 3, 5)]
}

func (w *walk) gatewayStep(there bool, what string, change func(*modelRemote), act func(*remote, *modelRemote) error) *step {
	r, ok := pick(w, w.remotes, func(r *modelRemote) bool { return r.there == there })
	if !ok {
		return nil
	}
	r.changeGateway(func() { change(r) })
	now, far := *r, w.far[r.short]
	return &step{
		text:    fmt.Sprintf("gateway of %s %s: addresses %v, ports %v", r.short, what, r.addresses, r.ports),
		touches: []string{"gateway/" + r.short}, act: func() error { return act(far, &now) },
	}
}

func (w *walk) changeAddresses() *step {
	return w.gatewayStep(true, "has other addresses", func(r *modelRemote) { r.addresses = w.randomAddresses() }, w.setAddresses)
}

func (w *walk) changeGatewayPorts() *step {
	return w.gatewayStep(true, "has other ports", func(r *modelRemote) { r.ports = any1(w, gatewayPorts...) },
		func(r *remote, now *modelRemote) error {
			return w.update(r.cluster, w.id, "gateway", func(svc *corev1.Service) { svc.Spec.Ports = w.gatewayPorts(now) })
		})
}

func (w *walk) deleteGateway() *step {
	return w.gatewayStep(true, "is deleted", func(r *modelRemote) { r.there = false },
		func(r *remote, _ *modelRemote) error { return w.delete(r.cluster, w.id, "gateway") })
}

func (w *walk) makeGateway() *step {
	return w.gatewayStep(false, "is made", func(r *modelRemote) {
		r.there, r.addresses, r.ports = true, w.randomAddresses(), any1(w, gatewayPorts...)
	}, w.createGateway)
}

func (w *walk) removeNamespace() *step {
	name, ok := pick(w, w.namespaces, func(name string) bool { return w.existing[name] })
	if !ok || w.swapping() { // else it would be of importance which mirrors are already in the other one
		return nil
	}
	w.deleteNamespace(name)
	return &step{text: "namespace " + name + " is deleted", touches: []string{"london/" + name}, act: func() error { return w.deleteLondonNamespace(name) }}
}

func (w *walk) makeNamespaceAgain() *step {
	name, ok := pick(w, w.namespaces, func(name string) bool { return !w.existing[name] })
	if !ok {
		return nil
	}
	w.existing[name] = true
	return &step{text: "namespace " + name + " is recreated", touches: []string{"london/" + name}, act: func() error { return w.createLondonNamespace(name) }}
}

// trouble starts a fault of a remote, another one than it has.
func (w *walk) trouble() *step {
	r := any1(w, w.remotes...)
	f := any1(w, faults...)
	if f == r.fault || r.fault.removed {
		return nil
	}
	return w.faultStep(r, f)
}

func (w *walk) healOne() *step {
	r, ok := pick(w, w.remotes, func(r *modelRemote) bool { return r.fault != fault{} && !r.fault.removed })
	if !ok {
		return nil
	}
	return w.faultStep(r, fault{})
}

func (w *walk) faultStep(r *modelRemote, f fault) *step {
	w.setFault(r, f)
	what := f.name
	if what == "" {
		what = "is healthy"
	}
	far := w.far[r.short]
	return &step{text: r.short + " " + what, touches: []string{"trouble/" + r.short}, act: func() error {
		far.suffer(f, w.plain[r.short])
		return nil
	}}
}

func (w *walk) killDaemon() *step { return w.endStep("killed", (*daemon).kill) }

func (w *walk) stopDaemon() *step { return w.endStep("stopped", (*daemon).stop) }

func (w *walk) endStep(how string, end func(*daemon)) *step {
	if !w.runs {
		return nil
	}
	w.kill()
	return &step{text: "the daemon is " + how, touches: []string{"daemon"}, act: func() error { return w.endDaemon(end) }}
}

func (w *walk) startAgain() *step {
	if w.runs {
		return nil
	}
	return &step{text: "the daemon is started", touches: []string{"daemon"}, act: w.starter()}
}

// restart is a step that the daemon, which runs, is restarted in. The model is as it is to be after that; between is done in
// between.
func (w *walk) restart(text string, end func(*daemon), between func() error) *step {
	w.kill()
	start := w.starter()
	return &step{text: text, alone: true, act: func() error {
		for _, act := range []func() error{func() error { return w.endDaemon(end) }, between, start} {
			if err := act(); err != nil {
				return err
			}
		}
		return nil
	}}
}

// restartInTrouble also waits until a new daemon goes on without what it cannot read.
func (w *walk) restartInTrouble() *step {
	if !w.runs || !slices.ContainsFunc(w.remotes, func(r *modelRemote) bool { return r.fault != fault{} }) {
		return nil
	}
	w.kill()
	start := w.starter()
	return &step{text: "the daemon is killed and started, and time passes", touches: []string{"daemon"}, act: func() error {
		if err := w.endDaemon((*daemon).kill); err != nil {
			return err
		}
		defer time.Sleep(3 * time.Second) // the absence of writes cannot be awaited
		return start()
	}}
}

// removeRemote restarts the daemon with one remote less.
func (w *walk) removeRemote() *step {
	if !w.runs || w.renaming() || slices.ContainsFunc(w.remotes, func(r *modelRemote) bool { return r.fault.removed }) {
		return nil
	}
	r := any1(w, w.remotes...)
	w.setFault(r, removed)
	if w.merged != nil {
		w.merged.reconfigured(r, w.sharedMirrors())
	}
	return w.restart("the daemon is restarted without "+r.short, (*daemon).stop, w.atRest(r))
}

// addRemote restarts it with that remote again.
func (w *walk) addRemote() *step {
	r, ok := pick(w, w.remotes, func(r *modelRemote) bool { return r.fault.removed })
	if !ok || !w.runs {
		return nil
	}
	w.setFault(r, fault{})
	if w.merged != nil {
		w.merged.reconfigured(r, w.sharedMirrors())
	}
	return w.restart("the daemon is restarted with "+r.short+" again", (*daemon).stop, w.atRest(r))
}

// atRest ends the trouble of a remote.
func (w *walk) atRest(r *modelRemote) func() error {
	return func() error {
		w.far[r.short].suffer(fault{}, w.plain[r.short])
		return nil
	}
}

// heal ends a fault.
func (w *walk) heal() (all []*step) {
	if s := w.addRemote(); s != nil {
		all = append(all, s)
	}
	for _, r := range w.remotes {
		if (r.fault != fault{}) {
			all = append(all, w.faultStep(r, fault{}))
		}
		if w.taken == 0 {
			r.there, r.addresses, r.ports = true, []string{"203.0.113.1"}, gatewayPorts[0]
			now := *r
			all = append(all, &step{text: "gateway", act: func() error { return w.createGateway(w.far[r.short], &now) }})
		}
	}
	if s := w.startAgain(); s != nil {
		all = append(all, s)
	}
	if w.taken == 0 && w.failing != nil {
		all = append(all, w.beginFailover()...)
	}
	if w.renaming() {
		all = append(all, w.agree()...)
	}
	return all
}
