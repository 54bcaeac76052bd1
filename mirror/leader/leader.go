// Package leader decides which of several replicas writes: the one that holds a
// Lease (coordination.k8s.io/v1). It knows nothing of what is written.
package leader

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// Election is one replica's part in electing a leader.
type Election struct {
	Client   coordinationv1.LeasesGetter // that the fence does not hold
	Lease    cache.ObjectName
	Identity string        // of this replica, unlike every other's
	Duration time.Duration // of the lease: so long after a leader's last sign another takes over
	Fence    *Fence
}

// A leader renews in good time, and gives up before its lease has ended.
func (e Election) renewDeadline() time.Duration { return e.Duration * 2 / 3 }
func (e Election) retryPeriod() time.Duration   { return e.Duration * 2 / 15 }

// Run calls lead whenever this replica leads, until the context ends; lead's
// context ends with that, or when the lease is lost. Only when lead has returned
// the lease is released, or sought again.
func (e Election) Run(ctx context.Context, lead func(ctx context.Context)) error {
	for ctx.Err() == nil {
		if err := e.once(ctx, lead); err != nil {
			return err
		}
		if ctx.Err() == nil {
			klog.FromContext(ctx).Info("The lease is lost: another replica may lead now; this one stands by", "lease", e.Lease)
		}
	}
	return nil
}

func (e Election) once(ctx context.Context, lead func(ctx context.Context)) error {
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	lock := &timedLock{fence: e.Fence, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: e.Lease.Namespace, Name: e.Lease.Name},
		Client:     e.Client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
	}}
	leading, cancel := context.WithCancel(electing)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	ended := make(chan struct{})
	lock.beforeRelease = func(ctx context.Context) {
		cancel()
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: e.Duration, RenewDeadline: e.renewDeadline(), RetryPeriod: e.retryPeriod(), ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				defer close(ended)
				defer context.AfterFunc(held, cancel)()
				klog.FromContext(ctx).Info("This replica leads", "lease", e.Lease)
				lead(leading)
				stop() // nothing is written any more: the lease may go
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != e.Identity {
					klog.FromContext(ctx).Info("Another replica leads; this one stands by", "lease", e.Lease, "leader", identity)
				}
			},
		},
	})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		if !lock.held.Load() { // else when lead has returned
			stop()
		}
	})()
	elector.Run(electing)
	if lock.held.Load() {
		<-ended
	}
	return nil
}

// timedLock tells the fence when the lease is held.
type timedLock struct {
	resourcelock.Interface
	fence *Fence
	held  atomic.Bool // it has been, in this term
	// holder is who held it when it was last read.
	holder atomic.Pointer[string]
	// beforeRelease has what is being written come to its end.
	beforeRelease func(context.Context)

	mu     sync.Mutex
	second int64     // of the last renewal, since 1970
	seen   time.Time // when the first renewal of that second was asked for
}

// Get implements resourcelock.Interface.
func (l *timedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err == nil {
		l.holder.Store(&record.HolderIdentity)
	}
	return record, raw, err
}

// errNotOurs keeps an elector that was stopped, and still takes itself for the
// holder, from releasing another's lease.
var errNotOurs = errors.New("another holds the lease: it is not released")

// Create implements resourcelock.Interface.
func (l *timedLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, func() error { return l.Interface.Create(ctx, record) })
}

// Update implements resourcelock.Interface.
func (l *timedLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, record, func() error { return l.Interface.Update(ctx, record) })
}

func (l *timedLock) write(ctx context.Context, record resourcelock.LeaderElectionRecord, write func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := time.Now()
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
		// Others tell a renewal by the second of its time (LeaderElectionRecord): of
		// several in one second they see the first, and count from that.
		if second := record.RenewTime.Unix(); second != l.second {
			l.second, l.seen = second, asked
		}
		l.fence.open(l.seen)
		l.held.Store(true)
	}
	return nil
}
