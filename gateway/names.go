package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Resolver is the part of a net.Resolver that is used.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// NewResolver queries the DNS servers of the system, or the one at server, an
// ADDRESS:PORT, if that is given.
func NewResolver(server string) *net.Resolver {
	resolver := &net.Resolver{PreferGo: true}
	if server != "" {
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server)
		}
	}
	return resolver
}

const (
	// lookupTimeout leaves time for a second DNS server after a first one that does
	// not answer: resolvers wait 5 s for each.
	lookupTimeout = 10 * time.Second
	// lookupPause is the least time between two lookups of one name, whatever the remote does.
	lookupPause = time.Second
	// lookupRetry is the time until a failed lookup is retried, if no refresh is due sooner.
	lookupRetry = 5 * time.Second
)

// answer is what is known of a hostname.
type answer struct {
	good    bool            // it has been resolved
	missing corev1.IPFamily // if so: the family whose query has failed ever since; empty: none
	v4, v6  []netip.Addr
	problem error // with the last lookup
}

func (a answer) addresses() []netip.Addr { return append(a.v4[:len(a.v4):len(a.v4)], a.v6...) }

// unknown is a family if its addresses are not known, else empty.
func (a answer) unknown(family corev1.IPFamily) corev1.IPFamily {
	if a.good && a.missing != family {
		return ""
	}
	return family
}

func (a answer) kept() string {
	switch {
	case !a.good:
		return "existing endpoints are kept until it is resolved"
	case a.missing != "":
		return fmt.Sprintf("its last known addresses are used, and existing %s endpoints are kept", a.missing)
	}
	return "its last known addresses are used"
}

// resolveName keeps one hostname resolved until the context ends.
func (w *Watch) resolveName(ctx context.Context, host string, again <-chan struct{}) {
	for {
		w.mu.Lock()
		last := w.names[host]
		w.mu.Unlock()
		now := lookup(ctx, w.options.Resolver, host, last)
		w.update(func() bool {
			if ctx.Err() != nil {
				return false
			}
			w.names[host] = now
			w.publish()
			return true // there may be other addresses to probe
		})
		due := w.options.Refresh
		if now.problem != nil {
			due = min(due, lookupRetry)
		}
		// Many daemons, and many names, should not be resolved at the same time.
		if !sleep(ctx, min(due, lookupPause), nil) || !sleep(ctx, wait.Jitter(due, 0.2)-min(due, lookupPause), again) {
			return
		}
	}
}

// sleep waits for a duration, or until enough receives; false if the context ended.
func sleep(ctx context.Context, duration time.Duration, enough <-chan struct{}) bool {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-enough:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// lookup resolves a hostname as an absolute name, to all its A and AAAA records. A
// query that fails keeps the last answer; so does an answer without any address. If it
// never had one, the addresses of its family are not known. Some DNS servers fail every AAAA
// query (RFC 4074, section 4): then IPv4 is known all the same.
func lookup(ctx context.Context, resolver Resolver, host string, last answer) answer {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	absolute := strings.TrimSuffix(host, ".") + "."
	var v4, v6 []netip.Addr
	var err4, err6 error
	var wg sync.WaitGroup
	wg.Go(func() { v4, err4 = resolver.LookupNetIP(ctx, "ip4", absolute) })
	wg.Go(func() { v6, err6 = resolver.LookupNetIP(ctx, "ip6", absolute) })
	wg.Wait()
	now := answer{good: true, v4: v4, v6: v6}
	if failed(err4) {
		now.v4, now.problem, now.missing = last.v4, brief(err4), last.unknown(corev1.IPv4Protocol)
	}
	if failed(err6) {
		now.v6, now.problem, now.missing = last.v6, brief(err6), last.unknown(corev1.IPv6Protocol)
	}
	if len(v4)+len(v6) > 0 {
		return now
	}
	if now.problem == nil {
		now.problem = errors.New("DNS has no address")
	}
	last.problem = now.problem
	return last
}

// failed reports whether a lookup failed, as opposed to finding that there is nothing.
func failed(err error) bool {
	var dns *net.DNSError
	return err != nil && !(errors.As(err, &dns) && dns.IsNotFound)
}

// brief is an error without the ports that differ from attempt to attempt.
func brief(err error) error {
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns):
		return err
	case dns.IsTimeout:
		return errors.New("DNS lookup timed out")
	}
	parts := strings.Split(dns.Err, ": ")
	return errors.New("DNS lookup failed: " + parts[len(parts)-1])
}
