package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// restWithin is how long London may take to be right once all is healthy again: a
// watch that was answered 410 makes its Reflector back off for up to a minute.
const restWithin = 90 * time.Second

// TestRandomWalk changes whatever can change, in the remotes, between them and in London,
// and ends all faults from time to time: then London must be as the model says. The seed
// alone decides the steps, not the time: SOAK_SEED=… SOAK_STEPS=… repeats them. Their
// effects depend on the machine.
func TestRandomWalk(t *testing.T) { walkAtRandom(t, 300, newWalk) }

func walkAtRandom(t *testing.T, byDefault uint64, newWalk func(*testing.T, uint64) *walk) {
	number := func(variable string, otherwise uint64) uint64 {
		text := os.Getenv(variable)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		return n
	}
	seed, steps := number("SOAK_SEED", 1), int(number("SOAK_STEPS", byDefault))
	t.Logf("to take these steps again: SOAK_SEED=%d SOAK_STEPS=%d", seed, steps)
	w := newWalk(t, seed)
	for w.rest(); w.taken < steps; w.rest() {
		for end := min(steps, w.taken+w.untilRest()); w.taken < end; {
			w.together(min(end-w.taken, 1+w.rnd.IntN(2)*w.rnd.IntN(4))) // half of the time one
			w.look()
		}
	}
	w.must(w.until(w.namespacesGone))
	since := london.mark(t)
	time.Sleep(5 * time.Second) // the absence of writes cannot be awaited
	w.noWrites(since)
	if took := time.Since(w.began); steps > 0 {
		t.Logf("%d steps in %v, %.1f a second; the longest way to rest took %v",
			steps, took.Round(time.Second), float64(steps)/took.Seconds(), w.longest.Round(100*time.Millisecond))
	}
}

type walk struct {
	*env
	*model
	rnd      *rand.Rand
	plain    map[string]http.Handler // of the proxies
	d        *daemon
	ended    []*daemon          // the last ones
	far      map[string]*remote // the remotes, by their short names
	log      []string
	taken    int
	began    time.Time
	longest  time.Duration
	mark     auditMark // of the last rest
	requests int       // requests of the daemon in London, so far
	wrote    int
	beacons  int32                 // how often they were lit
	seen     map[string]contentsOf // what exists in each namespace, when it was last looked at
	history  *history
}

// step is something that happens. The model has changed when one is made.
type step struct {
	text    string
	touches []string // no two that touch the same are taken at once
	alone   bool     // it touches everything
	act     func() error
}

func newWalkModel() *model {
	return newModel([]string{"paris", "berlin"}, []string{"one", "two"}, []string{"a", "b", "c", "d"})
}

func newWalk(t *testing.T, seed uint64) *walk {
	return newWalkIn(t, newEnv(t), newWalkModel(), seed)
}

func newWalkIn(t *testing.T, e *env, m *model, seed uint64) *walk {
	w := &walk{
		env:   e,
		model: m,
		rnd:   rand.New(rand.NewPCG(seed, 0)), far: map[string]*remote{}, plain: map[string]http.Handler{}, beacons: 1, began: time.Now(),
	}
	for _, c := range []*cluster{paris, berlin} {
		r := w.remote(c)
		w.far[c.name] = r
		lowPort(r)
		w.plain[c.name] = r.proxy.handler
		for _, namespace := range w.namespaces {
			w.makeNamespace(c, w.long(namespace))
		}
		r.export(w.beacon(c.name), func(svc *corev1.Service) {
			svc.Spec.Ports = []corev1.ServicePort{{Name: "tcp", Port: 1}, {Name: beacon, Port: 1, Protocol: corev1.ProtocolSCTP}}
			svc.Annotations = map[string]string{"service-mirror.io/gateway-port": "beacon=beacon"} // SCTP carries no name
		})
	}
	for _, namespace := range w.namespaces {
		w.makeNamespace(london, w.long(namespace))
	}
	w.mark = london.mark(t)
	t.Cleanup(w.forget)
	return w
}

// long is the full name of a namespace, which is the test's own.
func (w *walk) long(namespace string) string { return w.id + "-" + namespace }

var lowPorts atomic.Int32

