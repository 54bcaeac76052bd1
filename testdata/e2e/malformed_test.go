package e2e

import (
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// malformedCase is a way in which a server answers 200 with what is no knowledge.
type malformedCase struct {
	name  string
	fault frontFault
	keys  string // of --remote
	// recovers is set where a new list gets past it, so that no failure is left to report.
	recovers bool
}

// malformedBodies are answers that some clients take for an empty list, or for an object
// without any fields.
var malformedBodies = []struct{ name, contentType, body string }{
	{"empty", "application/json", `{}`},
	{"null", "application/json", `null`},
	{"html", "text/html", `<!DOCTYPE html><title>Sign in</title>`},
	{"htmljson", "application/json", `<!DOCTYPE html><title>Sign in</title>`},
	{"status", "application/json", `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}`},
	{"pods", "application/json", `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`},
}

// malformedAnswers are the cases that persist over a restart of the daemon.
func (e *env) malformedAnswers() (all []malformedCase) {
	e.Helper()
	system, err := paris.CoreV1().Namespaces().Get(e.ctx, "kube-system", metav1.GetOptions{})
	e.must(err)
	for _, body := range malformedBodies {
		answer := answers(body.contentType, body.body)
		for suffix, keys := range map[string]string{"": "", "-uid": ",uid=" + string(system.UID)} {
			all = append(all,
				malformedCase{name: "all-" + body.name + suffix, fault: answer, keys: keys},
				malformedCase{name: "lists-" + body.name + suffix, fault: onLists(answer), keys: keys})
		}
	}
	for name, edit := range e.malformedItems() {
		all = append(all, malformedCase{name: "list-" + name, fault: exportsOnly(onLists(edited(edit))), keys: ",namespaces=" + e.id})
	}
	for _, name := range []string{"nameless", "without-uid", "elsewhere"} {
		all = append(all, malformedCase{
			name: "stream-" + name, keys: ",namespaces=" + e.id,
			fault: exportsOnly(byVerb(map[verb]frontFault{
				plainList: refuses(methodNotAllowed), resumedWatch: refuses(expired),
				streamedList: streamed(e.malformedItems()[name], true),
			})),
		})
	}
	return all
}

// malformedItems are changes to a list that make all of it worthless.
func (e *env) malformedItems() map[string]func(*corev1.ServiceList) {
	return map[string]func(*corev1.ServiceList){
		"nameless":    func(list *corev1.ServiceList) { list.Items[0].Name = "" },
		"without-uid": func(list *corev1.ServiceList) { list.Items[0].UID = "" },
		"elsewhere":   func(list *corev1.ServiceList) { list.Items[0].Namespace = e.id + "-other" },
		"twice": func(list *corev1.ServiceList) {
			again := list.Items[0].DeepCopy()
			again.Spec.Ports[0].Port++
			list.Items = append(list.Items, *again)
		},
		"without-version": func(list *corev1.ServiceList) { list.ResourceVersion, list.Items = "", nil },
	}
}

// malformedEvents are the cases of a watch that is resumed.
func (e *env) malformedEvents() (all []malformedCase) {
	for _, name := range []string{"nameless", "without-uid"} {
		all = append(all, malformedCase{
			name: "event-" + name, recovers: true,
			fault: exportsOnly(byVerb(map[verb]frontFault{resumedWatch: deletes(e.malformedItems()[name])})),
		})
	}
	return all
}

// malformedRemote is paris, under a name and behind a front of the case's own.
type malformedRemote struct {
	malformedCase
	*remote
	front *front
}

// malformedWorld has two exported Services mirrored once for each case.
func (e *env) malformedWorld(cases []malformedCase) (all []malformedRemote, d *daemon) {
	e.Helper()
	e.makeNamespace(london, e.id+"-other")
	var remotes []*remote
	for _, c := range cases {
		r := e.remoteNamed(paris, c.name+"-"+e.id)
		r.keys = c.keys
		all = append(all, malformedRemote{c, r, r.behindFront(nil)})
		remotes = append(remotes, r)
	}
	remotes[0].gateway("203.0.113.1")
	remotes[0].export("bar")
	remotes[0].export("baz")
	d = e.daemon(remotes, listening...)
	for _, r := range all {
		e.soon("the mirrors", r.mirrored("bar", "203.0.113.1"), r.mirrored("baz", "203.0.113.1"))
	}
	return all, d
}

// unharmed changes the exports while all answers are malformed, and checks that nothing is
// written for as long as these are, and that all is followed when they are right again.
func (e *env) unharmed(all []malformedRemote, d *daemon, since auditMark) {
	e.Helper()
	before := e.identities()
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.remove(paris, "baz")
	e.stays("the daemon", d.answers("/healthz", http.StatusOK))
	for _, r := range all {
		if !r.recovers {
			if err := d.reportsFailure(r.remote)(); err != nil {
				e.Error(err)
			}
		}
	}
	follows := map[string]bool{} // updates of bar, and the deletion of baz
	for _, r := range all {
		if r.recovers {
			follows["update "+r.mirror("bar")], follows["delete "+r.mirror("baz")] = true, true
		}
	}
	for _, w := range london.writes(e.T, e.id, since) {
		if !follows[w.Verb+" "+w.ObjectRef.Name] {
			e.Errorf("written on a malformed answer: %v", w)
		}
	}
	now := e.identities()
	for name, identity := range before {
		if now[name] != identity && !follows["delete "+name] {
			e.Errorf("%s was %q and is %q", name, identity, now[name])
		}
	}
	for _, r := range all {
		r.front.recover()
	}
	for _, r := range all {
		e.eventually(soon+3*time.Second, "the answers are right again", r.mirrored("bar", "203.0.113.1"))
		e.soon("the answers are right again", r.gone("baz"))
		e.eventually(lasting, "no problem is left", d.shows(r.remote, "up"))
	}
}

// A proxy or a login page in the API server's place answers 200 with something else: it
// deletes and changes nothing.
func TestMalformedAnswersAtStart(t *testing.T) {
	e := newEnv(t)
	all, d := e.malformedWorld(e.malformedAnswers())
	d.stop()
	since := london.mark(t)
	var remotes []*remote
	for _, r := range all {
		r.front.fail(r.fault)
		remotes = append(remotes, r.remote)
	}
	e.unharmed(all, e.daemon(remotes, listening...), since)
}

func TestMalformedAnswersWhileRunning(t *testing.T) {
	e := newEnv(t)
	all, d := e.malformedWorld(append(e.malformedAnswers(), e.malformedEvents()...))
	since := london.mark(t)
	for _, r := range all {
		r.front.fail(r.fault)
	}
	e.unharmed(all, d, since)
}
