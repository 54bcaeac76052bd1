package status

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
)

// serveJSON sends the page's data, mirrors last and each on a line of its own.
func serveJSON(w http.ResponseWriter, r *http.Request, page *Page) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if r.Method == http.MethodHead {
		return
	}
	_ = writeJSON(w, page, parseFilter(r.URL.Query())) // the client may have left
}

// document is a Page without its mirrors. Counts has every state, and all mirrors
// whatever the query selects.
type document struct {
	*Page
	Counts  map[string]int `json:"counts"`
	Mirrors *struct{}      `json:"mirrors,omitempty"` // hides the Page's
}

// writeJSON encodes one mirror at a time, so that memory does not grow with their
// number.
func writeJSON(w io.Writer, page *Page, f filter) error {
	out := bufio.NewWriterSize(w, 32<<10)
	head, err := json.Marshal(document{Page: withoutNull(page), Counts: page.counts()})
	if err != nil {
		return err
	}
	out.Write(head[:len(head)-1]) // without the brace that ends it
	out.WriteString(`,"mirrors":[`)
	for i, m := range f.choose(page.Mirrors).rows {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
		mirror := *m
		mirror.Ports, mirror.Mapping, mirror.Endpoints, mirror.Problems = some(m.Ports), some(m.Mapping), some(m.Endpoints), some(m.Problems)
		text, err := json.Marshal(mirror)
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
	counts := map[string]int{}
	for _, state := range states {
		counts[state] = 0
	}
	for i := range p.Mirrors {
		counts[p.Mirrors[i].State]++
	}
	return counts
}

// withoutNull is the page with empty lists instead of null, for programs that loop
// over them.
func withoutNull(page *Page) *Page {
	p := *page
	p.Problems = some(p.Problems)
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