// lowPort moves a proxy to a port that no outgoing connection is given while it is cut.
func lowPort(r *remote) {
	r.proxy.cut()
	r.proxy.listen(fmt.Sprintf("127.0.0.1:%d", 20000+lowPorts.Add(1)))
	r.writeKubeconfig()
}

// untilRest is how many steps are taken until the next rest. Of what has changed since then, little can be checked.
func (w *walk) untilRest() int {
	if w.failing != nil {
		return 10 + w.rnd.IntN(16)
	}
	return 20 + w.rnd.IntN(31)
}

// together takes so many steps at once, but the last one alone where another
// touches the same: what comes of two is to be known.
func (w *walk) together(count int) {
	w.Helper()
	w.begin()
	var batch []*step
	for range count {
		next := w.choose()
		if next.alone {
			w.run(batch)
			batch = []*step{next}
			break
		}
		if slices.ContainsFunc(batch, next.disturbs) {
			w.run(batch)
			batch = []*step{next}
			break
		}
		batch = append(batch, next)
	}
	w.run(batch)
}

func (w *walk) run(batch []*step) {
	w.Helper()
	var all sync.WaitGroup
	results := make([]error, len(batch))
	for i, s := range batch {
		w.taken++
		sign := ""
		if len(batch) > 1 {
			sign = ", at once"
		}
		w.log = append(w.log, fmt.Sprintf("%s %d%s: %s", time.Now().Format("15:04:05.000"), w.taken, sign, s.text))
		all.Go(func() {
			if err := s.act(); err != nil {
				results[i] = fmt.Errorf("%s: %w", s.text, err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(results...); err != nil {
		w.fail(err)
	}
}

func (s *step) disturbs(other *step) bool {
	return slices.ContainsFunc(s.touches, func(a string) bool {
		return slices.ContainsFunc(other.touches, func(b string) bool {
			return strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")
		})
	})
}

// rest ends all faults and waits until London is right.
func (w *walk) rest() {
	w.Helper()
	w.begin()
	for _, s := range w.heal() {
		w.log = append(w.log, "to rest: "+s.text)
		if err := s.act(); err != nil {
			w.fail(fmt.Errorf("%s: %w", s.text, err))
		}
	}
	begin := time.Now()
	if err := w.light(w.remotes...); err != nil {
		w.fail(err)
	}
	for {
		err := w.lit(w.remotes...)
		if err == nil {
			err = w.right()
		}
		if err == nil {
			break
		}
		if time.Since(begin) > restWithin {
			w.fail(fmt.Errorf("not within %v at rest: %w", restWithin, err))
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(begin)
	w.longest = max(w.longest, took)
	if err := w.judge(); err != nil {
		w.fail(fmt.Errorf("since the last rest: %w", err))
	}
	if err := w.remembered(); err != nil {
		w.fail(err)
	}
	w.rested()
	if err := w.remember(); err != nil {
		w.fail(err)
	}
	requests := london.requests(w.T, w.id, w.mark)
	w.mark, w.requests = london.mark(w.T), w.requests+len(requests)
	for _, r := range requests {
		if r.writes() {
			w.wrote++
		}
	}
	w.log = append(w.log, fmt.Sprintf("%s at rest after %v", time.Now().Format("15:04:05.000"), took.Round(time.Millisecond)))
	w.Logf("at rest: step %d, %v since the start, %v to come to rest; %d requests in London, %d of them writes",
		w.taken, time.Since(w.began).Round(time.Second), took.Round(10*time.Millisecond), w.requests, w.wrote)
}

// fail shows the steps and logs that led up to an error.
func (w *walk) fail(err error) {
	w.Helper()
	w.Logf("the last steps:\n%s", strings.Join(w.log[max(0, len(w.log)-150):], "\n"))
	w.Fatalf("after step %d: %v", w.taken, err)
}

// choose decides on the next step.
func (w *walk) choose() *step {
	if s := w.renameAtOnce(); s != nil {
		return s
	}
	kinds := kinds
	switch {
	case w.merged != nil:
		kinds = mergedKinds
	case w.failing != nil:
		kinds = failoverKinds
	}
	for {
		n := w.rnd.IntN(weights(kinds))
		for _, kind := range kinds {
			if n -= kind.weight; n < 0 {
				if s := kind.make(w); s != nil {
					return s
				}
				break // there is nothing for it to happen to
			}
		}
	}
}
