package status

import (
	"slices"
	"strings"

	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
)

// severity is how much of the traffic to a row fails, the worst first. It orders the rows and the problems, and says in
// the headline what a number of unhealthy rows means.
type severity int

// The severities. A mirror that serves nothing comes before one that never existed: traffic that worked may fail.
const (
	dead        severity = iota // a mirror without a ready endpoint
	unreachable                 // a mirror with endpoints at which no request arrives
	absent                      // an exported Service without a mirror, or that is not published
	partial                     // some of it serves
	orphaned                    // its exported Service is gone
	warned                      // all of it serves, but something must be known of it
	fine
)

// tone is the colour of what has this severity.
func (s severity) tone() string {
	switch s {
	case dead, unreachable:
		return "bad"
	case absent, partial, warned:
		return "warn"
	case orphaned:
		return "off"
	}
	return "ok"
}

// texts say of a number of rows of each severity what is wrong with them; %s is the number.
type texts [fine]struct{ one, many string }

var (
	mirrorTexts = texts{
		dead:        {"1 mirror has no endpoints", "%s mirrors have no endpoints"},
		unreachable: {"1 mirror is unreachable", "%s mirrors are unreachable"},
		absent:      {"1 exported Service is not mirrored", "%s exported Services are not mirrored"},
		partial:     {"1 mirror is incomplete", "%s mirrors are incomplete"},
		orphaned:    {"1 mirror is an orphan", "%s mirrors are orphans"},
		warned:      {"1 mirror has a warning", "%s mirrors have warnings"},
	}
	serviceTexts = texts{
		absent:  {"1 exported Service is not published", "%s exported Services are not published"},
		partial: {"1 exported Service is incomplete", "%s exported Services are incomplete"},
		warned:  {"1 exported Service has a warning", "%s exported Services have warnings"},
	}
)

// of is what is wrong with n rows.
func (t *texts) of(s severity, n int) string {
	if n == 1 {
		return t[s].one
	}
	return strings.Replace(t[s].many, "%s", count(n), 1)
}

// exists reports whether the mirror of an exported Service exists: every Service that does has a ClusterIP.
func (m *Mirror) exists() bool {
	return m.ClusterIP != "" || len(m.Endpoints) > 0 || m.State == Mirrored || m.State == Incomplete || m.State == Orphan
}

// notReady ends the text of an endpoint that gets no traffic.
const notReady = " (not ready)"

// severity is that of a mirror.
func (m *Mirror) severity() severity {
	switch {
	case m.healthy():
		return fine
	case m.State == Orphan:
		return orphaned
	case !m.exists():
		return absent
	case m.Role == Standby: // another remote serves the mirror
		return warned
	case m.noneReady() || len(m.Endpoints) == 0 && m.State != Mirrored:
		return dead
	case m.unreachable():
		return unreachable
	case m.State == Mirrored:
		return warned
	}
	return partial
}

// severityOf is that of one of its problems.
func (m *Mirror) severityOf(reason string) severity {
	if plan.Reason(reason).State() == plan.StateMirrored { // it is not why the mirror does not serve
		return max(m.severity(), warned)
	}
	return m.severity()
}

// noneReady reports whether it has endpoints, of which none gets traffic, though no other remote's do.
func (m *Mirror) noneReady() bool {
	return m.Role != Standby && len(m.Endpoints) > 0 && !slices.ContainsFunc(m.Endpoints, func(e string) bool { return !strings.HasSuffix(e, notReady) })
}

// unreachable reports whether no request arrives, though there are endpoints.
func (m *Mirror) unreachable() bool {
	if m.Verified != "" && verify.Result(m.Verified).Wrong() {
		return true
	}
	return slices.ContainsFunc(m.Problems, func(p MirrorProblem) bool {
		switch plan.Reason(p.Reason) {
		case plan.NotReached, plan.NotRouted, plan.NoReadyEndpoint:
			return true
		}
		return false
	})
}

// severity is that of an exported Service, as its publisher knows it.
func (s *Service) severity() severity {
	switch {
	case s.healthy():
		return fine
	case s.State == Published:
		return warned
	case s.State == Incomplete:
		return partial
	}
	return absent
}

// severity is that of a Service that fails over.
func (f *Failover) severity() severity {
	switch {
	case f.healthy():
		return fine
	case f.State == string(plan.FailoverUnavailable):
		return dead
	}
	return warned
}
