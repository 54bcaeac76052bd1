package status

import (
	"slices"
	"strings"
)

// summarize sets the headline and the notices below it.
func (v *view) summarize() {
	remotes := v.lostRemotes()
	other := 0
	for i := range v.Page.Remotes {
		if r := &v.Page.Remotes[i]; !r.healthy() && !r.lost() {
			other++
		}
	}
	v.headline(remotes, other)
	unhealthy := len(remotes) + other + v.Unhealthy
	switch {
	case !v.Synced || unhealthy > 0:
	case len(v.Page.Remotes) == 0:
		v.say("off", "Nothing to do")
	default:
		v.say(v.Tone, "Everything is "+v.verification())
	}
	v.failoverNotice(unhealthy == 0)
	if v.Unknown > 0 {
		v.Notices = append(v.Notices, noun(v.Unknown, "object")+" with a mirror's labels "+verb(v.Unknown, "is", "are")+
			" of remotes that are not configured: configure the remote, or run service-mirror prune.")
	}
	v.notice()
}

func (v *view) say(tone, headline string) { v.Tone, v.Headline = tone, headline }

// lostRemotes says how many remotes are lost.
func (v *view) lostRemotes() (parts []clause) {
	down, refused := 0, 0
	for i := range v.Page.Remotes {
		switch v.Page.Remotes[i].State {
		case Down:
			down++
		case Refused:
			refused++
		}
	}
	if down > 0 {
		parts = append(parts, clause{"bad", noun(down, "remote") + verb(down, " is", " are") + " unreachable"})
	}
	if refused > 0 {
		parts = append(parts, clause{"bad", noun(refused, "remote") + verb(refused, " is", " are") + " answered by another cluster"})
	}
	return parts
}

// clause is a part of the headline.
type clause struct{ tone, text string }

// inHeadline is how many clauses it has at most: the problems below have all.
const inHeadline = 2

// clauses say what is wrong, the worst first: what was lost, then what is wrong with rows, then how many more parts are
// unhealthy.
func (v *view) clauses(lost []clause, unhealthy int) []clause {
	clauses := slices.Clone(lost)
	for at, n := range v.bySeverity[:fine] {
		if n > 0 {
			clauses = append(clauses, clause{worse("warn", severity(at).tone()), v.Words.Texts.of(severity(at), n)})
		}
	}
	if unhealthy > 0 {
		clauses = append(clauses, clause{"warn", noun(unhealthy, v.Words.Part) + verb(unhealthy, " is", " are") + " unhealthy"})
	}
	return clauses
}

// headline says that of a page, or that nothing is wrong.
func (v *view) headline(lost []clause, unhealthy int) {
	clauses := v.clauses(lost, unhealthy)
	tone := "ok"
	var shown []string
	for i, c := range clauses {
		if tone = worse(tone, c.tone); i < inHeadline {
			shown = append(shown, c.text)
		}
	}
	if more := len(clauses) - inHeadline; more > 0 {
		shown = append(shown, "and more")
	}
	switch {
	case !v.Synced:
		v.say("info", "Not ready yet")
		v.Notices = append(v.Notices, v.Words.Cluster+" has not been read yet: nothing is written until it has been.")
	case len(clauses) == 0:
		v.say(tone, "Everything is healthy")
	default:
		v.say(tone, strings.Join(shown, ", "))
	}
}

// worse is the worse of two tones.
func worse(a, b string) string {
	if b == "bad" || a == "ok" {
		return b
	}
	return a
}

// verification says how much is known of whether requests arrive.
func (v *view) verification() string {
	known := 0
	for i := range v.Page.Mirrors {
		if result := v.Page.Mirrors[i].Verified; result == Reached || result == NotKnown { // of the others there is a problem
			known++
		}
	}
	switch {
	case known == len(v.Page.Mirrors):
		return "healthy"
	case known == 0:
		return "mirrored, " + NotVerified
	}
	return "mirrored, " + count(known) + " of " + count(len(v.Page.Mirrors)) + " verified"
}
