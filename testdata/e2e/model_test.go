package e2e

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// The model of the random walk: what must exist in London, derived from deploy/guides/behaviour.md and
// from nothing that the daemon knows. It does no I/O.

type modelPort struct {
	name     string
	number   int32
	protocol corev1.Protocol
	app      string // appProtocol; empty: none
}

func (p modelPort) String() string {
	return fmt.Sprintf("%s:%d/%s %s", p.name, p.number, p.protocol, p.app)
}

// class is what a TCP port speaks: by its application, its name or its number.
func (p modelPort) class() string {
	for _, known := range []string{
		map[string]string{"http": "http", "kubernetes.io/ws": "http", "grpc": "grpc", "kubernetes.io/h2c": "grpc"}[p.app],
		map[string]string{"http": "http", "web": "http", "https": "https", "grpc": "grpc", "dns": "tcp"}[p.name],
		map[int32]string{80: "http", 8080: "http", 443: "https", 53: "tcp", 5432: "tcp"}[p.number],
	} {
		if known != "" {
			return known
		}
	}
	return ""
}

// serves is the gateway's port for one of an exported Service: of the same class, where one that is
// not known is HTTP; by name, 80 or 443, number, or the lowest.
func serves(gateway []modelPort, p modelPort) (int32, bool) {
	class := cmp.Or(p.class(), "http")
	gateway = slices.DeleteFunc(slices.Clone(gateway), func(g modelPort) bool {
		return g.protocol != corev1.ProtocolTCP || p.protocol != corev1.ProtocolTCP || class == "tcp" || g.class() != class
	})
	slices.SortFunc(gateway, func(a, b modelPort) int { return cmp.Compare(a.number, b.number) })
	for _, fits := range []func(g modelPort) bool{
		func(g modelPort) bool { return g.name == p.name },
		func(g modelPort) bool { return g.number == 80 || g.number == 443 },
		func(g modelPort) bool { return g.number == p.number },
		func(modelPort) bool { return true },
	} {
		// Of 80 and 443, and of all, the one with the same number comes first.
		fit := slices.DeleteFunc(slices.Clone(gateway), func(g modelPort) bool { return !fits(g) })
		if i := slices.IndexFunc(fit, func(g modelPort) bool { return g.number == p.number }); i >= 0 {
			return fit[i].number, true
		}
		if len(fit) > 0 {
			return fit[0].number, true
		}
	}
	return 0, false
}

// foreign is a user's object that has a mirror's name.
type foreign string

const (
	none           foreign = ""
	withSelector   foreign = "a Service with a selector"
	withEndpoints  foreign = "a Service without a selector, and Endpoints"
	loneEndpoints  foreign = "lone Endpoints"
	underTheMirror foreign = "Endpoints in place of the mirror's"
)

// since is what has happened to an exported Service or its gateway since the last rest.
type since struct {
	changed     bool // its mirror may be another now
	interrupted bool // its mirror may have been gone for a moment
}

func (s *since) add(other since) {
	s.changed = s.changed || other.changed
	s.interrupted = s.interrupted || other.interrupted
}

// entry is a name in London, and the Service in a remote whose mirror has it.
type entry struct {
	remote          *modelRemote
	namespace, name string

	there, exported bool
	ports           []modelPort
	team            string // a label that is copied
	foreign         foreign

	// What the daemon may have heard of since the last rest, and what it cannot have,
	// for the remote is cut off.
	since, hidden since
	wanted        bool          // the mirror was wanted at some time since the last rest, or at it
	deleted       bool          // a user has deleted the mirror Service
	forgotten     bool          // and no daemon that saw it still runs
	edited        bool          // a user has changed where it routes to
	moves         bool          // the rule for names has changed: it, or the one with the other name, exists
	had           [][]modelPort // the ports that it was mirrored with since the last rest, or at it

	// What was seen of it. No step depends on this.
	existed        bool // at the last rest
	uid, clusterIP string
	lines          []string // where it routed to, then
	theirs         snapshots
	note           note
}

// snapshots are foreign objects, byte for byte; empty: none.
type snapshots struct{ service, endpoints string }

// note is a label that a user has put on a mirror Service.
type note struct{ uid, value string }

