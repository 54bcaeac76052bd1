package status

import (
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestServesTwoPathsToReaders(t *testing.T) {
	snapshots := 0
	h := Handler(func() Page { snapshots++; return small() })
	for _, test := range []struct {
		method, path string
		want         int
		contentType  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/?state=waiting&page=3&q=%zz&;", 200, "text/html; charset=utf-8"},
		{"GET", "/status.json", 200, "application/json; charset=utf-8"},
		{"HEAD", "/status.json", 200, "application/json; charset=utf-8"},
		{"GET", "/favicon.ico", 404, "text/plain; charset=utf-8"},
		{"GET", "/status.json/", 404, "text/plain; charset=utf-8"},
		{"GET", "//", 404, "text/plain; charset=utf-8"},
		{"POST", "/nowhere", 404, "text/plain; charset=utf-8"},
		{"POST", "/", 405, "text/plain; charset=utf-8"},
		{"DELETE", "/status.json", 405, "text/plain; charset=utf-8"},
		{"OPTIONS", "/", 405, "text/plain; charset=utf-8"},
	} {
		snapshots = 0
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		name := test.method + " " + test.path
		if w.Code != test.want || w.Header().Get("Content-Type") != test.contentType {
			t.Errorf("%s: status %d, type %q; want %d, %q", name, w.Code, w.Header().Get("Content-Type"), test.want, test.contentType)
		}
		if allow := w.Header().Get("Allow"); test.want == 405 && allow != "GET, HEAD" {
			t.Errorf("%s: Allow %q", name, allow)
		}
		if answered := test.want == 200; answered != (snapshots == 1) {
			t.Errorf("%s: %d snapshots were taken", name, snapshots)
		}
		for header, want := range map[string]string{
			"X-Content-Type-Options":       "nosniff",
			"Cache-Control":                "no-store",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s: %q, want %q", name, header, got, want)
			}
		}
		if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
			t.Errorf("%s: policy %q", name, policy)
		}
	}
}

// TestOverHTTP uses a real server: lengths, HEAD, and a page that refreshes itself.
func TestOverHTTP(t *testing.T) {
	server := httptest.NewServer(Handler(large))
	defer server.Close()
	for _, path := range []string{"/?refresh=15", "/status.json"} {
		var bodies [2]string
		for i, method := range []string{"HEAD", "GET"} {
			req, err := http.NewRequest(method, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s %s: status %d, %v", method, path, resp.StatusCode, err)
			}
			if got, want := resp.Header.Get("Refresh"), map[string]string{"/?refresh=15": "15"}[path]; got != want {
				t.Errorf("%s %s: Refresh: %q, want %q", method, path, got, want)
			}
			bodies[i] = string(body)
		}
		if bodies[0] != "" || !strings.HasSuffix(strings.TrimSpace(bodies[1]), map[string]string{"/?refresh=15": "</html>", "/status.json": "]}"}[path]) {
			t.Errorf("%s: HEAD has %d bytes, and GET ends with %q", path, len(bodies[0]), bodies[1][max(0, len(bodies[1])-40):])
		}
	}
}

// TestPolicyFitsThePage: a browser accepts the style by the hash of the text between
// its tags, and no style attribute at all.
func TestPolicyFitsThePage(t *testing.T) {
	w := get(t, small(), "/")
	body := w.Body.String()
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(body)
	if style == nil || !strings.Contains(style[1], "prefers-color-scheme: dark") {
		t.Fatal("the page has no style, or not its own")
	}
	if want := "style-src 'sha256-" + digest(style[1]) + "'"; !strings.Contains(w.Header().Get("Content-Security-Policy"), want) {
		t.Errorf("the policy lacks %s", want)
	}
	for _, unwanted := range []string{"<script", " style=", " on", "http-equiv"} {
		for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(body, -1) {
			if strings.Contains(tag, unwanted) {
				t.Errorf("%s", tag)
			}
		}
	}
	for _, url := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		to := html.UnescapeString(url[1])
		if !slices.ContainsFunc([]string{"#", "./", "status.json", "data:image/svg+xml,"}, func(own string) bool { return strings.HasPrefix(to, own) }) {
			t.Errorf("the page refers to %s", to)
		}
	}
	if length := w.Header().Get("Content-Length"); length != strconv.Itoa(len(body)) {
		t.Errorf("length %s of %d", length, len(body))
	}
}
