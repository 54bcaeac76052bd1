package remote

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"service-mirror.io/service-mirror/gateway"
)

// Status is how a remote fares.
type Status struct {
	Name      string
	State     State
	Since     time.Time // it has been up, or has not been; zero: it was never heard of
	LastSync  time.Time // all that it exports was known; zero: never
	LastEvent time.Time // a watch had something to say; zero: never
	UID       types.UID
	Exported  int
	Problems  []Problem
	Gateways  []GatewayStatus
}

// State is a remote's state in a word.
type State string

// The states.
const (
	Connecting State = "connecting" // nothing is known of it yet, and nothing is wrong
	Up         State = "up"         // what it exports is known and followed
	Down       State = "down"       // what was known of it stays
	Refused    State = "refused"    // another cluster answers in its name
)

// GatewayStatus is how one of a remote's gateways fares.
type GatewayStatus struct {
	Name    string           // NAMESPACE/NAME of its Service; empty: the flags say all of it
	Gateway *gateway.Gateway // nil: not known
	Problem string           // empty: none
}

// Status tells how the remote fares now.
func (r *Remote) Status() Status {
	s := Status{Name: r.spec.Name}
	var down bool
	s.Problems, down, s.Since = r.state.now()
	c := r.current.Load()
	if c == nil {
		c = r.newest.Load()
	}
	view, known := View{}, false
	if c != nil {
		view, known = c.view()
		s.LastSync, s.LastEvent = c.times()
		s.Gateways = c.gateways.status(s.Problems)
	} else {
		for _, config := range r.spec.Gateways {
			s.Gateways = append(s.Gateways, GatewayStatus{Name: serviceName(config)})
		}
	}
	s.UID, s.Exported = view.UID, view.Services.Len()
	switch {
	case c != nil && c.isRefused():
		s.State = Refused
	case down:
		s.State = Down
	case known:
		s.State = Up
	default:
		s.State = Connecting
	}
	return s
}

// Unknown says why what the remote exports, and where its gateways are, is not all
// known; nil where it is.
func (r *Remote) Unknown() error {
	s := r.Status()
	var causes []error
	for _, problem := range s.Problems {
		causes = append(causes, fmt.Errorf("%s: %s", problem.Part, problem.Cause))
	}
	if s.State != Up {
		return cmp.Or(errors.Join(causes...), errors.New(string(s.State)))
	}
	for _, gw := range s.Gateways {
		if gw.Gateway == nil || gw.Gateway.Partial {
			return cmp.Or(errors.Join(causes...), errors.New("its gateway is not known yet"))
		}
	}
	return nil
}