func (e *entry) String() string {
	return fmt.Sprintf("%s/%s/%s", e.remote.short, e.namespace, e.name)
}

// mirrorable reports whether the exported Service is one that is mirrored.
func (e *entry) mirrorable() bool {
	return e.exported && slices.ContainsFunc(e.ports, func(p modelPort) bool { return p.protocol == corev1.ProtocolTCP })
}

type modelRemote struct {
	short     string
	fault     fault
	there     bool // its gateway Service
	addresses []string
	ports     []modelPort
	entries   []*entry
	own       namingRule // of --remote; without a template, that of --name-template counts
	naming    namingRule // how its mirrors are called
	before    namingRule // the same at the last rest
	known     knowledge  // what the daemon that runs knows of it
	moved     bool       // since the last rest, the flags did not name it for a while
	// sure means that it is cut off, and was before the steps that are under way. shaken: one of these changes that.
	sure, shaken bool
}

// knowledge is what the daemon knows of a remote.
type knowledge string

const (
	known     knowledge = ""          // what it was at the last rest, and what came since then if it could be seen
	coming    knowledge = "coming"    // the same, soon: nothing is in the way
	uncertain knowledge = "uncertain" // the same, or nothing
	unknown   knowledge = "unknown"   // nothing: the daemon was started while the remote was in trouble
)

// usable are the gateway's addresses but for one that may not be used.
func (r *modelRemote) usable() []string {
	return slices.DeleteFunc(slices.Clone(r.addresses), func(address string) bool { return address == theLinkLocal })
}

type model struct {
	namespaces []string // by their short names
	existing   map[string]bool
	remotes    []*modelRemote
	failing    []*failoverService
	merged     *mergedModel // nil: mirrors are not
	template   string       // --name-template
	runs       bool         // the daemon does
	sure       bool         // and did before the steps under way
	restarted  bool         // since the last rest
	first      bool         // the next step is the first one since then
}

// theLinkLocal address is one that a gateway may not have.
const theLinkLocal = "169.254.169.254"

func newModel(remotes, namespaces, names []string) *model {
	m := &model{namespaces: namespaces, existing: map[string]bool{}, template: templates[0]}
	for _, namespace := range namespaces {
		m.existing[namespace] = true
	}
	for _, remote := range remotes {
		naming := namingRule{template: m.template}
		r := &modelRemote{short: remote, naming: naming, before: naming}
		for _, namespace := range namespaces {
			for _, name := range names {
				r.entries = append(r.entries, &entry{remote: r, namespace: namespace, name: name})
			}
		}
		m.remotes = append(m.remotes, r)
	}
	return m
}

func (m *model) entries() (all []*entry) {
	for _, r := range m.remotes {
		all = append(all, r.entries...)
	}
	return all
}

// begin is called before steps that are taken at once: what one of them does to a
// remote or to the daemon may come before or after the others.
func (m *model) begin() {
	m.sure = m.runs
	for _, r := range m.remotes {
		r.sure, r.shaken = r.fault.blackout, false
	}
	for _, f := range m.failing {
		f.flipsNow = false
	}
}

// mirrored reports whether the mirror Service must exist at rest.
func (m *model) mirrored(e *entry) bool {
	return m.existing[e.home()] && e.mirrorable() && (e.foreign == none || e.foreign == underTheMirror)
}

