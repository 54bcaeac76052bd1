package remote

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/remote/failure"
	"service-mirror.io/service-mirror/remote/logging"
)

// state is what is wrong with a remote, by the part that fails. A failure is
// logged when it comes, when its cause changes and when it is over: not at each
// try, nor with each turn of what alternates.
type state struct {
	logger    klog.Logger
	onProblem func(Problem) // called for what is logged, in order, one at a time
	exports   int           // parts that are watches of exported Services

	mu         sync.Mutex
	parts      map[string]*part
	down       bool
	since      time.Time // it is down, or up
	changes    []change  // to be logged and passed on
	delivering bool
}

// Problem is what is wrong with a part of a remote; without a cause it is over.
type Problem struct{ Part, Cause string }

// part is how one part of a remote is doing.
type part struct {
	failure.Series
	err error // the latest
}

// change is a problem that came, changed or is over.
type change struct {
	Problem
	before string
	err    error
	down   bool // nothing of the remote is followed
}

// The parts without which nothing that a remote exports arrives any more. Exports do not
// depend on others, as its gateway.
const (
	partConfiguration = "configuration"
	partKubeconfig    = "kubeconfig"
	partIdentity      = "identity"
	partExports       = "watch of exported Services" // of a namespace: with more words
)

// exportsPart is the watch of a namespace's exported Services, or of all.
func exportsPart(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return partExports
	}
	return partExports + " in " + namespace
}

// The kinds of problems.
const (
	ConfigurationProblem = "configuration" // its Secret, or another one that names it, too
	KubeconfigProblem    = "kubeconfig"
	IdentityProblem      = "identity"
	ExportsProblem       = "exports"
	GatewayProblem       = "gateway" // its Service, its addresses, its reserved ports, or the publisher's records
)

// Kinds are all kinds of problems.
var Kinds = []string{ConfigurationProblem, KubeconfigProblem, IdentityProblem, ExportsProblem, GatewayProblem}

// Kind is the problem's part, without names.
func (p Problem) Kind() string {
	switch {
	case p.Part == partConfiguration:
		return ConfigurationProblem
	case p.Part == partKubeconfig:
		return KubeconfigProblem
	case p.Part == partIdentity:
		return IdentityProblem
	case strings.HasPrefix(p.Part, partExports):
		return ExportsProblem
	}
	return GatewayProblem
}

// The reasons for problems, as Events have them.
const (
	RemoteFailing       = "RemoteFailing"
	RemoteTooLarge      = "RemoteTooLarge"      // it sends more than its limits allow
	RemoteMisconfigured = "RemoteMisconfigured" // its Secret cannot be used, or is not
	GatewayFailing      = "GatewayFailing"
)

// Reason is the problem's reason.
func (p Problem) Reason() string {
	switch {
	case strings.HasPrefix(p.Cause, tooLargePrefix):
		return RemoteTooLarge
	case p.Kind() == ConfigurationProblem:
		return RemoteMisconfigured
	case p.Kind() == GatewayProblem:
		return GatewayFailing
	}
	return RemoteFailing
}

// report notes the state of a part of the remote; nil: nothing is wrong with it.
func (s *state) report(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parts[name]
	if p == nil {
		if p = new(part); s.parts == nil {
			s.parts = map[string]*part{}
		}
		s.parts[name] = p
	}
	p.err = err
	s.advance(name, func(at time.Time) bool { return p.Note(brief(name, err), at) })
	s.deliver()
}

// settle passes on what has lasted by now.
func (s *state) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		s.advance(name, s.parts[name].Settle)
	}
	s.deliver()
}

// advance has a part advance, and notes what is to be passed on of it. s.mu is held.
func (s *state) advance(name string, advance func(at time.Time) (news bool)) {
	p := s.parts[name]
	before := p.Shown
	news := advance(time.Now())
	s.judge()
	if news {
		s.changes = append(s.changes, change{Problem{name, p.Shown}, before, p.err, s.down})
	}
}

// log says what the change means for the remote's mirrors.
func (c change) log(logger klog.Logger) {
	gateway := c.Kind() == GatewayProblem
	switch {
	case c.Cause == "" && gateway:
		logger.Info("Gateway of remote cluster recovered", "part", c.Part, "before", c.before)
		return
	case c.Cause == "":
		logger.Info("Remote cluster recovered", "part", c.Part, "before", c.before)
		return
	}
	_, unanswered := errors.AsType[*url.Error](c.err)
	message := "Cannot read from remote cluster; affected mirrors are kept unchanged"
	switch {
	case gateway:
		message = "Gateway of remote cluster is failing"
	case c.Kind() == ConfigurationProblem:
		message = "Invalid or unused Secret for remote cluster"
	case strings.HasPrefix(c.Cause, undetectable):
		message = "Cannot verify the identity of remote cluster; its mirrors are still updated"
	case c.down && unanswered:
		message = "Lost contact with remote cluster; its mirrors are kept unchanged"
	}
	logging.Warn(logger, message, "part", c.Part, "err", failure.Line(fmt.Sprintf("%.1000v", c.err)))
}

// deliver passes changes on without holding s.mu, in the order in which they came: those
// that come meanwhile, too. s.mu is held when it is called and when it returns.
func (s *state) deliver() {
	if s.delivering {
		return
	}
	s.delivering = true
	for len(s.changes) > 0 {
		next := s.changes[0]
		s.changes = s.changes[1:]
		s.mu.Unlock()
		next.log(s.logger)
		s.onProblem(next.Problem)
		s.mu.Lock()
	}
	s.delivering = false
}

// judge notes when the remote goes down or comes up: it is down when nothing of it is
// followed. s.mu is held.
func (s *state) judge() {
	var down bool
	failing := 0
	for part, series := range s.parts {
		if series.Shown == "" {
			continue
		}
		switch (Problem{Part: part}).Kind() {
		case KubeconfigProblem:
			down = true
		case IdentityProblem:
			down = down || !strings.HasPrefix(series.Shown, undetectable)
		case ExportsProblem:
			failing++
		}
	}
	down = down || failing > 0 && failing >= s.exports
	if down != s.down || s.since.IsZero() {
		s.down, s.since = down, time.Now()
	}
}

// now is what is wrong, by part, and whether the remote is down since when.
func (s *state) now() (problems []Problem, down bool, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, part := range slices.Sorted(maps.Keys(s.parts)) {
		if cause := s.parts[part].Shown; cause != "" {
			problems = append(problems, Problem{part, cause})
		}
	}
	return problems, s.down, s.since
}

// brief is what an error says, in one line: of files it says which. A hint that client-go adds to some of the
// tries is after a blank line.
func brief(part string, err error) string {
	if err == nil {
		return ""
	}
	text := Cause(err)
	if part == partKubeconfig || part == partConfiguration {
		text = fmt.Sprintf("%.1000s", err)
	}
	text, _, _ = strings.Cut(text, "\n\n")
	return cmp.Or(failure.Line(text), "unknown error")
}

// latest is the latest error of a part; nil: nothing is wrong with it.
func (s *state) latest(part string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.parts[part]; p != nil {
		return p.err
	}
	return nil
}

// Cause is the innermost text of an error: without the addresses and ports that
// differ from try to try.
func Cause(err error) string { return failure.Cause(err) }
