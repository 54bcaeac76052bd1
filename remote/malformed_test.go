package remote

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// wrongAnswers are answers with status 200 that are not what was requested, by a server
// that answers them to everything.
var wrongAnswers = []struct {
	name, contentType string
	body              []byte
}{
	{"empty object", runtime.ContentTypeJSON, []byte("{}")},
	{"null", runtime.ContentTypeJSON, []byte("null")},
	{"HTML", "text/html", []byte("<html>Please log in</html>")},
	{"HTML that claims to be JSON", runtime.ContentTypeJSON, []byte("<html>Please log in</html>")},
	{"nothing", runtime.ContentTypeJSON, nil},
	{"nothing in protobuf", runtime.ContentTypeProtobuf, nil},
	{"a success", runtime.ContentTypeJSON, []byte(`{"kind":"Status","apiVersion":"v1","status":"Success"}`)},
	{"a refusal", runtime.ContentTypeJSON, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)},
	{"an expired version", runtime.ContentTypeJSON, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`)},
	{"a list of another kind", runtime.ContentTypeJSON, []byte(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[]}`)},
	{"a list of no kind", runtime.ContentTypeJSON, []byte(`{"metadata":{"resourceVersion":"5"},"items":[]}`)},
	{"a list without a version", runtime.ContentTypeProtobuf, encode(&corev1.ServiceList{})},
	{"a list of another kind in protobuf", runtime.ContentTypeProtobuf, encode(&corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}})},
	{"a list with an item without a UID", runtime.ContentTypeProtobuf, encode(&corev1.ServiceList{
		ListMeta: metav1.ListMeta{ResourceVersion: "5"}, Items: []corev1.Service{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "foo"}}}})},
}

// answering has a server send one of the wrong answers to everything, or only where lists
// are requested: streamed ones it refuses then.
func (s *liveServer) answering(contentType string, body []byte, listsOnly bool) {
	instead := func(w http.ResponseWriter, req *http.Request) bool {
		query := req.URL.Query()
		if listsOnly && (strings.HasSuffix(req.URL.Path, "/kube-system") || query.Get("watch") != "" && query.Get("sendInitialEvents") == "") {
			return false
		}
		if listsOnly && query.Get("watch") != "" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return true
		}
		w.Header().Set("Content-Type", contentType)
		w.Write(body)
		return true
	}
	s.instead.Store(&instead)
}

func (f *follower) exported() []string {
	view, ok := f.View()
	if !ok {
		return nil
	}
	var all []string
	for _, name := range view.Services.Names() {
		all = append(all, name.String())
	}
	return all
}

func (f *follower) deletions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.deleted)
}

// An answer that is not what was requested changes nothing, and has a cause.
func TestWrongAnswers(t *testing.T) {
	for _, answer := range wrongAnswers {
		for _, listsOnly := range []bool{false, true} {
			for _, pinned := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, lists only %v, unverified %v", answer.name, listsOnly, pinned), func(t *testing.T) {
					t.Parallel()
					testWrongAnswer(t, func(s *liveServer) { s.answering(answer.contentType, answer.body, listsOnly) }, pinned)
				})
			}
		}
	}
}

func testWrongAnswer(t *testing.T, goWrong func(*liveServer), pinned bool) {
	// As mirror decides: with uid=unverified a cluster whose UID may not be read is accepted.
	var strange atomic.Bool
	accept := func(uid types.UID) error {
		if uid == "paris-uid" || uid == "" && pinned {
			return nil
		}
		strange.Store(true)
		return errors.New("not the one")
	}
	spec := through()
	spec.Name = "paris"
	right := func(s *liveServer) { s.instead.Store(nil) }
	fails := func(f *follower) func() string {
		return func() string {
			if problems := f.Status().Problems; len(problems) == 0 {
				return "no cause is reported"
			}
			return ""
		}
	}
	atStart := newLiveServer(t, "paris-uid")
	goWrong(atStart)
	late := followAs(t, atStart, spec, accept)
	running := newLiveServer(t, "paris-uid")
	f := followAs(t, running, spec, accept)
	eventually(t, known(f))
	eventually(t, running.watched)
	goWrong(running)
	running.CloseClientConnections()
	eventually(t, fails(f))
	eventually(t, fails(late))
	if got := f.exported(); len(got) != 1 || len(f.deletions()) > 0 {
		t.Errorf("running: %v is exported, %v was deleted; problems %v", got, f.deletions(), f.Status().Problems)
	}
	if _, ok := late.View(); ok {
		t.Errorf("at the start: it is known, with %v; problems %v", late.exported(), late.Status().Problems)
	}
	if strange.Load() {
		t.Error("something else than a UID was taken for one, or for a refusal to read it")
	}
	right(running)
	right(atStart)
	eventually(t, known(f, late))
	eventually(t, func() string {
		for _, one := range []*follower{f, late} {
			if s := one.Status(); s.State != Up || len(s.Problems) > 0 || s.Exported != 1 {
				return fmt.Sprintf("it is not followed again: %+v", s)
			}
		}
		return ""
	})
	if deleted := f.deletions(); len(deleted) > 0 {
		t.Errorf("%v was deleted", deleted)
	}
}

// TestMain lets tests that mostly wait run side by side, however few the CPUs are.
func TestMain(m *testing.M) {
	flag.Parse()
	must(flag.Set("test.parallel", "16"))
	os.Exit(m.Run())
}