// leads is where the mirror must route to, in the form of fromEndpoints.
func (e *entry) leads() []string {
	var lines []string
	if !e.remote.there {
		return lines
	}
	for _, p := range e.ports {
		target, ok := serves(e.remote.ports, p)
		for _, address := range e.remote.usable() {
			if ok {
				lines = append(lines, endpoint(address, p.name, target, p.protocol, true))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// change changes the exported Service. Between, it may be another one or none.
func (e *entry) change(interrupts bool, change func()) {
	was := e.mirrorable()
	change()
	e.wanted = e.wanted || was || e.mirrorable()
	e.has()
	e.happened(since{changed: true, interrupted: interrupts || !e.mirrorable()})
}

// has notes the ports that it has now.
func (e *entry) has() {
	if e.mirrorable() {
		e.had = append(e.had, slices.Clone(e.ports))
	}
}

func (e *entry) happened(what since) {
	if e.remote.sure {
		e.hidden.add(what)
	} else {
		e.since.add(what)
	}
}

// changeGateway changes what the remote's gateway is.
func (r *modelRemote) changeGateway(change func()) {
	change()
	for _, e := range r.entries {
		e.happened(since{changed: true})
	}
}

// setFault puts a remote into trouble, or ends it.
func (m *model) setFault(r *modelRemote, f fault) {
	r.fault, r.sure, r.shaken = f, false, true
	for _, e := range r.entries {
		e.since.add(e.hidden)
		e.hidden = since{}
	}
	if r.known != known {
		m.learn(r, uncertain)
	}
}

func (m *model) kill() {
	m.runs, m.sure = false, false
	for _, e := range m.entries() {
		e.forgotten = e.forgotten || e.deleted
	}
}

// started is called when the daemon is.
func (m *model) started() {
	m.runs, m.restarted = true, true
	for _, r := range m.remotes {
		switch {
		case r.fault.removed, r.fault.silent() && !r.shaken:
			m.learn(r, unknown)
		case r.fault == fault{} && !r.shaken:
			m.learn(r, coming)
		default:
			m.learn(r, uncertain)
		}
	}
	for _, f := range m.failing {
		f.flips = f.flipsNow // the others are what it was like when the daemon started
	}
}

// learn is called when what the daemon knows of a remote changes. Where that was unknown, another remote may serve now.
func (m *model) learn(r *modelRemote, now knowledge) {
	if r.known == unknown && now != unknown {
		for _, f := range m.failing {
			f.flipped = f.flipped || f.provisional && slices.Contains(f.listed, r.short)
		}
	}
	r.known = now
}

func (m *model) deleteMirror(e *entry) {
	e.deleted, e.edited = true, true // Kubernetes deletes the Endpoints with it
	e.forgotten = e.forgotten || !m.sure
}

func (m *model) deleteNamespace(name string) {
	m.existing[name] = false
	for _, e := range m.entries() {
		if e.home() == name || e.moves && e.remote.before.home(e.namespace) == name {
			e.since.interrupted, e.foreign = true, none
		}
	}
	for _, f := range m.failing {
		if f.namespace == name {
			f.there, f.changed = false, true
		}
	}
}

// A mirror that existed at the last rest and must not have gone since, whatever the
// remote does: exists. routesOn: and it must route where it did.
func (e *entry) exists() bool { return e.existed && !e.since.interrupted && !e.deleted }

func (e *entry) routesOn() bool {
	return e.exists() && !e.since.changed && !e.edited && !e.moves && len(e.lines) > 0
}

// keepsAddress: it may have gone, but comes back with its ClusterIP.
func (e *entry) keepsAddress() bool {
	return e.existed && !e.since.interrupted && !e.forgotten && !e.moves
}

// rested begins the time after a rest.
func (m *model) rested() {
	for _, e := range m.entries() {
		e.since, e.wanted = since{}, m.mirrored(e)
		e.deleted, e.forgotten, e.edited, e.moves = false, false, e.foreign == underTheMirror, false
		e.existed, e.had = m.mirrored(e), nil
		e.has()
	}
	m.restarted, m.first = false, true
	for _, r := range m.remotes {
		r.before, r.known, r.moved = r.naming, known, false
	}
	for _, f := range m.failing {
		f.rested()
	}
}

// movable: nothing of a user's has, or may have, one of the names.
func (r *modelRemote) movable() bool {
	return !slices.ContainsFunc(r.entries, func(e *entry) bool { return e.moves || e.foreign != none || e.deleted })
}

// usable: a user edits, or takes over, what the daemon has made.
func (m *model) usable(e *entry) bool {
	return m.existing[e.home()] && e.foreign == none && !e.moves
}

// free: no mirror has been there, and none is wanted: a user's lone Endpoints can be made.
func (m *model) free(e *entry) bool { return m.usable(e) && !e.wanted && !e.exported }

// secure: the mirror is there and will be, and Kubernetes' controllers are done with it.
func (m *model) secure(e *entry) bool {
	return m.usable(e) && m.mirrored(e) && e.exists() && !e.edited && e.hidden == since{}
}
