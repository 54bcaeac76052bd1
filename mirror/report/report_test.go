package report

import (
	"errors"
	"testing"
	"time"

	"service-mirror.io/service-mirror/mirror/status"
)

// TestLocalProblemsAreNamedForWhatFails: a part of the local cluster that is written, or that another cluster answers for,
// is not reported as one that cannot be read.
func TestLocalProblemsAreNamedForWhatFails(t *testing.T) {
	for name, want := range map[string][2]string{
		"services": {"Cannot read from the local API server, retrying", "Reading from the local API server again"},
		Identity:   {"Another cluster answers in place of the local one, which is neither read nor written", "The local cluster answers again"},
		Listeners:  {"Cannot write to the local API server, retrying", "Writing to the local API server again"},
		status.Misnamed + " in namespace default": {"Secrets with invalid names of remotes are not used", "All Secrets labelled service-mirror.io/remote have valid names"},
	} {
		p := &part{err: errors.New("forbidden")}
		now := time.Now()
		for i, cause := range []string{"forbidden", ""} {
			if now = now.Add(time.Hour); !p.Note(cause, now) {
				t.Fatalf("%s: %q is no news", name, cause)
			}
			if got := p.line(name); got.text != want[i] || got.warning != (i == 0) {
				t.Errorf("%s: got %q, warning %v, want %q", name, got.text, got.warning, want[i])
			}
		}
	}
}
