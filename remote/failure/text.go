// Package failure has what is said of failures: a text that is the same at each attempt, printable wherever it
// came from, and when a part's state has changed for good. It is pure: it imports no client, clock or logger.
package failure

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Cause is the innermost text of an error: without the URL that was requested and the addresses of the
// connection, which an error has around it.
func Cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%.1000s", err)
		}
		err = inner
	}
}

// maxKey is how many bytes of a text are compared. Messages of this program are shorter.
const maxKey = 4000

// variable is what differs in a text from one attempt to the next, and what is compared in its place. A number
// is nothing variable by itself: a status, a port or a count makes another cause.
var variable = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( [A-Z]{3,4}\b)?( m=[+-][\d.]+)?`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d+)?\b`), "TIME"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ns|µs|us|ms|s|m|h))+\b`), "DURATION"},
	{regexp.MustCompile(`\b[[:xdigit:]]{8}-[[:xdigit:]]{4}-[[:xdigit:]]{4}-[[:xdigit:]]{4}-[[:xdigit:]]{12}\b`), "ID"},
	{regexp.MustCompile(`\b0x[[:xdigit:]]+\b`), "ID"},
	{regexp.MustCompile(`(?i)\b((?:stream|request|req|connection|conn|trace|span|correlation|session|ray|audit|transaction)[-_ ]?(?:id)?["' ]{0,2}[:=#]?["' ]{0,2})[\w+/=.-]*\d[\w+/=.-]*`), "${1}ID"},
	{regexp.MustCompile(`(?i)(resource ?versions?[^\d]{0,40})\d+( \(\d+\))?`), "${1}VERSION"},
	{regexp.MustCompile(`([\w.\]]):\d+->`), "$1->"}, // the local port of a connection
	{regexp.MustCompile(`\b\d{6,}\b`), "NUMBER"},
}

var longWord = regexp.MustCompile(`\b[[:alnum:]]{12,}\b`)

// Key is a text without what differs from one attempt to the next: times, durations, identifiers of
// requests, streams and connections. Two texts with one key are about the same failure.
func Key(text string) string {
	text = text[:min(len(text), maxKey)]
	for _, one := range variable {
		text = one.pattern.ReplaceAllString(text, one.instead)
	}
	return longWord.ReplaceAllStringFunc(text, func(word string) string {
		if strings.ContainsAny(word, "0123456789") && strings.ContainsFunc(word, unicode.IsLetter) {
			return "ID"
		}
		return word
	})
}

// Printable is a text from elsewhere without what would change how the text around it is shown: control
// characters, those that change the direction of what follows, and invalid UTF-8. It has one line.
func Printable(text string) string {
	if plain(text) { // as most often
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029':
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func plain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// Line is a text of several lines, as that of joined errors, as a printable one.
func Line(text string) string {
	return Printable(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))
}

// Lines has each line of a text printable.
func Lines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = Printable(line)
	}
	return strings.Join(lines, "\n")
}
