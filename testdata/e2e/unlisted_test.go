package e2e

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// unlistedCase is a way in which a list is not to be had, or in one of two ways only.
type unlistedCase struct {
	name     string
	streamed frontFault // nil: as it should be
	plain    frontFault
	possible bool   // there is another way
	cause    string // in the log, where it is over soon
}

func unchanged(*corev1.ServiceList) {}

// emptied leaves nothing of a list, which is less than there is.
func emptied(list *corev1.ServiceList) { list.Items = nil }

var unlistedCases = []unlistedCase{
	{"stream-ends", streamed(unchanged, false), nil, true, "bookmark"},
	{"stream-empty", streamed(emptied, false), nil, true, "bookmark"},
	{"stream-422", refuses(invalid), nil, true, ""},
	{"stream-405", refuses(methodNotAllowed), nil, true, ""},
	{"stream-410", refuses(expired), nil, true, ""},
	{"list-405", nil, refuses(methodNotAllowed), true, ""},
	{"list-410", nil, refuses(expired), true, ""},
	{"list-422", nil, refuses(invalid), true, ""},
	{"neither-405", streamed(unchanged, false), refuses(methodNotAllowed), false, ""},
	{"neither-410", streamed(unchanged, false), refuses(expired), false, ""},
	{"neither-422", streamed(emptied, false), refuses(invalid), false, ""},
	{"refused-405", refuses(methodNotAllowed), refuses(methodNotAllowed), false, ""},
	{"refused-422", refuses(invalid), refuses(invalid), false, ""},
}

// streams tells whether a cluster streams lists, as Kubernetes does by default since 1.32.
func streams(t *testing.T, c *cluster) bool {
	t.Helper()
	version, err := c.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	return version.Minor >= "32"
}

// A list that ends before its end is no list: it is made in another way, or there is a cause.
func TestListsThatCannotBeHad(t *testing.T) {
	e := newEnv(t)
	cases := unlistedCases
	if !streams(t, paris) { // then plain lists are all that there is
		cases = slices.DeleteFunc(slices.Clone(cases), func(c unlistedCase) bool { return c.possible && c.plain != nil })
	}
	var remotes []*remote
	var fronts []*front
	for _, c := range cases {
		r := e.remoteNamed(paris, c.name+"-"+e.id)
		remotes, fronts = append(remotes, r), append(fronts, r.behindFront(nil))
	}
	remotes[0].gateway("203.0.113.1")
	remotes[0].export("bar")
	remotes[0].export("baz")
	d := e.daemon(remotes, listening...)
	for _, r := range remotes {
		e.soon("the mirrors", r.mirrored("bar", "203.0.113.1"), r.mirrored("baz", "203.0.113.1"))
	}
	before := e.identities()
	d.stop()
	since := london.mark(t)
	for i, c := range cases {
		fronts[i].fail(exportsOnly(byVerb(map[verb]frontFault{streamedList: c.streamed, plainList: c.plain})))
	}
	e.edits(paris, "bar", 1)
	e.remove(paris, "baz")
	d = e.daemon(remotes, listening...)
	follow := func(r *remote) {
		t.Helper()
		e.eventually(soon+3*time.Second, "followed", r.mirrored("bar", "203.0.113.1"))
		e.soon("followed", r.gone("baz"), d.shows(r, "up"))
	}
	for i, c := range cases {
		if c.possible {
			follow(remotes[i])
		}
		if c.cause != "" {
			e.logs(d, remotes[i].name, c.cause)
		}
	}
	for i, c := range cases { // watches that are resumed, too
		if c.possible {
			fronts[i].server.CloseClientConnections()
		} else {
			e.soon("a cause", d.reportsFailure(remotes[i]))
		}
	}
	e.edits(paris, "bar", 1)
	for i, c := range cases {
		if c.possible {
			follow(remotes[i])
		}
	}
	e.stays("the daemon", d.answers("/healthz", 200))
	failing := map[string]bool{}
	for i, c := range cases {
		if !c.possible {
			e.must(d.reportsFailure(remotes[i])())
			failing[remotes[i].mirror("bar")], failing[remotes[i].mirror("baz")] = true, true
		}
	}
	for _, w := range london.writes(t, e.id, since) {
		if failing[w.ObjectRef.Name] {
			t.Errorf("written without a list: %v", w)
		}
	}
	now := e.identities()
	for name := range failing {
		if now[name] != before[name] {
			t.Errorf("%s was %q and is %q", name, before[name], now[name])
		}
	}
	for i, c := range cases {
		if !c.possible {
			fronts[i].recover()
		}
	}
	for i, c := range cases {
		if !c.possible {
			follow(remotes[i])
		}
	}
}
