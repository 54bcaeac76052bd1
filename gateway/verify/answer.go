package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote/failure"
)

// judge says what an answer means, beside that for a name that cannot exist.
func (t Target) judge(got, unknown answer) Outcome {
	if got.err != nil {
		return t.unanswered(got)
	}
	text := fmt.Sprintf("status %d", got.status)
	if got.grpc != "" {
		text = fmt.Sprintf("gRPC status %.20s", failure.Printable(got.grpc))
	}
	if got.location != "" {
		text += fmt.Sprintf(", redirect to %.100s, not followed", failure.Printable(got.location))
	}
	outcome := func(result Result, answer, remedy string) Outcome {
		return Outcome{Result: result, Answer: answer, Remedy: remedy, Latency: got.latency, Names: got.certificate.names}
	}
	same := unknown.err == nil && unknown.print == got.print && !t.Reserved
	// A gateway can request a certificate in every handshake and require none: a 400 is then the application's, unless all names get it.
	required := same || !unknown.certificate.demanded
	switch {
	case got.certificate.demanded && (got.status == http.StatusBadRequest && required || got.status == http.StatusForbidden && same || got.status == 495 || got.status == 496): // nginx's own
		demanded := outcome(Certificate, text+", the gateway requires a client certificate", demandedRemedy)
		demanded.Lasting = got.status != http.StatusForbidden // which a gateway may also answer until it has a route
		return demanded
	case got.status == http.StatusMisdirectedRequest:
		return outcome(NotRouted, text+": the gateway has no route for "+t.Host, t.route())
	case same && got.status == http.StatusBadRequest:
		return outcome(Failed, text+" for any host name: the gateway port may speak another protocol", t.speak())
	case same:
		return outcome(NotRouted, text+", the same as for an unknown host name: the gateway has no route for "+t.Host, t.route())
	case got.status == http.StatusBadGateway, got.status == http.StatusServiceUnavailable, got.status == http.StatusGatewayTimeout,
		got.grpc == "14": // UNAVAILABLE
		return outcome(Unavailable, text+": the gateway has a route, but its backend does not answer", "check that the exported Service has ready pods, and the port "+fmt.Sprint(t.Port)+" that the gateway routes to"+t.overTLS())
	}
	return outcome(Reached, text, "")
}

// unanswered says what it means that a request was not answered.
func (t Target) unanswered(got answer) Outcome {
	outcome := Outcome{Latency: got.latency, Names: got.certificate.names}
	err := got.err
	set := func(result Result, answer, remedy string) {
		outcome.Result, outcome.Answer, outcome.Remedy = result, answer, remedy
	}
	switch cause := failure.Line(failure.Cause(err)); {
	case got.certificate.problem != "":
		set(Certificate, got.certificate.problem, got.certificate.remedy)
	case timeoutOf(err) && got.connected:
		set(TimedOut, fmt.Sprintf("the gateway accepts the connection but does not answer within %v", answerTime), "check the gateway and the exported Service behind it")
	case timeoutOf(err):
		set(TimedOut, fmt.Sprintf("no connection within %v", connectTime), "check that the gateway's address is up, and that no firewall or NetworkPolicy drops connections from here")
	case !got.connected && errors.Is(err, syscall.ECONNREFUSED):
		set(Refused, "connection refused", fmt.Sprintf("check that the gateway runs and listens on port %d at that address", t.Address.Port()))
	case !got.connected:
		set(Failed, fmt.Sprintf("no connection: %.200s", cause), "check that the gateway's address is up and reachable from here")
	case got.certificate.demanded && alert(err):
		set(Certificate, fmt.Sprintf("the gateway requires a client certificate: %.200s", cause), demandedRemedy)
		outcome.Lasting = !closedBy(err) // without an alert, it may have been about to end
	case strings.Contains(cause, "unrecognized name"):
		set(NotRouted, "the gateway has no route for SNI "+t.Host, t.route())
	case closedBy(err):
		set(Closed, "the gateway closed the connection without an answer", fmt.Sprintf("check that the gateway routes %s, that the exported Service has ready pods, and that port %d of the gateway speaks %s", t.Host, t.Address.Port(), t.Class))
	default:
		set(Failed, fmt.Sprintf("no valid %s answer: %.200s", t.Class, cause), t.speak())
	}
	return outcome
}

const demandedRemedy = "verify does not send one: send a request with a client certificate from a pod"

func (t Target) route() string {
	return "configure the gateway to route " + t.Host + " to the exported Service"
}

// overTLS is what some gateways require of the port behind an HTTPS port.
func (t Target) overTLS() string {
	if t.Class != gateway.HTTPS {
		return ""
	}
	return ", and that it speaks TLS if the gateway connects to it over TLS"
}

func (t Target) speak() string {
	return fmt.Sprintf("check that port %d of the gateway speaks %s, or choose another one with the annotation service-mirror.io/gateway-port on the exported Service", t.Address.Port(), t.Class)
}

func timeoutOf(err error) bool {
	var slow net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) && slow.Timeout()
}

// closedBy tells a connection that the other side has ended.
func closedBy(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "server closed idle connection")
}
