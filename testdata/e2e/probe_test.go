package e2e

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// doors is a gateway's listener, on an address of the tests' own network. It can be
// closed, so that connections are refused, and opened again.
type doors struct {
	t       *testing.T
	address string // with the port
	status  atomic.Int32
	failing atomic.Int32 // so many of three requests are answered with 500

	mu     sync.Mutex
	server *http.Server // nil: closed
	paths  []string     // of the requests
	conns  int
}

// openDoors opens an address's port 8080, or another.
func (e *env) openDoors(address string, port int) *doors {
	e.Helper()
	d := e.closedDoors(address, port)
	d.open()
	return d
}

func (e *env) closedDoors(address string, port int) *doors {
	d := &doors{t: e.T, address: net.JoinHostPort(address, strconv.Itoa(port))}
	d.status.Store(http.StatusOK)
	e.Cleanup(d.close)
	return d
}

func (d *doors) open() {
	d.t.Helper()
	listener, err := net.Listen("tcp", d.address)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.mu.Lock()
			d.paths = append(d.paths, r.URL.Path)
			turn := len(d.paths) % 3
			d.mu.Unlock()
			switch status := int(d.status.Load()); {
			case turn < int(d.failing.Load()):
				w.WriteHeader(http.StatusInternalServerError)
			case status/100 == 3:
				http.Redirect(w, r, "/elsewhere", status)
			default:
				w.WriteHeader(status)
			}
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				d.mu.Lock()
				d.conns++
				d.mu.Unlock()
			}
		},
	}
	go d.server.Serve(listener)
}

func (d *doors) close() {
	d.mu.Lock()
	server := d.server
	d.server = nil
	d.mu.Unlock()
	if server != nil {
		server.Close()
	}
}

// visits are the number of connections, and the paths that were requested.
func (d *doors) visits() (connections int, paths []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns, slices.Compact(slices.Sorted(slices.Values(d.paths)))
}

// probed waits until an address has been probed so many times more.
func (d *doors) probed(e *env, times int) {
	e.Helper()
	before, _ := d.visits()
	e.soon("probes", func() error {
		if now, _ := d.visits(); now < before+times {
			return fmt.Errorf("%d more connections", now-before)
		}
		return nil
	})
}

// An unhealthy address is not ready after a second and a half.
var probeFlags = []string{"--probe-period", "500ms", "--probe-timeout", "400ms", "--probe-threshold", "3"}

func probing(kind string, more ...string) []string {
	return append(append([]string{"--probe", kind}, probeFlags...), more...)
}

// dead is the form in leads of addresses that are not ready.
func dead(lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, line+" not ready")
	}
	return out
}

// writesByMirror counts the writes since a mark; all must be updates of Endpoints.
func (e *env) writesByMirror(since auditMark) map[string]int {
	e.Helper()
	counts := map[string]int{}
	for _, w := range e.local.writes(e.T, e.id, since) {
		if w.Verb != "update" || w.ObjectRef.Resource != "endpoints" {
			e.Errorf("written besides Endpoints: %v", w)
		}
		counts[w.ObjectRef.Name]++
	}
	return counts
}

