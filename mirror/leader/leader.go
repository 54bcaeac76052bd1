// Package leader decides which of several replicas writes: the one that holds a
// Lease (coordination.k8s.io/v1). It knows nothing of what is written.
package leader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"service-mirror.io/service-mirror/remote/logging"
)

// Election is one replica's part in electing a leader.
type Election struct {
	Options
	Client   coordinationv1.LeasesGetter // not one that Guard guards; nil where the election is off
	Identity string                      // of this replica, different from every other's
	fence    *Fence
	seen     atomic.Pointer[string] // who held the Lease when it was last read
}

// New makes this process's part in the election that the options describe.
func New(options Options) *Election {
	host, _ := os.Hostname()
	return &Election{Options: options, Identity: host + "_" + string(uuid.NewUUID()), fence: NewFence(options.Duration)}
}

// Guard makes a client configuration refuse requests while this replica does not hold
// the lease. Where the election is off it refuses none.
func (e *Election) Guard(cfg *rest.Config) {
	if e.On {
		e.fence.Guard(cfg)
	}
}

// MayWrite tells whether this replica holds the lease, as far as it can know by itself: a leader that was suspended
// for a while does not, before it notices that another leads. Where the election is off, it may.
func (e *Election) MayWrite() bool { return !e.On || e.fence.isOpen() }

// Leader is the pod that leads, as far as this replica has seen; empty: none, or it is not known, or the election is
// off.
func (e *Election) Leader() string {
	holder := e.seen.Load()
	switch {
	case !e.On:
		return ""
	case e.fence.isOpen():
		return podOf(e.Lease, e.Identity).String()
	case holder == nil || *holder == "" || *holder == e.Identity:
		return ""
	}
	return podOf(e.Lease, *holder).String()
}

// grace is how long a write under way may take when the program ends, or when
// another replica is about to lead.
func (e *Election) grace() time.Duration {
	const most = 5 * time.Second
	if !e.On {
		return most
	}
	return min(most, e.Duration/4)
}

// A leader renews in good time, and gives up before its lease has ended.
func (e *Election) renewDeadline() time.Duration { return e.Duration * 2 / 3 }
func (e *Election) retryPeriod() time.Duration   { return e.Duration * 2 / 15 }

// Run calls lead whenever this replica leads, until the context ends; lead's
// context ends with that, or when the lease is lost, and a write that is then under
// way has grace. Only when lead has returned the lease is released, or acquired again.
// Where the election is off, this replica leads all the time.
//
// A Lease that cannot be read or written, for whatever reason, is retried and logged
// once. The error is for what no retry fixes: an election that is configured wrongly.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context, grace time.Duration)) error {
	if !e.On {
		lead(ctx, e.grace())
		return nil
	}
	failures := &failures{logger: klog.FromContext(ctx), lease: e.Lease}
	for ctx.Err() == nil {
		t := &term{Election: e, lead: lead, ended: make(chan struct{})}
		t.lock = &timedLock{fence: e.fence, failures: failures, last: &e.seen, Interface: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: e.Lease.Namespace, Name: e.Lease.Name},
			Client:     e.Client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
		}}
		if err := t.run(ctx); err != nil {
			return fmt.Errorf("leader election with Lease %v: %w", e.Lease, err)
		}
		if ctx.Err() == nil {
			logging.Warn(klog.FromContext(ctx), "Lost the Lease; another replica may be the leader, this one is now a standby", "lease", e.Lease)
		}
	}
	return nil
}

// term is one attempt to lead, from the first look at the Lease to its release.
type term struct {
	*Election
	lead  func(ctx context.Context, grace time.Duration)
	lock  *timedLock
	ended chan struct{} // closed when lead has returned
}

func (t *term) run(ctx context.Context) error {
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	leading, cancel := context.WithCancel(electing)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	t.lock.beforeRelease = func(ctx context.Context) {
		cancel()
		select {
		case <-t.ended:
		case <-ctx.Done():
		}
	}
	t.lock.lost = func() { cancel(); stop() }
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: t.lock, LeaseDuration: t.Duration, RenewDeadline: t.renewDeadline(), RetryPeriod: t.retryPeriod(), ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				defer close(t.ended)
				defer context.AfterFunc(held, cancel)()
				klog.FromContext(ctx).Info("This replica is the leader", "lease", t.Lease)
				t.lead(leading, t.grace())
				stop() // nothing is written any more, so the lease may be released
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != t.Identity {
					klog.FromContext(ctx).Info("Another replica is the leader; this one is a standby", "lease", t.Lease, "leader", identity)
				}
			},
		},
	})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		if !t.lock.held.Load() { // else when lead has returned
			stop()
		}
	})()
	// client-go logs every attempt that fails: failures logs what is new of them.
	elector.Run(klog.NewContext(electing, klog.Logger{}))
	if t.lock.held.Load() {
		<-t.ended
	}
	return nil
}

// timedLock opens the fence while the lease is held.
type timedLock struct {
	resourcelock.Interface
	fence    *Fence
	failures *failures
	held     atomic.Bool // it has been, in this term
	// holder is who held it when it was last read.
	holder atomic.Pointer[string]
	last   *atomic.Pointer[string] // likewise, in any term; nil: nobody wants to know
	// beforeRelease waits for the write that is under way.
	beforeRelease func(context.Context)
	lost          func() // called when another holds it; client-go's elector would go on for a while

	mu     sync.Mutex
	second int64     // of the last renewal, since 1970
	seen   time.Time // when the request of the first renewal in that second began
}

// Get implements resourcelock.Interface.
func (l *timedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err == nil {
		l.holder.Store(&record.HolderIdentity)
		if l.last != nil {
			l.last.Store(&record.HolderIdentity)
		}
		if holder := record.HolderIdentity; l.held.Load() && holder != "" && holder != l.Identity() {
			l.fence.close()
			l.lost()
		}
	}
	l.failures.note("get", err)
	return record, raw, err
}

// errNotOurs keeps an elector that was suspended, and still believes to be the
// holder, from releasing another's lease.
var errNotOurs = errors.New("another replica has the Lease, which is not released")

// Create implements resourcelock.Interface.
func (l *timedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, func() error {
		err := l.Interface.Create(ctx, record)
		l.failures.note("create", err)
		return err
	})
}

// Update implements resourcelock.Interface.
func (l *timedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, func() error {
		err := l.Interface.Update(ctx, record)
		l.failures.note("update", err)
		return err
	})
}

func (l *timedLock) write(ctx context.Context, record resourcelock.LeaderElectionRecord, write func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := time.Now()
	mine := record.HolderIdentity == l.Identity()
	if !mine { // it is being released
		l.fence.close()
		if l.held.Load() {
			l.beforeRelease(ctx)
		}
		if holder := l.holder.Load(); holder != nil && *holder != l.Identity() {
			return errNotOurs
		}
	}
	if err := write(); err != nil {
		return err
	}
	if mine {
		// Other replicas see only the second of a renewal (LeaderElectionRecord): of
		// several in one second they notice the first, and count from that.
		if second := record.RenewTime.Unix(); second != l.second {
			l.second, l.seen = second, began
		}
		l.fence.open(l.seen)
		l.held.Store(true)
	}
	return nil
}
