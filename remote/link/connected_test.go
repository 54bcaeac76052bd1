package link

import (
	"strings"
	"testing"
)

func TestProgressOfTheConnection(t *testing.T) {
	for _, test := range []struct{ status, want string }{
		{"", "waiting: the daemon has not found paris yet"},
		{"no JSON", "waiting: the daemon has not found paris yet"},
		{`{"remotes": [{"name": "berlin", "state": "up"}]}`, "waiting: the daemon has not found paris yet"},
		{`{"remotes": [{"name": "paris", "state": "not configured", "exported": -1}]}`, "waiting: the daemon has not found paris yet"},
		{`{"remotes": [{"name": "paris", "state": "connecting", "problems": []}]}`, "waiting: paris is connecting"},
		{`{"remotes": [{"name": "paris", "state": "down", "problems": [{"part": "exports", "cause": "connection refused"}]}]}`, "waiting: paris is down: exports: connection refused"},
		{`{"remotes": [{"name": "paris", "state": "up", "exported": 3, "counts": {"mirrored": 1, "waiting": 2}}]}`, "connected: 3 exported Services, 2 of them without a mirror yet"},
		{`{"remotes": [{"name": "paris", "state": "up", "exported": 3, "counts": {"mirrored": 3, "waiting": 0}}]}`, "connected: 3 exported Services"},
	} {
		got, done := statusOf([]byte(test.status), "paris").progress("paris")
		if got != test.want || done != (got == "connected: 3 exported Services") {
			t.Errorf("%s: got %q, %v, want %q", test.status, got, done, test.want)
		}
	}
}

// A remote that exports nothing for this cluster is not waited for.
func TestRemoteIsEmpty(t *testing.T) {
	for status, want := range map[string]bool{
		`{"exported": 0, "counts": {"mirrored": 0}}`:                            true,
		`{"exported": 0, "counts": {"orphan": 1}}`:                              true,
		`{"exported": 2, "counts": {"mirrored": 0, "waiting": 0, "orphan": 3}}`: true, // they are for other clusters
		`{"exported": 2, "counts": {"mirrored": 0, "waiting": 1}}`:              false,
		`{"exported": 1, "counts": {"refused": 1}}`:                             false,
		`{"exported": -1, "counts": {"mirrored": 0}}`:                           false,
	} {
		remote := statusOf([]byte(`{"remotes": [{"name": "paris", "state": "up", `+status[1:]+`]}`), "paris")
		if remote.State != "up" || remote.empty() != want {
			t.Errorf("%s: got %+v, empty: %t", status, remote, remote.empty())
		}
	}
}

func TestStatusCommand(t *testing.T) {
	for words, want := range map[string]string{
		"/service-mirror --listen=:8080":              "/service-mirror status --output=json --url=http://localhost:8080",
		"service-mirror --listen 0.0.0.0:80":          "service-mirror status --output=json --url=http://localhost:80",
		"service-mirror --listen=[::]:81":             "service-mirror status --output=json --url=http://localhost:81",
		"service-mirror --listen=127.0.0.1:82":        "service-mirror status --output=json --url=http://127.0.0.1:82",
		"service-mirror --listen=:1 --listen=[::1]:2": "service-mirror status --output=json --url=http://[::1]:2",
	} {
		command, err := Daemon{Command: strings.Fields(words)}.statusCommand()
		if got := strings.Join(command, " "); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", words, got, err, want)
		}
	}
	for words, want := range map[string]string{
		"service-mirror":               "Deployment ns/d has no --listen, so its status cannot be read",
		"service-mirror --listen=8080": "Deployment ns/d has a --listen that is not HOST:PORT: its status is not known",
	} {
		if _, err := (Daemon{Namespace: "ns", Name: "d", Command: strings.Fields(words)}).statusCommand(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", words, err, want)
		}
	}
}
