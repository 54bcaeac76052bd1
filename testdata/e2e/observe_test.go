package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// The flags with which a daemon serves metrics and the status page, on a port of its own.
var listening = []string{"--listen", "127.0.0.1:0"}

// serves is the address at which a daemon serves, once it does.
func (d *daemon) serves() string {
	d.t.Helper()
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for line := range strings.Lines(d.log.String()) {
			if _, rest, ok := strings.Cut(line, `"Serving" address="`); ok {
				address, _, _ := strings.Cut(rest, `"`)
				return address
			}
		}
	}
	d.t.Fatal("the daemon serves nothing")
	return ""
}

// get requests a path of a daemon, and returns the status code and the body.
func (d *daemon) get(path string) (int, string, error) {
	d.t.Helper()
	return harness.Get(context.Background(), d.serves(), path)
}

// answers checks the status code of a path.
func (d *daemon) answers(path string, want int) func() error {
	return func() error {
		code, body, err := d.get(path)
		if err == nil && code != want {
			err = fmt.Errorf("%s answers %d %s, want %d", path, code, body, want)
		}
		return err
	}
}

// metrics are a daemon's own series, as NAME{LABEL="VALUE",…} without the prefix
// that all of them have.
func (d *daemon) metrics() (map[string]float64, error) {
	d.t.Helper()
	code, text, err := d.get("/metrics")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("/metrics answers %d: %v", code, err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		series, ok := strings.CutPrefix(strings.TrimSpace(line), "service_mirror_")
		if !ok {
			continue
		}
		cut := strings.LastIndexByte(series, ' ')
		value, err := strconv.ParseFloat(series[cut+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		all[series[:cut]] = value
	}
	return all, nil
}

// measures checks the values of some series.
func (d *daemon) measures(want map[string]float64) func() error {
	return func() error {
		got, err := d.metrics()
		if err != nil {
			return err
		}
		for series, value := range want {
			if found, ok := got[series]; !ok || found != value {
				return fmt.Errorf("%s is %v (there: %v), want %v", series, found, ok, value)
			}
		}
		return nil
	}
}

// state and problems are the series of mirrors by state, and of their problems by
// reason.
func (r *remote) state(word string) string {
	return fmt.Sprintf(`mirrors{remote=%q,state=%q}`, r.name, word)
}

func (r *remote) problem(reason string) string {
	return fmt.Sprintf(`problems{reason=%q,remote=%q}`, reason, r.name)
}

func (r *remote) failing(part string) string {
	return fmt.Sprintf(`remote_problems{part=%q,remote=%q}`, part, r.name)
}
func (r *remote) up() string { return fmt.Sprintf(`remote_up{remote=%q}`, r.name) }

// page is what the tests read of /status.json.
type page struct {
	Leader, Synced, ElectionOn bool
	Counts                     map[string]int
	Remotes                    []pageRemote
	Mirrors                    []struct {
		Namespace, Name, Cluster, State string
		Problems                        []struct{ Reason, Message string }
	}
}

type pageRemote struct {
	Name, State, UID string
	Since, LastSync  time.Time
	Exported         int
	Problems         []struct{ Part, Cause string }
	Gateways         []struct {
		Name, Problem string
		Known         bool
		Addresses     []struct{ IP, Health string }
	}
}

func (d *daemon) page() (*page, error) {
	d.t.Helper()
	code, text, err := d.get("/status.json")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("/status.json answers %d: %v", code, err)
	}
	p := &page{}
	return p, json.Unmarshal([]byte(text), p)
}

// shows checks a remote's state on the status page and, unless it must have no problem,
// that the message of one has all of the words.
func (d *daemon) shows(r *remote, state string, words ...string) func() error {
	return func() error {
		p, err := d.page()
		if err != nil {
			return err
		}
		for _, row := range p.Remotes {
			if row.Name != r.name {
				continue
			}
			if row.State != state || (len(words) == 0) != (len(row.Problems) == 0) {
				return fmt.Errorf("remote %s is %s with problems %v, want %s with %q", r.name, row.State, row.Problems, state, words)
			}
			if len(words) == 0 {
				return nil
			}
		problems:
			for _, problem := range row.Problems {
				for _, word := range words {
					if !strings.Contains(problem.Part+": "+problem.Cause, word) {
						continue problems
					}
				}
				return nil
			}
			return fmt.Errorf("remote %s has problems %v, want one with %q", r.name, row.Problems, words)
		}
		return fmt.Errorf("remote %s is not on the page", r.name)
	}
}

// event is an Event of the daemon's as the tests compare them. How often it was seen
// belongs to it: an attempt that fails again must not make another Event.
type event struct {
	kind, reason string // kind: Normal, Warning
	count        int32
}

// events are the daemon's Events about an object, KIND/NAME, of the local cluster, in the
// order of their first occurrence; about narrows them to those whose message has that
// word.
func (e *env) events(namespace, object, about string) (all []event, messages []string, err error) {
	kind, name, _ := strings.Cut(object, "/")
	list, err := e.local.CoreV1().Events(namespace).List(e.ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name,
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int { return a.FirstTimestamp.Compare(b.FirstTimestamp.Time) })
	for _, one := range list.Items {
		if one.Source.Component == "service-mirror" && strings.Contains(one.Message, about) {
			all = append(all, event{one.Type, one.Reason, one.Count})
			messages = append(messages, one.Message)
		}
	}
	return all, messages, nil
}

// hasEvent checks that there is only one Event about an object, of a reason, seen once,
// and with these words in its message.
func (e *env) hasEvent(namespace, object, reason string, words ...string) func() error {
	return func() error {
		got, messages, err := e.events(namespace, object, "")
		if err != nil {
			return err
		}
		if want := []event{{corev1.EventTypeWarning, reason, 1}}; !slices.Equal(got, want) {
			return fmt.Errorf("Events %v %q about %s, want %v", got, messages, object, want)
		}
		for _, word := range words {
			if !strings.Contains(messages[0], word) {
				return fmt.Errorf("Event %s says %q, want %q in it", reason, messages[0], word)
			}
		}
		return nil
	}
}
