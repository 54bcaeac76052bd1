package failure

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestPackageIsPure(t *testing.T) {
	allowed := []string{"errors", "fmt", "regexp", "strings", "time", "unicode"}
	for _, name := range []string{"text.go", "series.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			if path, err := strconv.Unquote(spec.Path.Value); err != nil || !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, spec.Path.Value)
			}
		}
	}
}

// What differs from one attempt to the next makes no other cause.
func TestSameCause(t *testing.T) {
	for _, test := range [][2]string{
		{"stream error: stream ID 1; INTERNAL_ERROR; received from peer", "stream error: stream ID 4711; INTERNAL_ERROR; received from peer"},
		{"x509: certificate has expired or is not yet valid: current time 2026-11-26T16:16:44Z is after 2020-01-01T00:00:00Z", "x509: certificate has expired or is not yet valid: current time 2026-11-26T16:16:45+01:00 is after 2020-01-01T00:00:00Z"},
		{"at 2026-11-26 16:16:44.123456789 +0000 UTC m=+12.5", "at 2026-11-26 16:16:45.1 +0000 UTC m=+13.5"},
		{"denied by webhook: request 5d8f2c1a-0b1c-4d2e-8f3a-1234567890ab", "denied by webhook: request 11111111-2222-3333-4444-555555555555"},
		{`Request-Id: "7YH2Q9/x+a=="`, `Request-Id: "8ZZ3R1/y+b=="`},
		{"request id=42 failed", "request id=43 failed"},
		{"read tcp 10.0.0.1:54321->192.0.2.1:6443: read: connection reset by peer", "read tcp 10.0.0.1:54322->192.0.2.1:6443: read: connection reset by peer"},
		{"read tcp [2001:db8::1]:54321->[2001:db8::2]:6443: i/o timeout", "read tcp [2001:db8::1]:1->[2001:db8::2]:6443: i/o timeout"},
		{"too old resource version: 12 (34)", "too old resource version: 1234567 (89)"},
		{"The resourceVersion for the provided watch is too old: 7.", "The resourceVersion for the provided watch is too old: 8."},
		{"retry after 12s", "retry after 1m3.5s"},
		{"Cloudflare Ray ID: 8a1b2c3d4e5f6a7b", "Cloudflare Ray ID: 9a1b2c3d4e5f6a7c"},
		{"incident e3b0c44298fc1c149afbf4c8996fb924", "incident e3b0c44298fc1c149afbf4c8996fb925"},
		{"at 16:16:44", "at 16:17:00.5"},
		{"pointer 0xc000123456", "pointer 0xc000999999"},
		{"error 1764173804", "error 1764173805"},
	} {
		if a, b := Key(test[0]), Key(test[1]); a != b {
			t.Errorf("two causes:\n%s\n%s\nfrom %s\nand  %s", a, b, test[0], test[1])
		}
	}
}

func TestOtherCause(t *testing.T) {
	for _, test := range [][2]string{
		{"connection refused", "no route to host"},
		{"it answers with status 403", "it answers with status 503"},
		{"address 192.0.2.1 does not answer on port 80", "address 192.0.2.1 does not answer on port 443"},
		{"address 192.0.2.1 does not answer on port 8080", "address 192.0.2.2 does not answer on port 8080"},
		{"nothing serves 5432", "nothing serves 5433"},
		{"namespace team-a does not exist", "namespace team-b does not exist"},
		{"lookup lb.example.com: no such host", "lookup lb2.example.com: no such host"},
		{"the request is refused", "the response is refused"},
		{"connection refused", "connection reset by peer"},
		{"dial tcp 192.0.2.1:6443: connection refused", "dial tcp 192.0.2.1:443: connection refused"},
	} {
		if Key(test[0]) == Key(test[1]) {
			t.Errorf("one cause: %s\n%s", test[0], test[1])
		}
	}
}

func TestCause(t *testing.T) {
	err := fmt.Errorf("Get https://192.0.2.1:1234: %w", errors.New("connection refused"))
	if got := Cause(err); got != "connection refused" {
		t.Errorf("got %q", got)
	}
}

func TestPrintable(t *testing.T) {
	const hostile = "a\x1b[31mb\r\x00c\u202ed\u2066e\u009bf\xffg\u2028h"
	const want = "a\ufffd[31mb\ufffd\ufffdc\ufffdd\ufffde\ufffdf\ufffdg\ufffdh"
	for what, got := range map[string][2]string{
		"printable": {Printable(hostile + "\n+ forged\té"), want + " + forged é"},
		"line":      {Line("\n" + hostile + "\n+ forged\n"), want + "; + forged"},
		"lines":     {Lines(hostile + "\n+ next\n"), want + "\n+ next\n"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: got %q, want %q", what, got[0], got[1])
		}
	}
}

// step is a state that is noted at a time, in seconds, and what is news then.
type step struct {
	at    float64
	cause string
	news  bool
	shown string
}

