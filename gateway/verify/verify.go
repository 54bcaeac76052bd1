// Package verify finds out whether a request arrives at the Service behind a gateway: it sends one as the
// local cluster's clients do, and says what came of it.
//
// verify.go has what goes in and what comes out, http.go the requests, answer.go what an answer means,
// certificate.go whether clients trust the gateway, and tcp.go the ports that carry no name. What a gateway
// answers is untrusted: it is bounded in bytes and time, redirects are not followed, and no credentials are sent.
package verify

import (
	"context"
	"net"
	"net/netip"
	"time"

	"service-mirror.io/service-mirror/gateway"
)

// Target is one port of a mirror at one address of its gateway.
type Target struct {
	Address netip.AddrPort // what is dialled
	Class   gateway.Class
	Host    string // the name that clients use, without a port
	Port    int32  // of the mirror
	// Reserved tells a gateway port that serves this Service alone, whatever name a request has.
	Reserved bool
}

// Result is what came of a verification, in a word.
type Result string

// The results.
const (
	Reached     Result = "reached"     // the application has answered
	NotRouted   Result = "not routed"  // the gateway answers as it does for a name that cannot exist
	Unavailable Result = "unavailable" // the gateway knows the name, and has no backend
	Refused     Result = "refused"     // nothing listens at the gateway's address
	TimedOut    Result = "timed out"   // no connection, or no answer
	Certificate Result = "certificate" // clients do not trust the gateway, or it demands their certificate
	Closed      Result = "closed"      // the connection is accepted, and closed without an answer
	Failed      Result = "failed"      // anything else, as an answer in another protocol
	NotKnown    Result = "not known"   // nothing can be known, as of UDP
	NoEndpoint  Result = "no endpoint" // there is nothing to dial
	NotVerified Result = "not verified"
)

// Results are all results of a mirror.
var Results = []Result{Reached, NotRouted, Unavailable, Refused, TimedOut, Certificate, Closed, Failed, NotKnown, NoEndpoint, NotVerified}

// Wrong tells a result that is known to keep clients from the Service.
func (r Result) Wrong() bool { return r != Reached && r != NotKnown && r != NotVerified }

// Outcome is what came of a verification.
type Outcome struct {
	Result  Result
	Answer  string        // what the gateway did; printable
	Remedy  string        // what to do about it; empty if it was reached
	Lasting bool          // waiting does not change it: only a change of the Service, the gateway or a flag does
	Latency time.Duration // until the answer of the last request; 0: there was none
	Names   []string      // of the certificate that was presented
}

// Message is the answer, and the remedy where there is one.
func (o Outcome) Message() string {
	if o.Remedy == "" {
		return o.Answer
	}
	return o.Answer + ": " + o.Remedy
}

// How long a connection may take, and a request with its answer. A gateway whose backend is dead takes five seconds
// itself, most often, until it says so.
const (
	connectTime = 5 * time.Second
	answerTime  = 10 * time.Second
)

// dialer connects to a gateway. Its time is its own: what follows has its full time, however long it took to connect.
type dialer func(context.Context) (net.Conn, error)

func (t Target) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{Timeout: connectTime}).DialContext(ctx, "tcp", t.Address.String())
}

// Check makes the requests of one verification: at most two.
func (o Options) Check(ctx context.Context, t Target) Outcome {
	switch {
	case t.Class == gateway.UDP, t.Class == gateway.SCTP:
		return notKnown(t.Class)
	case t.Class == gateway.TCP, t.Class == gateway.Unknown && t.Reserved:
		return connect(ctx, t, t.dial)
	case t.Class != gateway.HTTPS && t.Class != gateway.GRPC:
		t.Class = gateway.HTTP
	}
	roots, err := o.roots()
	if err != nil {
		return Outcome{Result: Certificate, Answer: err.Error(), Remedy: "fix the file set by --ca-file", Lasting: true}
	}
	r := requester{Target: t, roots: roots, connect: t.dial}
	var unknown answer
	if !t.Reserved {
		unknown = r.send(ctx, impossible, connectTime)
		if unknown.err != nil && !unknown.connected {
			return t.unanswered(unknown)
		}
	}
	return t.judge(r.send(ctx, t.Host, answerTime), unknown)
}

// notKnown is the outcome for a port to which no request is sent.
func notKnown(class gateway.Class) Outcome {
	answer := "UDP cannot be verified: it has no connections"
	if class == gateway.SCTP {
		answer = "SCTP cannot be verified: verify does not support it"
	}
	return Outcome{Result: NotKnown, Answer: answer, Remedy: "test the port with a client in a pod", Lasting: true}
}

// impossible is a name that no gateway can route: RFC 6761 keeps it from existing.
const impossible = "service-mirror-verify.invalid"
