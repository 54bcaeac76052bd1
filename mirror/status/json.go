package status

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
)

// serveJSON sends the page's data, rows last and each on a line of its own.
func serveJSON(w http.ResponseWriter, r *http.Request, write func(io.Writer, filter) error) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if r.Method == http.MethodHead {
		return
	}
	_ = write(w, parseFilter(r.URL.Query())) // the client may have left
}

// document is a Page without its mirrors. Counts has every state, and all mirrors
// whatever the query selects.
type document struct {
	*Page
	Counts  map[string]int `json:"counts"`
	Mirrors *struct{}      `json:"mirrors,omitempty"` // hides the Page's
}

// publisherDocument is a Publisher without its Services, likewise.
type publisherDocument struct {
	*Publisher
	Counts   map[string]int `json:"counts"`
	Services *struct{}      `json:"services,omitempty"`
}

func writeJSON(w io.Writer, page *Page, f filter) error {
	return writeRows(w, document{Page: withoutNull(page), Counts: page.counts()}, "mirrors", f.choose(page.Mirrors).rows, func(m *Mirror) any {
		mirror := *m
		mirror.Ports, mirror.Mapping, mirror.Endpoints, mirror.Problems = some(m.Ports), some(m.Mapping), some(m.Endpoints), some(m.Problems)
		return mirror
	})
}

func writePublisherJSON(w io.Writer, p *Publisher, f filter) error {
	document := publisherDocument{Publisher: withoutNullTargets(p), Counts: countsOf[*Service](publisherStates, p.Services)}
	return writeRows(w, document, "services", choose[*Service](f, p.Services).rows, func(s *Service) any {
		service := *s
		service.Hosts, service.Ports, service.Routes, service.Problems = some(s.Hosts), some(s.Ports), some(s.Routes), some(s.Problems)
		return service
	})
}

// writeRows encodes one row at a time, so that memory does not grow with their number.
func writeRows[R row](w io.Writer, document any, name string, rows []R, withoutNull func(R) any) error {
	out := bufio.NewWriterSize(w, 32<<10)
	head, err := json.Marshal(document)
	if err != nil {
		return err
	}
	out.Write(head[:len(head)-1]) // without the brace that ends it
	out.WriteString(`,"` + name + `":[`)
	for i, row := range rows {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
		text, err := json.Marshal(withoutNull(row))
		if err != nil {
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	out.WriteString("\n]}\n")
	return out.Flush() // with what failed before
}

func (p *Page) counts() map[string]int {
	return countsOf[*Mirror](states, p.Mirrors)
}

// countsOf has every state, too, that there is none of.
func countsOf[R interface {
	*T
	row
}, T any](states []string, all []T) map[string]int {
	counts := map[string]int{}
	for _, state := range states {
		counts[state] = 0
	}
	for i := range all {
		counts[R(&all[i]).state()]++
	}
	return counts
}

// withoutNullTargets is the same of a publisher.
func withoutNullTargets(of *Publisher) *Publisher {
	p := *of
	p.Problems = some(p.Problems)
	p.Targets = append([]Target{}, p.Targets...)
	for i := range p.Targets {
		p.Targets[i].Listeners = some(p.Targets[i].Listeners)
	}
	return &p
}

// withoutNull is the page with empty lists instead of null, for programs that loop
// over them.
func withoutNull(page *Page) *Page {
	p := *page
	p.Problems = some(p.Problems)
	p.Failover = append([]Failover{}, p.Failover...)
	for i := range p.Failover {
		p.Failover[i].Remotes, p.Failover[i].Problems = some(p.Failover[i].Remotes), some(p.Failover[i].Problems)
	}
	p.Remotes = append([]Remote{}, p.Remotes...)
	for i := range p.Remotes {
		r := &p.Remotes[i]
		r.Problems = some(r.Problems)
		r.Gateways = append([]Gateway{}, r.Gateways...)
		for j := range r.Gateways {
			r.Gateways[j].Addresses = some(r.Gateways[j].Addresses)
		}
	}
	return &p
}

func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