func TestSeries(t *testing.T) {
	for name, steps := range map[string][]step{
		"healthy":                        {{0, "", false, ""}, {1, "", false, ""}},
		"fails and recovers":             {{0, "a", true, "a"}, {1, "a", false, "a"}, {2, "", true, ""}, {3, "", false, ""}},
		"in other words":                 {{0, "stream ID 1", true, "stream ID 1"}, {1, "stream ID 2", false, "stream ID 2"}},
		"another cause":                  {{0, "a", true, "a"}, {1, "b", true, "b"}},
		"causes that alternate":          {{0, "a", true, "a"}, {1, "b", true, "b"}, {2, "a", false, "b"}, {3, "b", false, "b"}, {4, "a", false, "b"}, {13, "a", false, "b"}, {14, "a", true, "a"}},
		"fails again soon":               {{0, "a", true, "a"}, {1, "", true, ""}, {2, "a", true, "a"}, {3, "", false, "a"}, {12, "", false, "a"}, {13, "", true, ""}},
		"fails again in between":         {{0, "a", true, "a"}, {1, "", true, ""}, {2, "a", true, "a"}, {3, "", false, "a"}, {12, "a", false, "a"}, {13, "", false, "a"}, {22, "", false, "a"}, {23, "", true, ""}},
		"fails again and again":          {{0, "a", true, "a"}, {1, "", true, ""}, {2, "a", true, "a"}, {3, "", false, "a"}, {13, "", true, ""}, {14, "a", true, "a"}, {15, "", false, "a"}, {34, "", false, "a"}, {35, "", true, ""}},
		"fails again after a long while": {{0, "a", true, "a"}, {1, "", true, ""}, {11, "a", true, "a"}, {12, "", true, ""}},
		"is forgiven":                    {{0, "a", true, "a"}, {1, "", true, ""}, {2, "a", true, "a"}, {3, "", false, "a"}, {13, "", true, ""}, {33, "a", true, "a"}, {34, "", true, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			var s Series
			start := time.Now()
			for i, step := range steps {
				if news := s.Note(step.cause, start.Add(time.Duration(step.at*float64(time.Second)))); news != step.news || s.Shown != step.shown {
					t.Fatalf("step %d, %q at %v s: news is %v and %q is shown, want %v and %q", i, step.cause, step.at, news, s.Shown, step.news, step.shown)
				}
			}
		})
	}
}

// However a part alternates, and for however long, what is news of it is bounded.
func TestSeriesThatAlternates(t *testing.T) {
	for name, test := range map[string]struct {
		period time.Duration
		cause  func(n int) string
		most   int
	}{
		"each second, one cause":     {time.Second, func(n int) string { return []string{"a", ""}[n%2] }, 3},
		"each second, many causes":   {time.Second, func(n int) string { return []string{fmt.Sprint("cause ", n), ""}[n%2] }, maxCauses + 3},
		"each second, no recovery":   {time.Second, func(n int) string { return fmt.Sprint("cause ", n) }, maxCauses},
		"each three seconds":         {3 * time.Second, func(n int) string { return []string{"a", ""}[n%2] }, 3},
		"longer than it must last":   {11 * time.Second, func(n int) string { return []string{"a", "", "", ""}[n%4] }, 2*3600/44 + 1},
		"one event and then failure": {500 * time.Millisecond, func(n int) string { return []string{"watch ended: stream ID " + fmt.Sprint(2*n+1), ""}[n%2] }, 3},
	} {
		var s Series
		start, news := time.Now(), 0
		for n := range int(time.Hour / test.period) {
			if s.Note(test.cause(n), start.Add(time.Duration(n)*test.period)) {
				news++
			}
		}
		if news > test.most || news == 0 {
			t.Errorf("%s: %d are news within an hour, want at most %d", name, news, test.most)
		}
	}
}

// Too many causes are news only if they last.
func TestSeriesOfManyCauses(t *testing.T) {
	var s Series
	start := time.Now()
	for n := range maxCauses {
		if !s.Note(fmt.Sprint("cause ", n), start) {
			t.Errorf("cause %d is no news", n)
		}
	}
	for n, want := range []bool{false, false, true} {
		if s.Note("one more", start.Add(time.Duration(n)*Lasting/2)) != want {
			t.Errorf("after %d times %v it is news: %v", n, Lasting/2, !want)
		}
	}
	if !s.Note("", start.Add(Lasting)) {
		t.Error("its end is no news")
	}
}

func TestSeriesSettles(t *testing.T) {
	var s Series
	start := time.Now()
	for n, cause := range []string{"a", "", "a", ""} {
		s.Note(cause, start.Add(time.Duration(n)*time.Second))
	}
	due, pending := s.Pending()
	if want := start.Add(3*time.Second + Lasting); !pending || !due.Equal(want) {
		t.Fatalf("pending is %v, due at %v, want %v", pending, due, want)
	}
	if s.Settle(due.Add(-1)) || !s.Settle(due) || s.Shown != "" {
		t.Errorf("%q is shown", s.Shown)
	}
	if _, pending := s.Pending(); pending {
		t.Error("it is pending still")
	}
}
