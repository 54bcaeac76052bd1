package status

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"time"
)

// writeTimeout is how long a client may take to read a response, whose data stays in
// memory until then.
const writeTimeout = time.Minute

var (
	//go:embed page.html
	pageHTML string
	//go:embed style.css
	styleCSS string

	pageTemplate = template.Must(template.New("page").Funcs(functions).Parse(pageHTML))
	// policy allows a browser to use the page's own style and icon and to submit its
	// form, and nothing else.
	policy = "default-src 'none'; style-src 'sha256-" + digest(styleCSS) + "'; img-src data:; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Handler serves the page at / and its data at /status.json; every other path is
// not found. Both take the same query: state, remote, reason, and q, words that must all
// occur; the page takes page and refresh (seconds) too. snapshot is called once for
// each request, concurrently, and its result is only read.
func Handler(snapshot func() Page) http.Handler {
	return handler(func() content {
		page := snapshot()
		page.Now = orNow(page.Now)
		return content{
			view: func(f filter) *view { return newView(&page, f) },
			json: func(w io.Writer, f filter) error { return writeJSON(w, &page, f) },
		}
	})
}

// PublisherHandler serves those of a publisher, likewise.
func PublisherHandler(snapshot func() Publisher) http.Handler {
	return handler(func() content {
		p := snapshot()
		p.Now = orNow(p.Now)
		return content{
			view: func(f filter) *view { return newPublisherView(&p, f) },
			json: func(w io.Writer, f filter) error { return writePublisherJSON(w, &p, f) },
		}
	})
}

// content is what is shown at one moment.
type content struct {
	view func(f filter) *view
	json func(w io.Writer, f filter) error
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now()
	}
	return t
}

func handler(snapshot func() content) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		if r.URL.Path != "/" && r.URL.Path != "/status.json" {
			http.Error(w, "not found: there are / and /status.json", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are served", http.StatusMethodNotAllowed)
			return
		}
		// Not every ResponseWriter can; then the server's own limits apply.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		if r.URL.Path == "/" {
			servePage(w, r, snapshot().view)
			return
		}
		serveJSON(w, r, snapshot().json)
	})
}

// servePage renders the whole page before it sends any of it: its rows are few and
// their texts limited.
func servePage(w http.ResponseWriter, r *http.Request, view func(filter) *view) {
	f := parseFilter(r.URL.Query())
	var out bytes.Buffer
	v := view(f)
	v.servedAt(r)
	if err := pageTemplate.Execute(&out, v); err != nil {
		http.Error(w, "render the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(out.Len()))
	if f.Refresh > 0 {
		header.Set("Refresh", strconv.Itoa(f.Refresh))
	}
	_, _ = out.WriteTo(w) // the client may have left
}
