package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// massExports is how many Services are exported: more than twice the ten that any list may lack.
const massExports = 24

// confirmed is how long a mass deletion may take: 15 s, as acceptance case 5 has it, and what soon adds to
// each time.
const confirmed = 15*time.Second + soon

// massCase is a way in which well-formed lists lack most of what is exported, for a while.
type massCase struct {
	kind  string
	fault func() frontFault
}

// withoutAny and withoutMost leave nothing, and 11 of 24, of a list.
func withoutAny(list *corev1.ServiceList)  { list.Items = []corev1.Service{} }
func withoutMost(list *corev1.ServiceList) { list.Items = list.Items[:11] }

// massCases are such lists, each once for a daemon that lists.
func massCases() []massCase {
	plainOnly := func(list frontFault) frontFault {
		return exportsOnly(byVerb(map[verb]frontFault{plainList: wholeLists(list), streamedList: refuses(invalid), resumedWatch: atFirst(1, refuses(expired))}))
	}
	streamedToo := func(list, stream frontFault) frontFault {
		return exportsOnly(byVerb(map[verb]frontFault{plainList: wholeLists(list), streamedList: stream, resumedWatch: atFirst(1, refuses(expired))}))
	}
	return []massCase{
		{"plain-none", func() frontFault { return plainOnly(atFirst(1, edited(withoutAny))) }},
		{"plain-most", func() frontFault { return plainOnly(atFirst(1, edited(withoutMost))) }},
		{"streamed-none", func() frontFault {
			return streamedToo(atFirst(1, edited(withoutAny)), atFirst(1, streamed(withoutAny, true)))
		}},
		{"streamed-most", func() frontFault {
			return streamedToo(atFirst(1, edited(withoutMost)), atFirst(1, streamed(withoutMost, true)))
		}},
		{"stream-alone", func() frontFault { return streamedToo(passed, streamed(withoutAny, true)) }},
		{"connection", func() frontFault { return plainOnly(onFirstConnection(edited(withoutAny))) }},
	}
}

func passed(w http.ResponseWriter, r *http.Request, upstream http.Handler) { upstream.ServeHTTP(w, r) }

// atFirst applies a fault to the first requests, and passes the others on.
func atFirst(n int32, fault frontFault) frontFault {
	var count atomic.Int32
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if count.Add(1) > n {
			passed(w, r, upstream)
			return
		}
		fault(w, r, upstream)
	}
}

// wholeLists applies a fault to lists of more than the one object by which the daemon learns the server's version.
func wholeLists(fault frontFault) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if r.URL.Query().Get("limit") == "1" {
			passed(w, r, upstream)
			return
		}
		fault(w, r, upstream)
	}
}

// onFirstConnection applies a fault to all requests of the connection over which the first one comes.
func onFirstConnection(fault frontFault) frontFault {
	var first sync.Once
	var address string
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		first.Do(func() { address = r.RemoteAddr })
		if r.RemoteAddr != address {
			passed(w, r, upstream)
			return
		}
		fault(w, r, upstream)
	}
}

// massRemote is paris, under a name and behind a front of the case's own.
type massRemote struct {
	massCase
	*remote
	front *front
}

// massWorld has all exported Services mirrored once for each case.
func (e *env) massWorld(cases []massCase) (all []massRemote, remotes []*remote, d *daemon) {
	e.Helper()
	for _, c := range cases {
		r := e.remoteNamed(paris, c.kind+"-"+e.id)
		all = append(all, massRemote{c, r, r.behindFront(nil)})
		remotes = append(remotes, r)
	}
	remotes[0].gateway("203.0.113.1")
	for i := range massExports {
		remotes[0].export(fmt.Sprintf("bar%d", i))
	}
	d = e.daemon(remotes, listening...)
	for _, r := range remotes {
		e.eventually(2*soon, "the mirrors", r.mirrors(massExports))
	}
	return all, remotes, d
}

// mirrors checks how many mirrors of the remote exist.
func (r *remote) mirrors(want int) func() error {
	return func() error {
		list, err := r.env.local.CoreV1().Services(r.env.id).List(r.env.ctx, metav1.ListOptions{LabelSelector: "service-mirror.io/cluster=" + r.name})
		if err != nil {
			return err
		}
		if len(list.Items) != want {
			return fmt.Errorf("remote %s has %d mirrors, want %d", r.name, len(list.Items), want)
		}
		return nil
	}
}