func TestGatewayIsUnhealthy(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tcp", "http"} {
		t.Run(kind, func(t *testing.T) {
			e := newEnv(t)
			r := e.remote(paris)
			address := e.healthyAddress()
			doors := e.closedDoors(address, 8080)
			r.gateway(address)
			r.exportMany(5)
			ready := to("http:8080", address)
			all := func(what string, want []string) {
				t.Helper()
				for i := range 5 {
					name := fmt.Sprintf("bar%d", i)
					e.soon(what, r.leads(name, want...), r.slicesLead(name, want...))
				}
			}
			once := func(what string, since auditMark) {
				t.Helper()
				counts := e.writesByMirror(since)
				for i := range 5 {
					if n := counts[r.mirror(fmt.Sprintf("bar%d", i))]; n != 1 {
						t.Errorf("%s: %d writes of bar%d, want one", what, n, i)
					}
				}
			}

			d := e.daemon([]*remote{r}, probing(kind)...)
			all("dead before the start", dead(ready))
			e.logs(d, address, "does not answer on port 8080", "connection refused")
			for i := range 5 {
				e.must(r.mirroredNowhere(fmt.Sprintf("bar%d", i))())
			}
			before := e.identities()
			since := london.mark(t)
			e.stays("dead", r.leads("bar0", dead(ready)...))
			e.noWrites(since)

			for _, what := range []string{"once", "again"} {
				since = london.mark(t)
				doors.open()
				all("revived "+what, ready)
				doors.probed(e, 3)
				once("revived "+what, since)
				since = london.mark(t)
				doors.close()
				all("killed "+what, dead(ready))
				once("killed "+what, since)
			}
			doors.open()
			all("revived", ready)

			since = london.mark(t)
			d.stop()
			d = e.daemon([]*remote{r}, probing(kind)...)
			doors.probed(e, 5)
			e.stays("alive over a restart", r.leads("bar0", ready...))
			e.noWrites(since)
			d.kill()
			d = e.daemon([]*remote{r}, probing(kind)...)
			doors.probed(e, 5)
			all("alive over a kill", ready)
			e.noWrites(since)

			doors.close()
			all("killed", dead(ready))
			since = london.mark(t)
			d.stop()
			d = e.daemon([]*remote{r}, probing(kind)...)
			e.logs(d, address, "does not answer")
			e.stays("dead over a restart", r.leads("bar0", dead(ready)...))
			e.noWrites(since)
			// A mirror that is created while it is unhealthy is not ready either.
			r.export("late")
			e.soon("a late mirror", r.leads("late", dead(ready)...))
			e.remove(paris, "late")
			e.soon("the late mirror gone", r.gone("late"))

			d.stop()
			since = london.mark(t)
			d = e.daemon([]*remote{r}, "--probe", "none")
			all("without probes", ready)
			once("without probes", since)
			d.stop()
			e.daemon([]*remote{r}, probing(kind)...)
			all("probed again", dead(ready))
			doors.open()
			all("revived", ready)
			e.sameIdentities(before)
		})
	}
}

// mirroredNowhere checks that a mirror exists and has no ready address.
func (r *remote) mirroredNowhere(name string) func() error {
	return func() error {
		svc, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		endpoints, err := r.env.local.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, svc.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if addresses, _ := contents(endpoints); len(addresses) > 0 {
			return fmt.Errorf("%s routes to %v", svc.Name, addresses)
		}
		return nil
	}
}

func TestOneOfTwoAddressesIsUnhealthy(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	doors := e.openDoors(address, 8080)
	r.gateway(deadAddress, address)
	r.export("bar")
	d := e.daemon([]*remote{r}, probing("tcp")...)
	alive, gone := to("http:8080", address), dead(to("http:8080", deadAddress))
	e.soon("the unhealthy one", r.leads("bar", slices.Concat(alive, gone)...), r.slicesLead("bar", slices.Concat(alive, gone)...))
	e.logs(d, deadAddress, "does not answer on port 8080")
	since := london.mark(t)
	e.stays("its neighbour", r.leads("bar", slices.Concat(alive, gone)...))
	e.noWrites(since)
	doors.close()
	e.soon("all dead", r.leads("bar", slices.Concat(dead(alive), gone)...), r.slicesLead("bar", slices.Concat(dead(alive), gone)...))
	d.stop()
	doors.open() // and found open after the start
	d = e.daemon([]*remote{r}, probing("tcp")...)
	e.soon("the living one", r.leads("bar", slices.Concat(alive, gone)...), r.slicesLead("bar", slices.Concat(alive, gone)...))
	// A new address is ready until its probes fail, and one that is removed is forgotten.
	another := e.healthyAddress()
	e.openDoors(another, 8080)
	since = london.mark(t)
	r.gateway(address, another)
	e.soon("another", r.leads("bar", to("http:8080", address, another)...))
	e.stays("both", r.leads("bar", to("http:8080", address, another)...))
	if n := e.writesByMirror(since)[r.mirror("bar")]; n != 1 {
		t.Errorf("%d writes, want one", n)
	}
	if n := d.logged(another, "does not answer"); n != 0 {
		t.Errorf("the healthy one is reported %d times", n)
	}
}

