package remote

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"service-mirror.io/service-mirror/gateway"
)

// Status is the state of a remote.
type Status struct {
	Name      string
	State     State
	Since     time.Time // it has been up, or has not been; zero: it was never connected to
	LastSync  time.Time // the exports of a namespace became known, or of all; zero: never
	LastEvent time.Time // of a watch; zero: never
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
	Up         State = "up"         // what it exports is known and followed, of one namespace at least
	Down       State = "down"       // nothing is followed; what was known of it stays
	Refused    State = "refused"    // another cluster answers in its name
)

// GatewayStatus is the state of one of a remote's gateways.
type GatewayStatus struct {
	Name    string           // as the flags have it, NAMESPACE/NAME of its Service; empty: all of it is in the flags
	Gateway *gateway.Gateway // nil: not known
	Problem string           // empty: none
}

// Status is the state of the remote now.
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
	} else if r.spec.Usable() {
		for _, config := range r.spec.Gateways {
			s.Gateways = append(s.Gateways, GatewayStatus{Name: config.Name()})
		}
	}
	s.UID, s.Exported = view.UID, view.Services.Len()
	switch {
	case c != nil && c.isRefused():
		s.State = Refused
	case down, !r.spec.Usable():
		s.State = Down
	case known:
		s.State = Up
	default:
		s.State = Connecting
	}
	return s
}

// Unknown says why what the remote exports, and where its gateways are, is not all
// known; nil where it is. It is a WrongCluster if another cluster answers than the configuration says.
func (r *Remote) Unknown() error {
	s := r.Status()
	var missing []error
	for _, problem := range s.Problems {
		missing = append(missing, fmt.Errorf("%s: %s", problem.Part, problem.Cause))
	}
	if s.State != Up {
		err := cmp.Or(errors.Join(missing...), errors.New(string(s.State)))
		if _, wrong := errors.AsType[WrongCluster](r.state.latest(partIdentity)); wrong && s.State == Refused {
			return WrongCluster{err}
		}
		return err
	}
	incomplete := false
	failing := func(part string) bool {
		return slices.ContainsFunc(s.Problems, func(problem Problem) bool { return problem.Part == part })
	}
	view, ok := r.View()
	if !ok { // the connection that knows it does not serve yet
		return errors.New("its exported Services are not known yet")
	}
	for _, namespace := range r.spec.Namespaces {
		if !view.Knows(namespace) {
			incomplete = true
			if part := exportsPart(namespace); !failing(part) {
				missing = append(missing, fmt.Errorf("%s: not known yet", part))
			}
		}
	}
	if !view.Records.known() {
		incomplete = true
		if part := recordsPart(r.spec.Records); !failing(part) {
			missing = append(missing, fmt.Errorf("%s: not known yet", part))
		}
	}
	for _, gw := range s.Gateways {
		// One family is known if only the other is missing, which may be so for ever.
		incomplete = incomplete || gw.Gateway == nil || gw.Gateway.Partial && gw.Gateway.Missing == ""
	}
	if !incomplete {
		return nil
	}
	return cmp.Or(errors.Join(missing...), errors.New("its gateway is not known yet"))
}