// undeleted checks that the mirrors survive the lists that lack them, and that all is followed afterwards.
func (e *env) undeleted(all []massRemote, d *daemon, before map[string]string, since auditMark) {
	e.Helper()
	for _, r := range all {
		lacks := "lacks 24 of 24 mirrors"
		if strings.HasSuffix(r.kind, "most") {
			lacks = "lacks 13 of 24 mirrors"
		}
		e.logs(d, "mirrors are kept unchanged", r.name, lacks)
	}
	all[0].export("new")
	for _, r := range all {
		e.eventually(confirmed, "a later list is right", r.mirrored("new", "203.0.113.1"))
		e.eventually(confirmed+lasting, "no problem is left", d.shows(r.remote, "up")) // which may take another list, of the bad connection
	}
	for _, w := range e.local.writes(e.T, e.id, since) {
		if w.Verb != "create" || !strings.HasPrefix(w.ObjectRef.Name, "new-") {
			e.Errorf("written for a list that lacked what exists: %v", w)
		}
	}
	now := e.identities()
	for name, identity := range before {
		if now[name] != identity {
			e.Errorf("%s was %q and is %q", name, identity, now[name])
		}
	}
}

// A list that is well-formed, and lacks most of what is mirrored, deletes nothing if a second one has it.
func TestListsThatLackMostAtStart(t *testing.T) {
	e := newEnv(t)
	all, remotes, d := e.massWorld(massCases())
	d.stop()
	before, since := e.identities(), london.mark(t)
	for _, r := range all {
		r.front.fail(r.fault())
	}
	e.undeleted(all, e.daemon(remotes, listening...), before, since)
}

func TestListsThatLackMostWhileRunning(t *testing.T) {
	e := newEnv(t)
	// A daemon that runs lists plainly when its watch cannot be resumed.
	all, _, d := e.massWorld(slices.DeleteFunc(massCases(), func(c massCase) bool { return strings.HasPrefix(c.kind, "stream") }))
	before, since := e.identities(), london.mark(t)
	for _, r := range all {
		r.front.fail(r.fault())
	}
	e.undeleted(all, d, before, since)
}

// What is really gone goes after a second look, whoever looked before, and nothing else does.
func TestMassDeletion(t *testing.T) {
	t.Parallel()
	plain := massCase{"plain", func() frontFault { return exportsOnly(byVerb(map[verb]frontFault{streamedList: refuses(invalid)})) }}
	for name, left := range map[string]int{"all": 0, "most": 9} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			all, remotes, d := e.massWorld([]massCase{{"streamed", func() frontFault { return passed }}, plain})
			e.foreignService("foreign-" + remotes[0].name)
			foreign := snapshot(e.service("foreign-" + remotes[0].name))
			d.stop()
			for i := left; i < massExports; i++ {
				e.change(paris, fmt.Sprintf("bar%d", i), e.unlabel)
			}
			for _, r := range all {
				r.front.fail(r.fault())
			}
			since, start := london.mark(t), time.Now()
			d = e.daemon(remotes, listening...)
			for _, r := range all {
				e.logs(d, "mirrors are kept unchanged", r.name, fmt.Sprintf("lacks %d of 24 mirrors", massExports-left))
				if err := r.mirrors(massExports)(); err != nil {
					t.Errorf("before the second list: %v", err)
				}
			}
			for _, r := range all {
				e.eventually(confirmed-time.Since(start), "the mirrors are deleted", r.mirrors(left))
				e.soon("no problem is left", d.shows(r.remote, "up"))
			}
			deleted := 0
			for _, w := range e.local.writes(t, e.id, since) {
				if w.Verb == "delete" && w.ObjectRef.Resource == "services" {
					deleted++
					if early := w.RequestReceivedTimestamp.Sub(start); early < 10*time.Second {
						t.Errorf("%v: %v after the start, before a second list", w, early)
					}
				}
			}
			if want := 2 * (massExports - left); deleted != want {
				t.Errorf("%d Services were deleted, want %d", deleted, want)
			}
			if now := snapshot(e.service("foreign-" + remotes[0].name)); now != foreign {
				t.Errorf("a foreign Service was\n%s\nand is\n%s", foreign, now)
			}
		})
	}
}
