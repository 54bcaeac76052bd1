package remote

import (
	"errors"
	"fmt"
	"sync"

	"k8s.io/klog/v2"
)

// state is what is wrong with a remote, by the part that fails. A failure is
// logged when it comes, when its cause changes and when it is over: not at each
// try.
type state struct {
	logger klog.Logger
	mu     sync.Mutex
	causes map[string]string
}

// report is told how a part of the remote fares; nil is well.
func (s *state) report(part string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, failing := s.causes[part]
	switch {
	case err == nil && failing:
		delete(s.causes, part)
		s.logger.Info("Remote is well again", "part", part, "wasFailingWith", before)
	case err != nil && (!failing || before != Cause(err)):
		if s.causes == nil {
			s.causes = map[string]string{}
		}
		s.causes[part] = Cause(err)
		s.logger.Info("Remote is not well; what is known of it stays", "part", part, "err", fmt.Sprintf("%.1000v", err))
	}
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
