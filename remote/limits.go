package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Limits bound what one remote can make this program read and keep.
type Limits struct {
	Services int   // that it exports, in all its namespaces
	Bytes    int64 // of one answer of its API server, and of all that is kept of its exported Services
}

// DefaultLimits keep the program within 128 MiB whatever one remote sends, half of what a Deployment gives
// it: 10,000 mirrors take 82 MB and need up to 117. An exported Service of usual size takes 1 KB in an answer, of
// which one has 500, and 0.3 KB in the cache.
var DefaultLimits = Limits{Services: 10_000, Bytes: 12 << 20}

// orDefault has the defaults where nothing is set.
func (l Limits) orDefault() Limits {
	if l.Services == 0 {
		l.Services = DefaultLimits.Services
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultLimits.Bytes
	}
	return l
}

// What a server may send where no operator has a reason to choose.
const (
	// maxObject is the size of one object or event: what an API server takes at most in a request is 3 MiB
	// (k8s.io/apiserver, MaxRequestBodyBytes), and it adds fields of its own.
	maxObject = 4 << 20
	// maxFailure is how much is read of an answer that is no success; the rest is ignored.
	maxFailure = 64 << 10
	// maxHeader is the size of the header of an answer.
	maxHeader = 64 << 10
	// maxGrowth is how many times its size an answer may take in memory once it is decoded: an empty item
	// of a list is two bytes in protobuf, and a kilobyte in memory.
	maxGrowth = 3
	// maxShare is the part of max-bytes= that one object may take once it is decoded: whatever is done with it decodes it
	// again, several times at once. 3 MiB are 12,000 ports of a Service, and etcd has at most 1.5 MiB for an object.
	maxShare = 4
	// maxObjectMemory is what an object or event of a remote may take, but for its exported Services: 900 ports
	// of a Service take 1 MB.
	maxObjectMemory = 4 << 20
	// maxLocalMemory is what an object of London may take: all that an API server takes. It takes a Service of
	// as many ports as there are, or of 150,000 labels, for which 20 MB are counted.
	maxLocalMemory = 32 << 20
	// listTimeout bounds a list, with all its pages or streamed; requestTimeout bounds each page.
	listTimeout = 5 * time.Minute
	// eventTimeout is how long the rest of an event may take once it has begun.
	eventTimeout = 30 * time.Second
	// pageSize is how many Services are requested at once.
	pageSize = 500
	// pagePause is the delay before the page that follows an empty one.
	pagePause = 100 * time.Millisecond
)

// TooLarge is the reason for refusing an answer that exceeds what a remote may send.
type TooLarge struct{ text string }

func (e *TooLarge) Error() string { return tooLargePrefix + e.text }

// tooLargePrefix is that of the cause of a problem of this kind.
const tooLargePrefix = "too large: "

// IsTooLarge is whether an error is, or wraps, a TooLarge.
func IsTooLarge(err error) bool { return errors.As(err, new(*TooLarge)) }

// bound is what an answer may be.
type bound struct {
	what    string // the answer, in words
	bytes   int64  // 0: any number
	memory  int64  // that it takes decoded, at most
	one     int64  // that one item of a list takes; 0: any number
	items   int    // of a list; 0: any number
	noun    string // for items
	limited bool   // by the operator's limits
	fixed   bool   // but for its bytes
	cluster string
	where   string      // it is configured; empty: by the flags
	refused error       // why the rest of the answer was not read: of it client-go leaves only the text
	took    int64       // of memory, the answer or the latest event
	large   int64       // of memory, the large events since the last pause
	overrun func(error) // called with what is returned to the reader, too
}

// refuse makes the error for an answer that exceeds the bound. key is the one that raises it.
func (b *bound) refuse(key, format string, args ...any) error {
	remedy := fmt.Sprintf("an API server does not send this: check the server in the kubeconfig of remote %s", b.cluster)
	switch {
	case b.cluster == "":
		remedy = "an API server does not send this: check the server in the kubeconfig"
	case b.limited:
		remedy = fmt.Sprintf("raise %s= of %s and the memory of this program, or export fewer Services", key, cmp.Or(b.where, "--remote "+b.cluster))
	}
	return &TooLarge{b.what + " " + fmt.Sprintf(format, args...) + ": " + remedy}
}

