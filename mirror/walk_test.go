package mirror

import (
	"bytes"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/remote"
)

var (
	walkSeed  = flag.Uint64("walk-seed", 0, "the first seed to walk with; 0: the usual ones")
	walkSeeds = flag.Uint64("walk-seeds", 1, "with how many seeds from --walk-seed on")
)

// walkSteps is how many steps a walk has; the usual seeds are divided among processes of
// walkGroup seeds each.
const walkSteps, walkProcesses, walkGroup = 220, 12, 5

// TestWalk makes random changes, and compares the local cluster with the model whenever
// the controllers are idle. The changes and the requests that fail depend on the seed
// alone; the order of goroutines at one point of the virtual time does not, so that it
// may take a few runs to reproduce a failure.
func TestWalk(t *testing.T) {
	if *walkSeed == 0 {
		walkInProcesses(t)
		return
	}
	var all tally
	for n := range *walkSeeds {
		seed := *walkSeed + n
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWalk(t, seed)
				defer w.end()
				w.walk()
				all.add(w.tally)
			})
		})
	}
	t.Logf("%+v", all)
	if n := int(*walkSeeds); n >= walkGroup && !t.Failed() && (all.Rests < n*10 || all.Mirrors < n*30 || all.Kept < n*20 || all.Foreign < n || all.Faults < n*8 || all.Renamed < n/3) {
		t.Errorf("the walks are too tame: %+v", all)
	}
}

// walkInProcesses runs one process after the other. Go's race detector crashes one in a
// hundred by a bug of its own, where a bubble's timers start goroutines; such a process
// proves nothing, and is run again.
func walkInProcesses(t *testing.T) {
	const detectorFault = "SIGSEGV: segmentation violation\nPC=" // a nil pointer of ours is a panic
	for i := range walkProcesses {
		first := fmt.Sprint(1 + i*walkGroup)
		for try := 1; ; try++ {
			out, err := exec.Command(os.Args[0], "-test.run=^TestWalk$", "-walk-seed="+first, "-walk-seeds="+fmt.Sprint(walkGroup)).CombinedOutput()
			if try < 5 && bytes.Contains(out, []byte(detectorFault)) {
				continue
			}
			if err != nil {
				t.Errorf("%d seeds from %s on: %v\n%s", walkGroup, first, err, out)
			}
			break
		}
	}
}

// tally counts what happened in a walk.
type tally struct {
	Steps, Rests, Mirrors, Kept, Foreign, Faults, Unsure, Renamed int
}

func (t *tally) add(other tally) {
	sum, more := reflect.ValueOf(t).Elem(), reflect.ValueOf(other)
	for i := range sum.NumField() {
		sum.Field(i).SetInt(sum.Field(i).Int() + more.Field(i).Int())
	}
}

// walk is a local cluster, remotes, up to two replicas of the controller, and the model.
type walk struct {
	*testing.T
	tally
	seed     uint64
	server   *apiserver
	wire     *wire
	client   remote.Client
	log      *lockedBuffer
	remotes  map[string]*walkRemote
	places   []*place
	replicas []*replica
	script   []string
	shop     string // the namespace: there, going or gone

	foreign map[string]runtime.Object // by resource and key, as they must stay

	mu     sync.Mutex
	failed map[string]int // how often a request was made, by its text
	faulty bool
	paused bool // watches are

	rested int // the length of the history at the last rest

	renaming bool // the rules for names change, in half of the walks
	rules    map[string]modelNaming
	was      map[string]runtime.Object // Services and Endpoints at the last rest, by resource and key
	excused  map[string]bool           // mirrors that may have gone since, by remote and source
	touched  map[cache.ObjectName]bool // what others than controllers changed since
}

// walkRemote is a remote cluster, and its state in the model.
type walkRemote struct {
	*fakeRemote
	exports map[cache.ObjectName]export
	known   bool
	gateway *modelGateway
}

var (
	walkRemotes    = []string{"berlin", "eu-paris", "paris"}
	walkNames      = []string{"a", "a-eu", "b", strings.Repeat("long", 15)}
	walkNamespaces = []string{"default", "shop"}
)

