package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// ProbeKind is how an address of a gateway is probed.
type ProbeKind string

// The kinds: none at all; a connection that is accepted; an HTTP answer below 400.
const (
	ProbeNone ProbeKind = "none"
	ProbeTCP  ProbeKind = "tcp"
	ProbeHTTP ProbeKind = "http"
)

// Probe is how gateways are probed. The zero Probe must not be used: Kind is one of
// those above.
type Probe struct {
	Kind      ProbeKind
	Port      string        // name or number; empty: the gateway port that all traffic goes to, else its lowest TCP port
	Path      string        // of an HTTP request
	Period    time.Duration // between two probes of one address
	Timeout   time.Duration // of one probe
	Threshold int           // that many failures in a row make an address not ready; one success makes it ready
}

// Validate lists what is wrong with it, by flag.
func (p Probe) Validate() error {
	var wrong []error
	if p.Kind != ProbeNone && p.Kind != ProbeTCP && p.Kind != ProbeHTTP {
		wrong = append(wrong, fmt.Errorf("--probe: unknown kind %.40q: set tcp, http or none", p.Kind))
	}
	if p.Port != "" {
		if err := ValidatePort(p.Port); err != nil {
			wrong = append(wrong, fmt.Errorf("--probe-port: %w", err))
		}
	}
	if err := validatePath(p.Path); err != nil {
		wrong = append(wrong, fmt.Errorf("--probe-path: %w", err))
	}
	if p.Period < 100*time.Millisecond {
		wrong = append(wrong, fmt.Errorf("--probe-period: %v is less than 100ms: set a longer duration", p.Period))
	}
	if p.Timeout <= 0 || p.Timeout > p.Period {
		wrong = append(wrong, fmt.Errorf("--probe-timeout: %v is out of range: set more than 0 and at most --probe-period, %v", p.Timeout, p.Period))
	}
	if p.Threshold < 1 {
		wrong = append(wrong, fmt.Errorf("--probe-threshold: %d is less than 1: set a number of failures", p.Threshold))
	}
	return errors.Join(wrong...)
}

// validatePath checks what goes into the first line of a request as it is.
func validatePath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%.100q does not start with a slash: set an absolute path", path)
	}
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		return fmt.Errorf("%.100q has a character that is invalid in a URL path: escape it, such as %%20", path)
	}
	if _, err := url.ParseRequestURI(path); err != nil {
		return fmt.Errorf("%.100q is not a valid path: %w", path, errors.Unwrap(err))
	}
	return nil
}

// Target is the port that is probed. One that the load balancer does not serve is
// probed only if it is configured: its failure says nothing of the others.
func (p Probe) Target(gw *Gateway) (uint16, error) {
	want := cmp.Or(p.Port, gw.Port)
	if n, numeric := number(want); numeric {
		return uint16(n), nil
	}
	var fit []int32
	for _, port := range gw.Ports {
		fits := want == port.Name
		if want == "" {
			fits = gw.portError(PortNumber{port.Port, protocol(port)}) == nil
		}
		if fits && protocol(port) == corev1.ProtocolTCP {
			fit = append(fit, port.Port)
		}
	}
	switch {
	case len(fit) == 0 && want == "":
		return 0, fmt.Errorf("no TCP port to probe: the gateway has %s: set --probe=none", ListPorts(gw.Ports))
	case len(fit) == 0:
		return 0, fmt.Errorf("no TCP port %q to probe: the gateway has %s: set --probe-port to one of its ports", want, ListPorts(gw.Ports))
	}
	return uint16(slices.Min(fit)), nil
}

// tally counts the results of the probes of one address.
type tally struct {
	health   Health
	failures int // in a row
	cause    error
}

func (t *tally) add(err error, threshold int) {
	if err == nil {
		*t = tally{health: Ready}
		return
	}
	t.failures++
	if t.failures >= threshold {
		t.health, t.cause = NotReady, err
	}
}

// probe probes one address until the context ends.
func (w *Watch) probe(ctx context.Context, target netip.AddrPort, _ <-chan struct{}) {
	probe := w.options.Probe
	for {
		err := w.probeOnce(ctx, target)
		w.update(func() bool {
			if ctx.Err() == nil {
				w.count(target, err)
			}
			return false
		})
		if !sleep(ctx, wait.Jitter(probe.Period, 0.1), nil) {
			return
		}
	}
}

// count adds the result of a probe. w.mu is held.
func (w *Watch) count(target netip.AddrPort, err error) {
	known := w.health[target]
	if known == nil {
		known = &tally{health: Unprobed}
		w.health[target] = known
	}
	before := known.health
	if known.add(err, w.options.Probe.Threshold); known.health != before {
		w.publish()
	}
}

// once makes one probe.
func (p Probe) once(ctx context.Context, target netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	if p.Kind == ProbeTCP {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
		if err != nil {
			return innermost(err)
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target.String()+p.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "service-mirror")
	resp, err := probeTransport.RoundTrip(req) // no redirect is followed
	if err != nil {
		return innermost(err)
	}
	resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("probe answered with status %d", resp.StatusCode)
	}
	return nil
}

// probeTransport uses no proxy and keeps no connection: each probe opens one, as a
// client would.
var probeTransport = &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}

// innermost is the cause of a failure, without the ports that differ from attempt to attempt.
func innermost(err error) error {
	var slow net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) && slow.Timeout() {
		return errors.New("probe timed out")
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
