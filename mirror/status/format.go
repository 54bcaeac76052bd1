package status

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote/failure"
)

const (
	// textLength is how many characters of one text the page shows; the JSON has
	// all of it.
	textLength = 400
	// messageLength is how many bytes of one message the page shows. The daemon's own
	// messages are shorter; what an API server or a webhook answers may be longer.
	messageLength = 3000
	// A list shows a few items and folds more; the rest is only in the JSON.
	few  = 3
	many = 64
)

var functions = template.FuncMap{
	"text":     text,
	"message":  message,
	"count":    count,
	"tone":     tone,
	"noun":     noun,
	"pair":     func(page *view, remote remoteView) pair { return pair{page, remote} },
	"texts":    func(list []string) list[string] { return newList(list, few) },
	"ports":    func(m *Mirror) list[string] { return newList(m.shown(), few) },
	"rowTone":  func(r row) string { return rowTone(r) },
	"problems": func(r row) []MirrorProblem { return r.problems() },
	"served":   func(s *Service) list[string] { return newList(textsOf(s.Ports), few) },
}

func textsOf[T fmt.Stringer](all []T) []string {
	texts := make([]string, 0, len(all))
	for _, one := range all {
		texts = append(texts, one.String())
	}
	return texts
}

// pair is what the template of a remote takes.
type pair struct {
	Page   *view
	Remote remoteView
}

// text prepares a text from a remote to be shown beside others. The template
// escapes it.
func text(s string) string {
	n, end := 0, 0
	for at := range s {
		if n++; n == textLength {
			end = at
		} else if n > textLength {
			s = s[:end] + "…"
			break
		}
	}
	return failure.Printable(s)
}

// message prepares the message of a problem. It is shown whole, since the fix is at its
// end; of one that is too long the middle is left out.
func message(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") // several causes in one error
	if len(s) > messageLength {
		const half = messageLength / 2
		s = strings.ToValidUTF8(s[:half], "") + " … " + strings.ToValidUTF8(s[len(s)-half:], "")
	}
	return failure.Printable(s)
}

// count formats a number with thousands separators.
func count(n int) string {
	s := strconv.Itoa(n)
	for at := len(s) - 3; at > 0 && s[at-1] != '-'; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// noun is a number of things.
func noun(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}

// tone is the colour of a state, by name.
func tone(state string) string {
	switch state {
	case Mirrored, Published, Up, Ready, FailoverLocal:
		return "ok"
	case Incomplete, string(plan.FailoverRemoteOnly), string(plan.FailoverBoth):
		return "warn"
	case Refused, Conflict, Down, NotReady, string(plan.FailoverUnavailable):
		return "bad"
	case Waiting, Connecting:
		return "info"
	default:
		return "off"
	}
}

// rowTone is the colour of a row: of its state, unless nothing of it serves.
func rowTone(r row) string {
	if r.severity() <= unreachable {
		return "bad"
	}
	return tone(r.state())
}

// list is a list whose end is folded.
type list[T any] struct {
	First, Rest []T
	Left        int // that are not shown at all
}

func newList[T any](all []T, first int) list[T] {
	shown := min(len(all), many)
	first = min(first, shown)
	return list[T]{all[:first], all[first:shown], len(all) - shown}
}

// More is how many are not shown at once.
func (l list[T]) More() int { return len(l.Rest) + l.Left }

// clock is a time of day; of another day than now, with the date.
func clock(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05 UTC")
	}
	return t.Format("2006-01-02 15:04 UTC")
}

// moment is a time in the forms that the page shows.
type moment struct{ Relative, Absolute, Machine string }

func newMoment(relative string, t time.Time) moment {
	return moment{relative, t.UTC().Format("2006-01-02 15:04:05 UTC"), t.UTC().Format(time.RFC3339)}
}

// ago is how long before now a time is. Clocks differ: it may be after.
func ago(t, now time.Time) string {
	switch d := now.Sub(t); {
	case d.Abs() < time.Second:
		return "now"
	case d < 0:
		return "in " + span(-d)
	default:
		return span(d) + " ago"
	}
}

// span is a duration in one unit.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	default:
		return count(int(d/(24*time.Hour))) + " days"
	}
}