func newWalk(t *testing.T, seed uint64) *walk {
	w := &walk{T: t, seed: seed, server: newAPIServer(), log: &lockedBuffer{}, remotes: map[string]*walkRemote{}, shop: "gone",
		foreign: map[string]runtime.Object{}, failed: map[string]int{}, rules: map[string]modelNaming{},
		was: map[string]runtime.Object{}, excused: map[string]bool{}, touched: map[cache.ObjectName]bool{}}
	w.wire = &wire{server: w.server, fault: w.fault}
	w.client = w.wire.dial()
	w.server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	w.server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "home-uid"}})
	w.renaming = seed%2 == 0
	for _, name := range walkRemotes {
		r := &walkRemote{fakeRemote: newFakeRemote(name), exports: map[cache.ObjectName]export{}, known: true, gateway: &modelGateway{}}
		r.fakeRemote.gateway = r.gateway.gateway()
		w.remotes[name] = r
	}
	for key := range w.keys() {
		w.places = append(w.places, &place{key: key, may: may{halves{}: true}, tried: map[half]bool{}, had: map[half]bool{}})
	}
	slices.SortFunc(w.places, func(a, b *place) int { return strings.Compare(a.key.String(), b.key.String()) })
	w.startReplica()
	w.lead(0)
	g := generator{rand.New(rand.NewPCG(seed, 1<<40))}
	for range 12 {
		w.exports(g)
	}
	return w
}

func (w *walk) walk() {
	for n := range walkSteps {
		random := rand.New(rand.NewPCG(w.seed, uint64(n)))
		w.Steps++
		if random.IntN(14) == 0 || n == walkSteps-1 {
			w.note("rest")
			w.rest(random.IntN(3) == 0 || n == walkSteps-1)
			w.faults(generator{random})
		} else {
			w.step(generator{random})
		}
		if w.Failed() {
			return
		}
	}
}

func (w *walk) note(format string, args ...any) {
	w.script = append(w.script, fmt.Sprintf("%v step %d: ", time.Now().Format("15:04:05.000"), w.Steps)+fmt.Sprintf(format, args...))
}

func (w *walk) wrong(format string, args ...any) {
	w.Helper()
	log := strings.Split(w.log.String(), "\n")
	w.Fatalf("seed %d, step %d: %s\nwhat happened, the last of it:\n  %s\nlog:\n  %s\nagain with: go test ./mirror -run TestWalk -walk-seed=%d", w.seed, w.Steps, fmt.Sprintf(format, args...),
		strings.Join(w.script[max(0, len(w.script)-40):], "\n  "), strings.Join(log[max(0, len(log)-60):], "\n  "), w.seed)
}

// fault decides what becomes of a request, by its text and the number of such requests
// so far: the order of different requests does not matter.
func (w *walk) fault(what string) fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.faulty {
		return fault{}
	}
	w.failed[what]++
	hash := fnv.New64()
	fmt.Fprint(hash, w.seed, what, w.failed[what])
	random := rand.New(rand.NewPCG(w.seed, hash.Sum64()))
	resource := corev1.Resource("services")
	f := fault{delay: time.Duration(random.IntN(300)) * time.Millisecond}
	if random.IntN(2) == 0 {
		return f
	}
	w.Faults++
	switch random.IntN(9) {
	case 0:
		f.err = apierrors.NewConflict(resource, "x", errTest)
	case 1:
		f.err, f.retryAfter = apierrors.NewTooManyRequests("slow down", 1), 1+random.IntN(2)
	case 2:
		f.err = apierrors.NewForbidden(resource, "x", fmt.Errorf("exceeded quota: services"))
	case 3:
		f.err = apierrors.NewInternalError(errTest)
	case 4:
		f.err = apierrors.NewServiceUnavailable("later")
	case 5:
		f.err, f.retryAfter = apierrors.NewServiceUnavailable("later"), 1
	case 6:
		f.broken = true
	default:
		f.lost = true
	}
	return f
}

func (w *walk) faultsYet() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Faults
}

// happened updates the model of the keys that fit.
func (w *walk) happened(fits func(cache.ObjectName) bool) {
	w.excuse()
	for _, p := range w.places {
		if !fits(p.key) {
			continue
		}
		s := w.surroundings(p.key)
		p.may.close(s)
		p.try(s)
		for now := range p.may {
			if now.eps.kind == ours {
				p.had[now.eps] = true
			}
		}
		for _, before := range p.unseen {
			before.close(s)
		}
		for now := range p.may {
			if now.svc.kind != ours {
				p.another = true
				// The name keeps its ClusterIP only for as long as its source is exported, and
				// no object of that name belongs to another remote.
				p.newIP = p.newIP || len(s.candidates) != 1 || s.candidates[0].remote != p.owner || s.candidates[0].source != p.source || now.eps.kind == ours && now.eps.owner != p.owner
			}
		}
	}
}

// try records what controllers try to create where foreign Endpoints exist.
func (p *place) try(s surroundings) {
	for now := range p.may {
		if now.eps.kind == theirs {
			for _, next := range s.steps(halves{svc: now.svc}) {
				p.tried[next.eps] = true
			}
		}
	}
}

// seen updates the model when the caches are up to date.
func (w *walk) seen() {
	for _, p := range w.places {
		for now := range maps.Clone(p.may) {
			for _, before := range p.unseen {
				for old := range before {
					p.may[halves{now.svc, old.eps}] = true
				}
			}
		}
		p.unseen = nil
		w.happened(only(p.key))
	}
}