func (b *bound) refuseBytes() error {
	fixed := *b
	fixed.limited = b.limited && !b.fixed
	return fixed.refuse("max-bytes", "is larger than %s", quantity(b.bytes))
}
func (b *bound) refuseMemory() error {
	return b.refuse("max-bytes", "takes more than %s of memory", quantity(b.memory))
}
func (b *bound) refuseItem() error {
	return b.refuse("max-bytes", "has an item that takes more than %s of memory", quantity(b.one))
}
func (b *bound) refuseItems() error {
	return b.refuse("max-services", "has more than %d %s", b.items, b.noun)
}

// quantity writes a size as --remote has it.
func quantity(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

// What is decoded is garbage soon, but a runtime that is busy collects it late: many answers one after another would take
// many times what one does.
const (
	// heavy is the memory of a list after which it is collected at once.
	heavy = 8 << 20
	// largeEvent is the memory of an event from which on it counts towards heavyEvents, after which the next one is
	// read only after heavyPause and collected. A usual Service takes 3 KB.
	largeEvent  = 64 << 10
	heavyEvents = 2 << 20
	heavyPause  = 250 * time.Millisecond
)

// collect collects what a list took, if that is much.
func (b *bound) collect() {
	if b.took >= heavy {
		b.took = 0
		runtime.GC()
	}
}

// ended counts an event of a watch that has been read.
func (b *bound) ended(memory int64) {
	if memory >= largeEvent {
		b.large += memory
	}
}

// pause gives what follows the large events of a watch time to be done, and collects what it took.
func (b *bound) pause() {
	if b.large >= heavyEvents {
		b.large = 0
		time.Sleep(heavyPause)
		runtime.GC()
	}
}

type boundKey struct{}

// bounded has the answer to a request that is made with the context bounded.
func bounded(ctx context.Context, b *bound) context.Context {
	b.cluster = cmp.Or(b.cluster, ClusterOf(ctx))
	b.where = cmp.Or(b.where, whereOf(ctx))
	return context.WithValue(ctx, boundKey{}, b)
}

// identityBound is the bound of an answer with the cluster's identity.
func identityBound() *bound {
	return &bound{what: "namespace kube-system", bytes: maxIdentity, memory: maxObjectMemory}
}

// objectBound is the bound of an answer with one object, or of an event.
func objectBound(what string) bound {
	return bound{what: what, bytes: maxObject, memory: maxObjectMemory}
}

// boundedWatch has the events of a watch that is requested with the context bounded, and refusals noted: of the
// error that a body ends with client-go leaves only the text.
func boundedWatch(ctx context.Context, bounds *allowance, note func(error)) context.Context {
	b := objectBound("an event of a watch")
	if b.memory = maxLocalMemory; bounds != nil {
		b = bounds.event
	}
	b.overrun = note
	return bounded(ctx, &b)
}

func parseMaxServices(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 || n > maxServices {
		return 0, fmt.Errorf("max-services=%.40s is not a number from 1 to %d", text, maxServices)
	}
	return int(n), nil
}

func parseMaxBytes(text string) (int64, error) {
	size, err := resource.ParseQuantity(text)
	n, exact := size.AsInt64()
	if err != nil || !exact || n < minBytes || n > maxBytes {
		return 0, fmt.Errorf("max-bytes=%.40s is not a size from %s to %s, such as 64Mi", text, quantity(minBytes), quantity(maxBytes))
	}
	return n, nil
}

// What --remote may set the limits to.
const (
	maxServices = 1_000_000
	minBytes    = 1 << 20
	maxBytes    = 4 << 30
)

// pacing is the delay between tries of a remote that sends too much: what it sends costs
// time and memory each time.
type pacing struct {
	mu    sync.Mutex
	delay time.Duration
	until time.Time
}

const (
	minPace = 5 * time.Second
	maxPace = 5 * time.Minute
)

// slow has the next try come later than the one before did, unless that is long ago.
func (p *pacing) slow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.delay = min(max(2*p.delay, minPace), maxPace); now.Sub(p.until) > 2*maxPace {
		p.delay = minPace
	}
	p.until = now.Add(wait.Jitter(p.delay, 0.1))
}

// wait waits until it is time for a try; false where the context ends first.
func (p *pacing) wait(ctx context.Context) bool {
	p.mu.Lock()
	left := time.Until(p.until)
	p.mu.Unlock()
	if left <= 0 {
		return true
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
