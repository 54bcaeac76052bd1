package remote

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// counter counts a server's requests by what they are.
type counter struct {
	mu   sync.Mutex
	seen map[string]int
}

// count has a server's requests counted before instead answers, or not.
func (s *liveServer) count(instead func(http.ResponseWriter, *http.Request) bool) *counter {
	c := &counter{seen: map[string]int{}}
	counted := func(w http.ResponseWriter, req *http.Request) bool {
		c.mu.Lock()
		c.seen[requestKind(req)]++
		c.mu.Unlock()
		return instead != nil && instead(w, req)
	}
	s.instead.Store(&counted)
	return c
}

func requestKind(req *http.Request) string {
	query := req.URL.Query()
	switch {
	case strings.HasSuffix(req.URL.Path, "/kube-system"):
		return "identity"
	case strings.Contains(query.Get("fieldSelector"), "gateway"):
		return "gateway"
	case query.Get("sendInitialEvents") == "true":
		return "stream"
	case query.Get("watch") != "":
		return "watch"
	}
	return "list"
}

func (c *counter) of(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[kind]
}

// protocols are the ways in which a client's requests get to an API server.
var protocols = map[string]func(*testing.T, types.UID) *liveServer{
	"HTTP/2": newLiveServer,
	"HTTP/1.1": func(t *testing.T, uid types.UID) *liveServer {
		s := newHTTP1Server(uid)
		s.start(t)
		return s
	},
	"HTTP/1.1, a connection for each request": func(t *testing.T, uid types.UID) *liveServer {
		s := newHTTP1Server(uid)
		s.Config.SetKeepAlivesEnabled(false)
		s.start(t)
		return s
	},
}

// One watch's connection is of no concern to the others: 16 namespaces are known in a
// moment, without any try that failed.
func TestManyNamespaces(t *testing.T) {
	for name, newServer := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := through()
			spec.Name = "paris"
			for n := range 16 {
				spec.Namespaces = append(spec.Namespaces, fmt.Sprint("team-", n))
			}
			server := newServer(t, "paris-uid")
			requests := server.count(nil)
			f := followAs(t, server, spec, func(types.UID) error { return nil })
			eventually(t, func() string {
				if view, _ := f.View(); len(view.Services) != 16 || view.Services.Len() != 16 || view.UID != "paris-uid" {
					return fmt.Sprintf("%d namespaces are known: %v", len(view.Services), f.Status().Problems)
				}
				return ""
			})
			if problems := f.Status().Problems; len(problems) > 0 {
				t.Errorf("problems %v", problems)
			}
			most := map[string][3]int{"HTTP/2": {2, 16, 0}, "HTTP/1.1": {60, 32, 0}}[name]
			if most[0] == 0 {
				most = [3]int{120, 16, 32}
			}
			got := [3]int{requests.of("identity"), requests.of("stream"), requests.of("list")}
			for i, kind := range []string{"reads of the UID", "streams", "lists"} {
				if got[i] > most[i] {
					t.Errorf("%d %s, want %d at most", got[i], kind, most[i])
				}
			}
		})
	}
}

// watched wants both watches of a server to be open.
func (s *liveServer) watched() string {
	if open := s.open.Load(); open != 2 {
		return fmt.Sprintf("%d watches are open", open)
	}
	return ""
}

// interrupted closes the connections until something is listed. A watch that is closed before the client has seen it is
// opened again without a list, for its version is of a list just before.
func (s *liveServer) interrupted(requests *counter) func() string {
	return func() string {
		if requests.of("list") > 0 {
			return ""
		}
		if s.watched() == "" {
			s.CloseClientConnections()
		}
		return "nothing is listed"
	}
}

// closing is a remote behind a proxy that closes each connection.
func closing(t *testing.T) *liveServer {
	return protocols["HTTP/1.1, a connection for each request"](t, "paris-uid")
}

// known to accept: paris, and nothing else.
func onlyParis(uid types.UID) error {
	if uid != "paris-uid" {
		return errors.New("not the one")
	}
	return nil
}

func namespaceAnswer(w http.ResponseWriter, uid types.UID) {
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	w.Write(encode(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid}}))
}

func emptyAnswer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	w.Write(encode(&corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "50"}}))
}

// Where the cluster behind a proxy is swapped, an answer counts only if the UID was right
// before and after it.
func TestSwapBehindAProxyThatClosesConnections(t *testing.T) {
	spec := through()
	spec.Name = "paris"
	server := closing(t)
	f := followAs(t, server, spec, onlyParis)
	eventually(t, known(f))
	eventually(t, server.watched)
	var swapped atomic.Bool
	requests := server.count(func(w http.ResponseWriter, req *http.Request) bool {
		switch kind := requestKind(req); {
		case kind == "identity" && swapped.Load():
			namespaceAnswer(w, "other-uid")
		case kind == "list": // by now it is the other cluster, which exports nothing
			swapped.Store(true)
			emptyAnswer(w)
		case kind == "stream":
			w.WriteHeader(http.StatusUnprocessableEntity)
		default:
			return false
		}
		return true
	})
	eventually(t, server.interrupted(requests))
	eventually(t, func() string {
		if f.Status().State != Refused {
			return fmt.Sprintf("the swap is not noticed: %+v", f.Status())
		}
		return ""
	})
	if deleted := f.deletions(); len(deleted) > 0 || requests.of("list") == 0 {
		t.Errorf("%v was deleted, after %d lists of the other cluster", deleted, requests.of("list"))
	}
}

// One list of another cluster that slips in between is not enough to delete anything.
func TestOneEmptyListBehindAProxyThatClosesConnections(t *testing.T) {
	spec := through()
	spec.Name = "paris"
	server := closing(t)
	f := followAs(t, server, spec, onlyParis)
	eventually(t, known(f))
	eventually(t, server.watched)
	var lists atomic.Int64
	requests := server.count(func(w http.ResponseWriter, req *http.Request) bool {
		switch kind := requestKind(req); {
		case kind == "list" && req.URL.Query().Get("limit") == "1": // the version went back: all is listed
			w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
			w.Write(encode(&corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "3"}}))
			return true
		case kind == "list" && lists.Add(1) == 1:
			emptyAnswer(w)
			return true
		}
		return false
	})
	eventually(t, server.interrupted(requests))
	eventually(t, func() string {
		if lists.Load() < 2 {
			return fmt.Sprintf("%d lists were made", lists.Load())
		}
		return ""
	})
	if got := f.exported(); !slices.Equal(got, []string{"default/bar"}) || len(f.deletions()) > 0 {
		t.Errorf("%v is exported, %v was deleted", got, f.deletions())
	}
}

// On one connection the cluster does not change; on a new one the UID is read again, and
// a swapped cluster's list is not believed.
func TestSwapBehindAnAddress(t *testing.T) {
	for name, newServer := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := through()
			spec.Name = "paris"
			server := newServer(t, "paris-uid")
			f := followAs(t, server, spec, onlyParis)
			eventually(t, known(f))
			eventually(t, server.watched)
			server.count(func(w http.ResponseWriter, req *http.Request) bool {
				switch requestKind(req) {
				case "identity":
					namespaceAnswer(w, "other-uid")
				case "list":
					emptyAnswer(w)
				default:
					w.WriteHeader(http.StatusUnprocessableEntity)
				}
				return true
			})
			server.CloseClientConnections()
			eventually(t, func() string {
				if f.Status().State != Refused {
					return fmt.Sprintf("the swap is not noticed: %+v", f.Status())
				}
				return ""
			})
			if deleted := f.deletions(); len(deleted) > 0 {
				t.Errorf("%v was deleted", deleted)
			}
		})
	}
}