// rest waits until the controllers are idle, and compares.
func (w *walk) rest(settled bool) {
	w.Helper()
	w.mu.Lock()
	w.faulty = false
	w.mu.Unlock()
	w.paused = false
	w.server.pauseWatches(false)
	if len(w.replicas) == 0 {
		w.startReplica()
	}
	if !slices.ContainsFunc(w.replicas, func(r *replica) bool { return r.depose != nil }) {
		w.lead(0)
	}
	w.wait(75 * time.Second)
	w.seen()
	w.compare()
	if !settled || w.Failed() {
		return
	}
	w.server.wrote()
	for _, r := range w.remotes {
		for _, replica := range w.replicas {
			replica.controller.resync(r.name)
		}
	}
	w.wait(10 * time.Minute)
	for _, write := range w.server.wrote() {
		// Foreign Endpoints without a Service are in no cache, and looked up now and then.
		if write.err == nil || !strings.HasPrefix(write.what, "create endpoints ") || w.foreign[strings.TrimPrefix(write.what, "create ")] == nil {
			w.wrong("everything is as desired, but there is a write: %s: %v", write.what, write.err)
		}
	}
}

func (w *walk) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *walk) compare() {
	w.Helper()
	w.Rests++
	w.noGap()
	w.server.mu.Lock()
	services, endpoints := len(w.server.objects["services"]), len(w.server.objects["endpoints"])
	w.rested = len(w.server.history)
	w.server.mu.Unlock()
	for _, p := range w.places {
		svc, eps := w.server.service(p.key.Namespace, p.key.Name), w.server.endpoints(p.key.Namespace, p.key.Name)
		now := halves{serviceHalf(svc), endpointsHalf(eps)}
		rest := p.may.rest(w.atRest(p.key))
		fits := may{}
		for one := range rest {
			if one.visible() == now {
				fits[one] = true
			}
		}
		if len(fits) == 0 {
			w.wrong("%v is\n  %+v\nand must be one of %d\n  %s\nin %+v", p.key, now, len(rest), listed(rest), w.surroundings(p.key))
		}
		if len(rest) > 1 {
			w.Unsure++
		}
		if p.bare && p.faults == w.faultsYet() && now.svc.kind == theirs && now.eps.kind == ours {
			w.wrong("%v: Endpoints of ours exist under a foreign Service", p.key)
		}
		if svc != nil {
			services--
		}
		if eps != nil {
			endpoints--
		}
		if now.svc.kind != ours || now.svc.owner != p.owner || now.svc.source != p.source {
			p.uid = ""
		}
		if now.svc.kind == ours {
			w.Mirrors++
			switch {
			case p.uid == "":
			case !p.another && svc.UID != p.uid:
				w.wrong("%v stayed exported, but its Service was recreated: %s was %s", p.key, svc.UID, p.uid)
			case !p.newIP && svc.Spec.ClusterIP != p.clusterIP:
				w.wrong("%v lost its ClusterIP: %s was %s", p.key, svc.Spec.ClusterIP, p.clusterIP)
			default:
				w.Kept++
			}
			p.uid, p.clusterIP = svc.UID, svc.Spec.ClusterIP
		}
		p.may, p.owner, p.source, p.another, p.newIP = fits, now.svc.owner, now.svc.source, false, false
		if now.eps.kind == ours {
			p.had = map[half]bool{now.eps: true}
		}
		clear(p.tried)
		p.try(w.surroundings(p.key))
	}
	if services != 0 || endpoints != 0 {
		w.wrong("%d Services and %d Endpoints have names that no mirror has", services, endpoints)
	}
	for what, was := range w.foreign {
		w.Foreign++
		resource, name, _ := strings.Cut(what, " ")
		namespace, name, _ := strings.Cut(name, "/")
		if now := w.server.get(resource, namespace, name); !reflect.DeepEqual(now, was) {
			w.wrong("the foreign %s is\n  %s\nand was\n  %s", what, text(now), text(was))
		}
	}
}

func listed(all may) string {
	var out []string
	for one := range all {
		out = append(out, fmt.Sprintf("%+v", one))
	}
	slices.Sort(out)
	return strings.Join(out, "\n  ")
}

// fresh reports whether no object of ours has existed under a key since the last rest.
func (w *walk) fresh(p *place) bool {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return p.uid == "" && w.server.objects["endpoints"][p.key] == nil && !slices.ContainsFunc(w.server.history[w.rested:], func(c change) bool {
		svc, ok := c.now.(*corev1.Service)
		return ok && cache.MetaObjectToName(svc) == p.key && serviceHalf(svc).kind == ours
	})
}

func (w *walk) forget(resource string, key cache.ObjectName) {
	delete(w.foreign, resource+" "+key.String())
}
