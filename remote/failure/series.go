package failure

import "time"

const (
	// Lasting is how long a state lasts before it is news, where states alternate.
	Lasting = 10 * time.Second
	// longest is how long a part that fails again and again must be healthy before it counts as recovered.
	longest = 20 * time.Second
	// maxCauses is how many causes of one failure are news as soon as they appear: enough for someone who tries
	// one remedy after the other.
	maxCauses = 50
)

// Series is how one part has been doing. It decides what is news: of a failure its beginning, each cause that is
// new or lasts, and its end. A part that fails again soon after it has recovered must be healthy for a
// while, and longer each time, before it counts as recovered. The zero Series is healthy.
type Series struct {
	Shown string // the cause that was last news, in its latest words; empty: healthy

	shown, now string // keys
	text       string // of now
	since      time.Time
	causes     map[string]bool // causes of this failure that were news
	recovered  time.Time       // when that was last news
	settle     time.Duration   // how long it must be healthy
}

// Note notes the state of the part: why it fails or, if that is empty, that it is healthy. It returns whether
// what is shown has changed, which is news.
func (s *Series) Note(cause string, at time.Time) (news bool) {
	if cause != s.text {
		if key := Key(cause); key != s.now {
			s.now, s.since = key, at
		}
		s.text = cause
	}
	return s.Settle(at)
}

// Settle returns whether what is shown has changed because a state has lasted.
func (s *Series) Settle(at time.Time) (news bool) {
	switch {
	case s.now == s.shown:
		s.Shown = s.text
		return false
	case at.Sub(s.since) < s.wait():
		return false
	}
	s.show(at)
	return true
}

// Pending tells that what is shown will change if the state lasts, and when.
func (s *Series) Pending() (due time.Time, pending bool) {
	return s.since.Add(s.wait()), s.now != s.shown
}

// wait is how long the state must last.
func (s *Series) wait() time.Duration {
	switch {
	case s.shown == "":
		return 0
	case s.now == "":
		return s.settle
	case s.causes[s.now] || len(s.causes) >= maxCauses:
		return Lasting
	}
	return 0
}

func (s *Series) show(at time.Time) {
	switch {
	case s.now == "":
		s.recovered, s.causes = at, nil
	case s.shown == "":
		s.causes = map[string]bool{s.now: true}
		if s.recovered.IsZero() || at.Sub(s.recovered) >= max(Lasting, 2*s.settle) {
			s.settle = 0
		} else {
			s.settle = min(max(Lasting, 2*s.settle), longest)
		}
	case len(s.causes) < maxCauses:
		s.causes[s.now] = true
	}
	s.shown, s.Shown = s.now, s.text
}
