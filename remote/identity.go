package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Failures that are not reported by the request that meets them: it is sent again, or
// the identity is what fails.
var (
	errUnverified  = errors.New("cannot determine which cluster answered: every request uses a new connection")
	errNotAccepted = errors.New("another cluster answered")
)

// undetectable begins the cause of an identity problem with which the cluster is accepted.
const undetectable = "no permission to get namespace kube-system, so a replaced cluster cannot be detected"

// WrongCluster is the refusal of a cluster that is another one than the configuration says. Waiting does not change that.
type WrongCluster struct{ error }

// NewWrongCluster is the refusal with this reason.
func NewWrongCluster(reason error) WrongCluster { return WrongCluster{reason} }

// Awaited is nothing.
func (WrongCluster) Awaited() string { return "" }

// identify makes sure that the right cluster answers a request: an empty list of
// another one would delete every mirror. A network connection reaches one cluster for
// as long as it is open, so it is enough that the cluster's UID was read on the same
// connection. Where connections are not reused (an HTTP proxy that closes each), the
// answer counts if the UID was read immediately before and after it. A load balancer that
// alternates between two clusters then goes unnoticed if it sends all three to where the
// answer fits.
//
// The request is made with the context that is returned. Then check says whether its
// answer counts, and whether it is only bracketed by reads of the UID.
func (c *connection) identify(ctx context.Context) (_ context.Context, check func() (bracketed bool, err error), err error) {
	before, err := c.identifyBefore(ctx)
	if err != nil {
		return nil, nil, err
	}
	request, sent := traced(ctx)
	return request, func() (bool, error) {
		if c.network.verifies(sent) {
			return false, nil
		}
		if _, err := c.readIdentity(ctx); err != nil {
			return false, err
		}
		switch {
		case c.network.verifies(sent): // HTTP/2: this read went over the request's connection
			return false, nil
		case before != nil && !c.network.reusable(before):
			return true, nil
		}
		return false, errUnverified
	}, nil
}

// identifyBefore reads the UID unless the request will go over a connection on which
// that was done; then there is no route. Where requests share connections, or that is
// not known yet, one read serves all that wait for it.
func (c *connection) identifyBefore(ctx context.Context) (*route, error) {
	c.mu.Lock()
	alone := c.network.exclusive()
	if !alone && c.network.shares() && !c.refused {
		c.mu.Unlock()
		return nil, nil
	}
	read, mine := c.reading, c.reading == nil
	if mine && !alone {
		read = &identityRead{done: make(chan struct{})}
		c.reading = read
	}
	c.mu.Unlock()
	switch {
	case alone:
		return c.readIdentity(ctx)
	case mine:
		var over *route
		over, read.err = c.readIdentity(ctx)
		c.mu.Lock()
		c.reading = nil
		c.mu.Unlock()
		close(read.done)
		return over, read.err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-read.done:
	}
	if read.err != nil || c.network.shares() {
		return nil, read.err
	}
	return c.readIdentity(ctx)
}

// identityRead is one read of the UID that several requests wait for.
type identityRead struct {
	done chan struct{}
	err  error // once it is done
}

// readIdentity reads the UID of the cluster, has it accepted, and returns what it was
// read over.
func (c *connection) readIdentity(ctx context.Context) (*route, error) {
	uid, over, err := c.readUID(ctx)
	switch {
	case apierrors.IsForbidden(err):
		err = fmt.Errorf("%s: %v", undetectable, err)
	case err != nil:
		return nil, err
	}
	if refusal := c.remote.hooks.Accept(ctx, c.remote.spec, uid); refusal != nil {
		return nil, c.refuse(ctx, uid, errors.Join(refusal, err))
	}
	if c.remote.spec.UID == Unverified {
		err = nil // the operator knows
	}
	c.report(partIdentity, err)
	another, changed := c.accepted(uid)
	if another {
		if newest := c.remote.newest.Load(); newest == cmp.Or(c.again, c) { // else its successor is under way, and needs its time
			c.remote.stale.Store(newest)
		}
		return nil, errNotAccepted
	}
	c.network.verify(over)
	if changed && len(c.knownNamespaces()) > 0 {
		c.remote.hooks.Resync(c.remote.spec.Name)
	}
	return over, nil
}

func (c *connection) refuse(ctx context.Context, uid types.UID, refusal error) error {
	if ctx.Err() != nil {
		return ctx.Err() // we are ending
	}
	c.report(partIdentity, refusal)
	if uid == "" && c.knownUID() != "" {
		return errNotAccepted // it was the right one and does not say any more: what is known stays
	}
	c.mu.Lock()
	c.refused = true // its UID stays known: these informers follow that cluster and no other
	c.mu.Unlock()
	c.settled()
	return errNotAccepted
}

// readUID reads the UID of the cluster: that of its namespace kube-system. Only a
// namespace with a UID is an answer.
func (c *connection) readUID(ctx context.Context) (types.UID, *route, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	bound := identityBound()
	ctx, over := traced(bounded(ctx, bound))
	system, err := c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	switch {
	case err != nil:
		return "", over, cmp.Or(bound.refused, err)
	case system.Name != metav1.NamespaceSystem || system.UID == "":
		return "", over, malformed(errors.New("namespace kube-system has no name or no UID"))
	}
	return system.UID, over, nil
}

func (c *connection) knownUID() types.UID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uid
}

// accepted records the UID of a cluster that is accepted, and whether that changes what is known of it. It records
// nothing if that is, or after a refusal may be, another cluster than the one whose history these informers follow.
func (c *connection) accepted(uid types.UID) (another, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	follows := c.uid != "" || len(c.followed) > 0
	switch {
	case uid != "" && uid == c.uid:
	case c.refused && follows, c.uid != "" && uid != "":
		return true, false
	}
	uid = cmp.Or(uid, c.uid) // which it was while that could be read
	changed = c.uid != uid || c.refused
	c.uid, c.refused = uid, false
	return false, changed
}
