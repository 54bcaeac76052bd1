package mirror

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Of Endpoints Kubernetes makes the EndpointSlices that kube-proxy reads. They are in no
// cache: they are looked for only where they may be missing.

// mirroringController makes EndpointSlices of Endpoints.
const mirroringController = "endpointslicemirroring-controller.k8s.io"

// madePeriod is how soon it is looked whether it has made them.
const madePeriod = time.Second

// lastMadePeriod is how rarely, if it makes none.
const lastMadePeriod = 5 * time.Minute

// secondLook is how long after it is looked again: on a busy control plane, those that were
// there may have been about to go.
const secondLook = 30 * time.Second

// lookPeriod is the time from one mirror's look to the next one's, where many are in doubt
// at once: the controller makes 20 EndpointSlices a second by default, and what it has not
// yet come to is not missing.
const lookPeriod = 200 * time.Millisecond

// slicesMade are the EndpointSlices that Kubernetes has made of a mirror's Endpoints.
func (c *Controller) slicesMade(ctx context.Context, key cache.ObjectName) ([]discoveryv1.EndpointSlice, error) {
	made, err := c.client.DiscoveryV1().EndpointSlices(key.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + key.Name + "," + discoveryv1.LabelManagedBy + "=" + mirroringController,
	})
	if err != nil {
		return nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	return made.Items, nil
}

// madeOfAll tells whether there are EndpointSlices of all addresses that the desired
// Endpoints have.
func (c *Controller) madeOfAll(ctx context.Context, j job) (bool, error) {
	made, err := c.slicesMade(ctx, j.key)
	if err != nil {
		return false, err
	}
	missing := Objects{Endpoints: j.desired.Endpoints}.endpoints()
	for i := range made {
		for addr := range (Objects{IPv4: &made[i]}).endpoints() {
			delete(missing, addr)
		}
	}
	return len(missing) == 0, nil
}

// doubts are the mirrors that have their Endpoints, but perhaps no EndpointSlices.
type doubts struct {
	byKey sync.Map // cache.ObjectName to doubt
	mu    sync.Mutex
	next  time.Time // when the next mirror may be looked at
}

type doubt struct {
	look time.Time     // when it is looked for its EndpointSlices, or asked for a turn to do so
	wait time.Duration // from one attempt to make the Endpoints anew to the next
	turn bool          // it has one
	seen bool          // there were some when it was last looked
}

// turn is when a mirror may be looked at, after those that asked before.
func (d *doubts) turn() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	turn := later(time.Now(), d.next)
	d.next = turn.Add(lookPeriod)
	return turn
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// raise is called when a mirror was for a moment nothing that Kubernetes makes
// EndpointSlices of. Its controller deletes and forgets them then. Has it not heard of that
// deletion when the mirror is whole again, it finds all of them in its cache and makes none,
// and the deletion of slices that it has forgotten does not have it look again.
func (d *doubts) raise(key cache.ObjectName) {
	next := doubt{wait: madePeriod}
	if before, ok := d.byKey.Load(key); ok {
		next = before.(doubt) // it keeps its turn, and its wait: the Endpoints may have gone because of it
	}
	if soon := time.Now().Add(next.wait); next.turn {
		next.look = later(next.look, soon)
	} else {
		next.look = soon
	}
	next.seen = false
	d.byKey.Store(key, next)
}

// clear is for a mirror that is wanted no more.
func (d *doubts) clear(key cache.ObjectName) { d.byKey.Delete(key) }

// isMirrored tells whether Kubernetes makes EndpointSlices of Endpoints, as far as that is
// up to them.
func isMirrored(endpoints *corev1.Endpoints) bool {
	_, skip := endpoints.Labels[discoveryv1.LabelSkipMirror]
	_, lock := endpoints.Annotations[leaderElection]
	return !skip && !lock
}

// remakeEndpoints looks for the EndpointSlices of a mirror that is in doubt. If there are
// none it deletes its Endpoints and makes them again, and Kubernetes the slices.
func (c *Controller) remakeEndpoints(ctx context.Context, found *verdict, j job) {
	value, ok := c.doubts.byKey.Load(j.key)
	if !ok {
		return
	}
	due := value.(doubt)
	// A newer doubt stays: what raised it brings the key back.
	become := func(next doubt) bool { return c.doubts.byKey.CompareAndSwap(j.key, due, next) }
	lookAfter := func(wait time.Duration, next doubt) {
		next.look = time.Now().Add(wait)
		become(next)
		found.again(wait)
	}
	if !j.changes.Empty() { // nothing can have been made yet; what was written brings the key back
		next := due
		next.look = later(due.look, time.Now().Add(due.wait))
		become(next)
		return
	}
	if wait := time.Until(due.look); wait > 0 {
		found.again(wait)
		return
	}
	endpoints := j.live.Endpoints
	if len(Objects{Endpoints: endpoints}.endpoints()) == 0 {
		c.doubts.byKey.CompareAndDelete(j.key, due)
		return
	}
	if !due.turn {
		next := due
		next.turn, next.look = true, c.doubts.turn()
		if wait := time.Until(next.look); !become(next) || wait > 0 {
			found.again(wait)
			return
		}
		due = next
	}
	made, err := c.slicesMade(ctx, j.key)
	switch {
	case err != nil:
		klog.FromContext(ctx).Error(err, "Cannot look whether the mirror has EndpointSlices: it is tried again")
		found.soon = true
	case len(made) > 0 && due.seen:
		c.doubts.byKey.CompareAndDelete(j.key, due)
	case len(made) > 0:
		lookAfter(secondLook, doubt{wait: madePeriod, seen: true})
	default:
		wait := min(2*due.wait, lastMadePeriod)
		lookAfter(wait, doubt{wait: wait})
		klog.FromContext(ctx).Info("Kubernetes has made no EndpointSlices of the mirror's Endpoints, making them anew")
		if err := c.remake(ctx, endpoints); err != nil {
			klog.FromContext(ctx).Error(err, "The mirror's Endpoints are not made anew: it is tried again")
			found.soon = true
		}
	}
}
