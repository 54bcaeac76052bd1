package status

import (
	"fmt"
	"slices"
	"strings"

	"service-mirror.io/service-mirror/mirror/plan"
)

// box is all that is wrong with one remote: one problem, whatever follows from it for its mirrors.
type box struct {
	*Remote
	collected
	mirrors  int // of the remote that exist
	followed int // rows whose problem follows from it
	last     *Mirror
	worst    severity // of these
}

// boxes are those of the remotes that are not healthy, by name.
func (v *view) boxes() map[string]*box {
	boxes := map[string]*box{}
	for i := range v.Page.Remotes {
		if r := &v.Page.Remotes[i]; !r.healthy() {
			boxes[r.Name] = &box{Remote: r, collected: collected{byText: map[string]int{}}, mirrors: v.perRemote[r.Name].exist, worst: fine}
		}
	}
	return boxes
}

// lost reports whether nothing of the remote is followed.
func (r *Remote) lost() bool { return r.State == Down || r.State == Refused }

// addresses counts those of its gateways, and those that are not ready.
func (r *Remote) addresses() (all, unready int) {
	for _, g := range r.Gateways {
		all += len(g.Addresses)
		for _, a := range g.Addresses {
			if a.Health == NotReady {
				unready++
			}
		}
	}
	return all, unready
}

// unknown reports whether a gateway is not known.
func (r *Remote) unknown() bool {
	return slices.ContainsFunc(r.Gateways, func(g Gateway) bool { return !g.Known })
}

// missesAddresses reports whether mirrors lack addresses for a gateway's sake. One that has a problem may have all of its
// addresses, or some.
func (r *Remote) missesAddresses() bool {
	return slices.ContainsFunc(r.Gateways, func(g Gateway) bool { return !g.Known || len(g.Addresses) == 0 })
}

// unread reports whether some of the remote cannot be read.
func (r *Remote) unread() bool {
	return slices.ContainsFunc(r.Problems, func(p Problem) bool { return strings.HasPrefix(p.Part, "watch of ") })
}

// unreported is a gateway's problem, unless it is among those of the remote.
func (g *Gateway) unreported(of []Problem) string {
	if slices.ContainsFunc(of, func(p Problem) bool { return p.Cause == g.Problem }) {
		return ""
	}
	return g.Problem
}

// unready reports whether all addresses of a gateway are.
func (g *Gateway) unready() bool {
	return len(g.Addresses) > 0 && !slices.ContainsFunc(g.Addresses, func(a Address) bool { return a.Health != NotReady })
}

// explains reports whether the state of the remote explains a mirror's problem.
func (b *box) explains(reason string) bool {
	switch reason {
	case string(plan.NoAddress):
		return b.lost() || b.missesAddresses()
	case string(plan.NotReached), string(plan.NoHealthyAddress):
		return b.lost() || b.missesAddresses() || slices.ContainsFunc(b.Gateways, func(g Gateway) bool { return g.unready() })
	case reasonWaiting, reasonEmpty:
		return b.State != Up
	}
	return false
}

// follow notes a mirror whose problem the remote's explains.
func (b *box) follow(m *Mirror) {
	if b.last == m {
		return
	}
	b.last = m
	b.followed++
	b.worst = min(b.worst, m.severity())
	b.note("Affected mirrors:", m.Namespace+"/"+m.Name)
}

// group is what the page shows of it.
func (b *box) group(v *view) group {
	b.severity, b.title = b.worst, "Remote "+b.Name
	what, least := b.what(v)
	b.severity = min(b.severity, least)
	lines := b.causes()
	g := group{severity: b.severity, Tone: b.severity.tone(), Title: b.title, What: what, Remedy: b.remedy(), size: max(1, b.followed)}
	if b.State == Connecting {
		g.Tone = "info"
	}
	g.Lines = newList(append(lines, b.lines...), messagesAt)
	if b.followed > 0 {
		g.Links = []chip{{Label: "Show its unhealthy mirrors in the table", Link: v.rowsLink(v.Filter.none().withRemote(b.Name).withState(unhealthy))}}
	}
	return g
}

