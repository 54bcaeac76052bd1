package status

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestAgo(t *testing.T) {
	for _, test := range []struct {
		before time.Duration
		want   string
	}{
		{0, "now"},
		{999 * time.Millisecond, "now"},
		{-999 * time.Millisecond, "now"},
		{time.Second, "1 s ago"},
		{59*time.Second + 999*time.Millisecond, "59 s ago"},
		{time.Minute, "1 min ago"},
		{59*time.Minute + 59*time.Second, "59 min ago"},
		{time.Hour, "1 h ago"},
		{47*time.Hour + 59*time.Minute, "47 h ago"},
		{48 * time.Hour, "2 days ago"},
		{4000 * 24 * time.Hour, "4,000 days ago"},
		{-3 * time.Minute, "in 3 min"},
	} {
		if got := ago(noon.Add(-test.before), noon); got != test.want {
			t.Errorf("%v before: got %q, want %q", test.before, got, test.want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 10000: "10,000", 1234567: "1,234,567", -1: "-1", -100: "-100", -1000: "-1,000"} {
		if got := count(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 mirrors", 1: "1 mirror", 2: "2 mirrors", 10000: "10,000 mirrors"} {
		if got := noun(n, "mirror"); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestList(t *testing.T) {
	for _, test := range []struct{ all, first, rest, left int }{{0, 0, 0, 0}, {3, 3, 0, 0}, {4, 3, 1, 0}, {64, 3, 61, 0}, {65, 3, 61, 1}, {5000, 3, 61, 4936}} {
		l := newList(make([]string, test.all), few)
		if len(l.First) != test.first || len(l.Rest) != test.rest || l.Left != test.left || l.More() != test.all-test.first {
			t.Errorf("of %d: %d, %d, %d left", test.all, len(l.First), len(l.Rest), l.Left)
		}
	}
}

func TestMessage(t *testing.T) {
	for s, want := range map[string]string{
		"":                                       "",
		"plain":                                  "plain",
		"a\nb\n":                                 "a; b",
		"a\u202eb\xff":                           "a\ufffdb\ufffd",
		strings.Repeat("a", messageLength):       strings.Repeat("a", messageLength),
		strings.Repeat("a", messageLength) + "b": strings.Repeat("a", messageLength/2) + " … " + strings.Repeat("a", messageLength/2-1) + "b",
		"a" + strings.Repeat("é", messageLength): "a" + strings.Repeat("é", messageLength/4-1) + " … " + strings.Repeat("é", messageLength/4),
	} {
		if got := message(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "a\nb\tc", "a\x00\u202eb", "\xff", strings.Repeat("é", textLength), strings.Repeat("é", textLength+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := text(s)
		if n := utf8.RuneCountInString(got); n > textLength || !utf8.ValidString(got) {
			t.Errorf("%q: %d characters: %q", s, n, got)
		}
		for _, r := range got {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q: %q has %U", s, got, r)
			}
		}
		if plain := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0; plain && len(s) <= textLength && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
