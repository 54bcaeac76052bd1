package remote

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// state is what is wrong with a remote, by the part that fails. A failure is
// logged when it comes, when its cause changes and when it is over: not at each
// try.
type state struct {
	logger    klog.Logger
	onProblem func(Problem) // of what is logged

	mu     sync.Mutex
	causes map[string]string
	down   bool
	since  time.Time // it is down, or up
}

// Problem is what is wrong with a part of a remote; without a cause it is over.
type Problem struct{ Part, Cause string }

// The parts without which nothing that a remote exports arrives any more. Of
// others, as its gateway, exports do not depend.
const (
	partKubeconfig = "kubeconfig"
	partIdentity   = "identity"
	partExports    = "watch of exported Services" // of a namespace: with more words
)

// The kinds of problems.
const (
	KubeconfigProblem = "kubeconfig"
	IdentityProblem   = "identity"
	ExportsProblem    = "exports"
	GatewayProblem    = "gateway" // its Service, its addresses, or its reserved ports
)

// Kinds are all kinds of problems.
var Kinds = []string{KubeconfigProblem, IdentityProblem, ExportsProblem, GatewayProblem}

// Kind is the problem's part, without names.
func (p Problem) Kind() string {
	switch {
	case p.Part == partKubeconfig:
		return KubeconfigProblem
	case p.Part == partIdentity:
		return IdentityProblem
	case strings.HasPrefix(p.Part, partExports):
		return ExportsProblem
	}
	return GatewayProblem
}

// Vital tells a problem that keeps everything from arriving.
func (p Problem) Vital() bool {
	return p.Kind() != GatewayProblem
}

// report is told how a part of the remote fares; nil is well.
func (s *state) report(part string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.judge()
	before, failing := s.causes[part]
	var cause string
	if err != nil {
		cause = brief(part, err)
	}
	switch {
	case err == nil && failing:
		delete(s.causes, part)
		s.logger.Info("Remote is well again", "part", part, "wasFailingWith", before)
		s.onProblem(Problem{Part: part})
	case err != nil && (!failing || before != cause):
		if s.causes == nil {
			s.causes = map[string]string{}
		}
		s.causes[part] = cause
		s.logger.Info("Remote is not well; what is known of it stays", "part", part, "err", strings.ReplaceAll(fmt.Sprintf("%.1000v", err), "\n", "; "))
		s.onProblem(Problem{Part: part, Cause: cause})
	}
}

// judge notes when the remote goes down or comes up. s.mu is held.
func (s *state) judge() {
	var down bool
	for part := range s.causes {
		down = down || Problem{Part: part}.Vital()
	}
	if down != s.down || s.since.IsZero() {
		s.down, s.since = down, time.Now()
	}
}

// now is what is wrong, by part, and whether the remote is down since when.
func (s *state) now() (problems []Problem, down bool, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, part := range slices.Sorted(maps.Keys(s.causes)) {
		problems = append(problems, Problem{part, s.causes[part]})
	}
	return problems, s.down, s.since
}

// brief is what an error says that is the same at each try. Of files it says
// which; a hint that client-go adds to some of the tries is after a blank line.
func brief(part string, err error) string {
	text := Cause(err)
	if part == partKubeconfig {
		text = fmt.Sprintf("%.1000s", err)
	}
	text, _, _ = strings.Cut(text, "\n\n")
	return strings.ReplaceAll(text, "\n", "; ")
}

// Cause is the innermost text of an error: without the addresses and ports that
// differ from try to try.
func Cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%.1000s", err)
		}
		err = inner
	}
}