// what says what is wrong with the remote in a few words, and how severe that is at least.
func (b *box) what(v *view) (string, severity) {
	kept := effectOf(v, b)
	if kept == "" && b.mirrors > 0 {
		kept = "; its " + noun(b.mirrors, "mirror") + " " + verb(b.mirrors, "is", "are") + " kept unchanged"
	}
	all, unready := b.addresses()
	switch {
	case b.State == Refused:
		return "another cluster answers in its name" + kept, unreachable
	case b.State == Down && b.LastSync.IsZero():
		return "no contact yet" + kept, unreachable
	case b.State == Down:
		return "lost contact" + sinceText(v, b.Remote) + kept, unreachable
	case b.State == Connecting:
		return "connecting" + kept, warned
	case b.unknown() && b.followed == 0:
		return "its gateway is not known; its mirrors keep their endpoints", partial
	case b.unknown():
		return "its gateway is not known" + effectOf(v, b), unreachable
	case b.missesAddresses():
		return "its gateway has no address" + effectOf(v, b), unreachable
	case all > 0 && unready == all:
		return "no address of its gateway is ready" + effectOf(v, b), unreachable
	case unready > 0:
		return fmt.Sprintf("%s of %s gateway addresses %s not ready", count(unready), count(all), verb(unready, "is", "are")) + effectOf(v, b), partial
	case b.unread():
		return "not all of it can be read", partial
	case slices.ContainsFunc(b.Problems, func(p Problem) bool { return p.Part == "identity" }): // which it has, although it is up
		return "a replaced cluster cannot be detected; its mirrors are updated", partial
	case slices.ContainsFunc(b.Gateways, func(g Gateway) bool { return g.Problem != "" }):
		return "its gateway has a problem", partial
	}
	return "its configuration has a problem", partial
}

// effectOf says what follows from it for mirrors.
func effectOf(v *view, b *box) string {
	if b.followed == 0 {
		return ""
	}
	return "; " + v.Words.Texts.of(min(b.worst, warned), b.followed)
}

// sinceText is how long ago the remote's state began.
func sinceText(v *view, r *Remote) string {
	if r.Since.IsZero() {
		return ""
	}
	return " " + ago(r.Since, v.Now)
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// causes are what its parts report, each cause once.
func (b *box) causes() []groupLine {
	c := collected{byText: map[string]int{}}
	for _, p := range b.Problems {
		c.note(p.Cause, p.Part)
	}
	for _, g := range b.Gateways {
		if problem := g.unreported(b.Problems); problem != "" {
			c.note(problem, "gateway "+g.Name)
		}
		for _, a := range g.Addresses {
			if a.Health == NotReady {
				c.note("does not answer probes", a.IP)
			}
		}
		if g.Known && g.Problem == "" && len(g.Addresses) == 0 {
			c.note("it has no address", "gateway "+g.Name)
		}
	}
	return c.lines
}

// remedy is what can be done about the remote.
func (b *box) remedy() string {
	if b.State == Connecting {
		return "wait a few seconds"
	}
	if b.State == Refused {
		return "fix its kubeconfig or, if the cluster was replaced, confirm the new one with uid= in --remote"
	}
	for _, p := range b.Problems {
		if remedy := remedyOfCause(p); remedy != "" {
			return remedy
		}
	}
	_, unready := b.addresses()
	switch {
	case b.State == Down:
		return "check that its API server runs and can be reached from this cluster; contact is retried"
	case b.unknown() && len(b.Problems) == 0:
		return unrecorded[reasonWaiting].remedy
	case b.missesAddresses() && !b.unknown():
		return "give the gateway an address, or set address= in --remote"
	case unready > 0:
		return plan.NoHealthyAddress.Remedy()
	}
	return "fix what the message names; it is retried"
}

// remedyOfCause is what can be done about a cause that has a remedy of its own.
func remedyOfCause(p Problem) string {
	cause := strings.ToLower(p.Cause)
	contains := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(cause, text) })
	}
	switch {
	case p.Part == "kubeconfig":
		return "fix its kubeconfig; it is read again when it changes"
	case contains("unauthorized", "provide credentials"):
		return "renew its credentials, as with service-mirror link; they are read again when they change"
	case contains("forbidden"):
		return "grant its account what the message names, as with service-mirror link"
	case contains("x509", "certificate"):
		return "fix the certificate of its API server, or the certificate authority in its kubeconfig"
	}
	return ""
}
