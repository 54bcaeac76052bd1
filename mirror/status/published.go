package status

import (
	"fmt"
	"strings"
	"time"
)

// Published is the state of an exported Service that is routed to, as far as is known.
const Published = "published"

// Publisher is all that is shown of the command publish. A zero time is one that is not known, and is omitted from the
// JSON. Lists are never null there.
type Publisher struct {
	Cluster    string    `json:"cluster"`    // its name
	Version    string    `json:"version"`    // of the program
	ElectionOn bool      `json:"electionOn"` // one of several replicas leads
	Leader     bool      `json:"leader"`     // this one does
	LeaderPod  string    `json:"leaderPod"`  // as in Page
	Started    time.Time `json:"started,omitzero"`
	Now        time.Time `json:"now,omitzero"` // when this was the state
	Synced     bool      `json:"synced"`       // the caches are filled
	Problems   []Problem `json:"problems"`     // of parts of the cluster
	Targets    []Target  `json:"targets"`
	Services   []Service `json:"services"`
}

// Target is what routes to exported Services.
type Target struct {
	Kind      string     `json:"kind"`    // as --to says
	Name      string     `json:"name"`    // of the Gateway, the IngressClass, or the namespace of the aliases
	State     string     `json:"state"`   // up, down, connecting
	Problem   string     `json:"problem"` // empty: none
	Listeners []Listener `json:"listeners"`
}

// Listener is a listener of a Gateway.
type Listener struct {
	Name     string `json:"name"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
	Own      bool   `json:"own"`     // this program added it
	Problem  string `json:"problem"` // empty: none
}

// String is what the page shows of it.
func (l Listener) String() string {
	text := fmt.Sprintf("%s %d/%s", l.Name, l.Port, l.Protocol)
	if l.Own {
		text += " (added)"
	}
	return text
}

// Service is one exported Service.
type Service struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	State     string   `json:"state"` // published, incomplete, waiting, refused, conflict
	Ready     bool     `json:"ready"` // it has an endpoint that is ready, as its record says
	Hosts     []string `json:"hosts"` // that are routed to it, likewise
	// Ports are those of its record, which has none of those that a static gateway serves.
	Ports    []Port          `json:"ports"`
	Routes   []string        `json:"routes"` // kind and name of what routes to it
	Problems []MirrorProblem `json:"problems"`
}

// Port says which port of the gateway serves a port of an exported Service.
type Port struct {
	Port        int32  `json:"port"`
	Protocol    string `json:"protocol"`
	Class       string `json:"class"`       // http, https, grpc, tcp, udp, sctp, unknown
	GatewayPort int32  `json:"gatewayPort"` // 0: none serves it
	Shared      bool   `json:"shared"`      // with other Services, which Host or SNI tell apart
}

// String is what the page shows of it.
func (p Port) String() string {
	suffix := ""
	if p.Protocol != "TCP" {
		suffix = "/" + p.Protocol
	}
	switch {
	case p.GatewayPort == 0:
		return fmt.Sprintf("%d%s (%s) -> none", p.Port, suffix, p.Class)
	case p.Shared:
		return fmt.Sprintf("%d%[2]s (%[3]s) -> %[4]d%[2]s, shared", p.Port, suffix, p.Class, p.GatewayPort)
	}
	return fmt.Sprintf("%d%[2]s (%[3]s) -> %[4]d%[2]s", p.Port, suffix, p.Class, p.GatewayPort)
}

// page is the part of it that the pages of all programs have.
func (p *Publisher) page() *Page {
	return &Page{Local: p.Cluster, Version: p.Version, ElectionOn: p.ElectionOn, Leader: p.Leader, LeaderPod: p.LeaderPod, Started: p.Started, Now: p.Now, Synced: p.Synced, Problems: p.Problems}
}

// Endpoint says whether the Service has an endpoint that is ready.
func (s *Service) Endpoint() string {
	switch {
	case len(s.Ports)+len(s.Hosts) == 0: // it has no record
		return ""
	case s.Ready:
		return "an endpoint is ready"
	}
	return "no endpoint is ready"
}

// healthy reports whether nothing has to be done about it.
func (s *Service) healthy() bool { return s.State == Published && len(s.Problems) == 0 }

func (s *Service) key() (namespace, name string)    { return s.Namespace, s.Name }
func (s *Service) origin() (cluster, source string) { return "", "" }
func (s *Service) state() string                    { return s.State }

// problems are its problems; of one that is unhealthy, one at least.
func (s *Service) problems() []MirrorProblem {
	if len(s.Problems) > 0 || s.healthy() {
		return s.Problems
	}
	return []MirrorProblem{{Reason: reasonUnpublished, Message: unrecorded[reasonUnpublished].message}}
}

// appendText appends what can be searched for.
func (s *Service) appendText(text []byte) []byte {
	text = appendLower(text, s.Namespace+"/"+s.Name, s.State, s.Endpoint())
	for _, p := range s.Ports {
		text = appendLower(text, p.String())
	}
	text = appendLower(appendLower(text, s.Hosts...), s.Routes...)
	for _, p := range s.problems() {
		text = appendLower(text, p.Reason, p.Message)
	}
	return text
}

// healthy reports whether all of a target can be expected to carry traffic.
func (t *Target) healthy() bool { return t.State == Up && t.Problem == "" && t.refused() == "" }

// refused are the listeners that are not served, and why.
func (t *Target) refused() string {
	var texts []string
	for _, l := range t.Listeners {
		if l.Problem != "" {
			texts = append(texts, l.Name+": "+l.Problem)
		}
	}
	return strings.Join(texts, "; ")
}
