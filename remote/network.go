package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"
)

// Network makes the network connections of one client and knows which of them lead to
// the right cluster: what answers on a connection does not change while it is open. It
// can close them: an idle HTTP/2 connection would outlive its client.
type Network struct {
	mu     sync.Mutex
	open   map[socket]*countedConn
	closed bool
	// single is whether the last connection that was verified carries one request at a
	// time: HTTP/1.1.
	single bool
}

// socket identifies a network connection while it is open, by its two addresses:
// between this package's dial and a request's trace, others wrap the connection.
type socket struct{ local, remote string }

func socketOf(conn net.Conn) socket {
	return socket{conn.LocalAddr().String(), conn.RemoteAddr().String()}
}

type countedConn struct {
	net.Conn
	network *Network

	verified bool // the right cluster answers on it; under network.mu
	shared   bool // it carries many requests at once: HTTP/2; under network.mu
}

type overOpenKey struct{}

// overOpen is a context of requests that must not have a connection opened for them.
func overOpen(ctx context.Context) context.Context {
	return context.WithValue(ctx, overOpenKey{}, true)
}

// errNoConnection is the error of a request that may only use an open connection, and has none.
var errNoConnection = errors.New("the connection was closed before the request was sent")

func (n *Network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(overOpenKey{}) != nil {
		return nil, errNoConnection
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	counted := &countedConn{Conn: conn, network: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	if n.open == nil {
		n.open = map[socket]*countedConn{}
	}
	n.open[socketOf(conn)] = counted
	return counted, nil
}

// close closes what is open, and what a dial under way will open.
func (n *Network) close() {
	n.mu.Lock()
	n.closed = true
	open := slices.Collect(maps.Values(n.open))
	n.mu.Unlock()
	for _, conn := range open {
		conn.Close()
	}
}

// Close forgets the connection before its addresses can be used by another.
func (c *countedConn) Close() error {
	n, id := c.network, socketOf(c.Conn)
	n.mu.Lock()
	if n.open[id] == c {
		delete(n.open, id)
	}
	n.mu.Unlock()
	return c.Conn.Close()
}

// verify records that the right cluster answers on the connections of a route.
func (n *Network) verify(r *route) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, shared := range r.answered() {
		if conn := n.open[id]; conn != nil {
			conn.verified, conn.shared = true, shared
			n.single = !shared
		}
	}
}

// verifies is whether all answers of a route came over verified connections.
func (n *Network) verifies(r *route) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	answered := r.answered()
	for id := range answered {
		if conn := n.open[id]; conn == nil || !conn.verified {
			return false
		}
	}
	return len(answered) > 0
}

// reusable is whether the connections of a route are still open for other requests.
func (n *Network) reusable(r *route) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	answered := r.answered()
	for id := range answered {
		if n.open[id] == nil {
			return false
		}
	}
	return len(answered) > 0
}

// shares is whether a request that is sent now can share a verified connection.
func (n *Network) shares() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, conn := range n.open {
		if conn.verified && conn.shared {
			return true
		}
	}
	return false
}

// exclusive is whether each request that is sent now needs a connection of its own.
func (n *Network) exclusive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.single
}

// route is what the requests of a context were answered over. It stays empty where a
// client makes its connections in another way.
type route struct {
	mu   sync.Mutex
	last net.Conn
	over map[socket]bool // whether it is shared
}

// traced has the route of a context's requests recorded.
func traced(ctx context.Context) (context.Context, *route) {
	r := &route{over: map[socket]bool{}}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.last = info.Conn
		},
		GotFirstResponseByte: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.last != nil {
				r.over[socketOf(r.last)] = isShared(r.last)
			}
		},
	}), r
}

func isShared(conn net.Conn) bool {
	encrypted, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	return ok && encrypted.ConnectionState().NegotiatedProtocol == "h2"
}

func (r *route) answered() map[socket]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.over)
}