func TestHTTPProbe(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	front := e.openDoors(address, 8080)
	health := e.openDoors(address, 9090)
	r.gateway(address)
	e.change(paris, "gateway", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "health", Port: 9090})
	})
	r.keys = ",gateway-port=gateway"
	r.export("bar")
	d := e.daemon([]*remote{r}, probing("http", "--probe-port", "health", "--probe-path", "/healthz")...)
	alive := to("http:8080", address)
	e.soon("the mirror", r.leads("bar", alive...))
	health.probed(e, 3)
	for _, step := range []struct {
		status int
		alive  bool
	}{
		{http.StatusServiceUnavailable, false},
		{http.StatusFound, true},
		{http.StatusNotFound, false},
		{http.StatusNoContent, true},
		{http.StatusBadRequest, false},
	} {
		health.status.Store(int32(step.status))
		want := alive
		if !step.alive {
			want = dead(alive)
			e.logs(d, address, fmt.Sprintf("probe answered with status %d", step.status))
		}
		e.soon(fmt.Sprintf("status %d", step.status), r.leads("bar", want...))
	}
	if _, paths := health.visits(); !slices.Equal(paths, []string{"/healthz"}) {
		t.Errorf("requests for %v", paths)
	}
	d.stop()
	// The status stays what it is, the settings change.
	d = e.daemon([]*remote{r}, probing("tcp", "--probe-port", "9090")...)
	e.soon("a connection is enough", r.leads("bar", alive...))
	d.stop()
	d = e.daemon([]*remote{r}, probing("http")...)
	front.probed(e, 2)
	before, _ := health.visits()
	e.stays("the port that all traffic goes to", r.leads("bar", alive...))
	if now, _ := health.visits(); now != before {
		t.Errorf("the other port was probed %d times", now-before)
	}
	d.stop()
	d = e.daemon([]*remote{r}, probing("tcp", "--probe-port", "absent")...)
	e.logs(d, "no TCP port", "absent", "health (9090/TCP)")
	e.must(r.leads("bar", alive...)())
}

// A gateway that fails a probe now and then is healthy.
func TestFewerFailuresThanTheThreshold(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	doors := e.openDoors(address, 8080)
	doors.failing.Store(2) // of three
	r.gateway(address)
	r.export("bar")
	e.daemon([]*remote{r}, probing("http", "--probe-period", "2s", "--probe-timeout", "2s")...) // of three probes in a row, one must be in time
	alive := to("http:8080", address)
	e.soon("the mirror", r.leads("bar", alive...), r.slicesLead("bar", alive...))
	since := london.mark(t)
	doors.probed(e, 6)
	e.stays("alive", r.leads("bar", alive...))
	e.noWrites(since)
	doors.failing.Store(3)
	e.soon("dead", r.leads("bar", dead(alive)...))
	doors.failing.Store(2) // one success is enough
	e.soon("alive", r.leads("bar", alive...))
}

// Health and hostnames together: an address that DNS no longer has is not probed.
func TestProbedHostname(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	one, two := e.healthyAddress(), e.healthyAddress()
	e.openDoors(one, 8080)
	closed := e.closedDoors(two, 8080)
	n.say(gatewayHost, one, two)
	r.gateway(gatewayHost)
	r.export("bar")
	flags := append(n.flags(), probing("tcp")...)
	d := e.daemon([]*remote{r}, flags...)
	both := slices.Concat(to("http:8080", one), dead(to("http:8080", two)))
	e.soon("one of two", r.leads("bar", both...))
	d.stop()
	// Neither DNS nor the probes have answered yet, or will.
	n.set(gatewayHost, answer{silent: true})
	since := london.mark(t)
	e.daemon([]*remote{r}, flags...)
	e.stays("what the Endpoints say", r.leads("bar", both...))
	e.noWrites(since)
	n.say(gatewayHost, two)
	e.eventually(25*time.Second, "the other alone", r.leads("bar", dead(to("http:8080", two))...))
	closed.open()
	e.soon("it revived", r.leads("bar", to("http:8080", two)...))
}
