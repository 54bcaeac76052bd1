package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// fakeDNS answers as configured.
type fakeDNS struct {
	mu      sync.Mutex
	answers map[string][]string // by hostname; nil: SERVFAIL
	silent  bool                // no answer at all
	no4     error               // for every A
	no6     error               // for every AAAA
	queries int
}

func (d *fakeDNS) change(change func(*fakeDNS)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *fakeDNS) set(host string, addrs ...string) {
	d.change(func(d *fakeDNS) { d.answers[host+"."] = addrs })
}

func (d *fakeDNS) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	d.queries++
	answers, silent, fail := d.answers[host], d.silent, map[string]error{"ip4": d.no4, "ip6": d.no6}[network]
	d.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	}
	if answers == nil {
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	if fail != nil {
		return nil, fail
	}
	var fit []netip.Addr
	for _, addr := range parse(answers...) {
		if addr.Is4() == (network == "ip4") {
			fit = append(fit, addr)
		}
	}
	if len(fit) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return fit, nil
}

// watched is a Watch that runs in a bubble of virtual time.
type watched struct {
	*testing.T
	*Watch
	dns     *fakeDNS
	called  sync.Mutex // guards what follows
	changes int
	problem error
}

func watching(t *testing.T, config Config, change func(*Options), test func(w *watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &watched{T: t, dns: &fakeDNS{answers: map[string][]string{}}}
		options := Options{Resolver: w.dns, Refresh: 30 * time.Second, Probe: Probe{Kind: ProbeNone}, Filter: Filter{Domain: "cluster.local"}}
		if change != nil {
			change(&options)
		}
		w.Watch = NewWatch(config, options, func(problem error, differs bool) {
			w.called.Lock()
			defer w.called.Unlock()
			w.problem = problem
			if differs {
				w.changes++
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go w.Watch.Run(ctx)
		test(w)
	})
}

func (w *watched) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// has wants these addresses, all of them known or not, after that many changes.
func (w *watched) has(partial bool, changes int, texts ...string) {
	w.Helper()
	w.called.Lock()
	defer w.called.Unlock()
	gw := w.Gateway()
	want := plain(addresses(texts...))
	if gw == nil || !slices.Equal(plain(gw.Addresses), want) || gw.Partial != partial || w.changes != changes {
		w.Errorf("got %+v after %d changes, want %v, partial %v, after %d", gw, w.changes, want, partial, changes)
	}
}

func (w *watched) says(text string) {
	w.Helper()
	w.called.Lock()
	defer w.called.Unlock()
	checkErr(w.T, w.problem, text)
}

// A callback that calls back, or that is slow, blocks no caller.
func TestCallbackRunsWithoutALock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *Watch
		entered, leave := make(chan struct{}), make(chan struct{})
		var running, calls atomic.Int32
		w = NewWatch(Config{Service: gatewayName}, Options{Probe: Probe{Kind: ProbeNone}}, func(error, bool) {
			if running.Add(1) > 1 {
				t.Error("the callback runs twice at once")
			}
			defer running.Add(-1)
			if calls.Add(1) == 1 {
				w.Refilter()
				close(entered)
				<-leave
			}
		})
		go w.Set(balancer("192.0.2.1"), nil)
		synctest.Wait()
		select {
		case <-entered:
		default:
			t.Fatal("the callback cannot call the watch")
		}
		for range 3 {
			w.Set(balancer("192.0.2.2"), nil) // does not wait for the callback
		}
		if got := plain(w.Gateway().Addresses); !slices.Equal(got, parse("192.0.2.2")) {
			t.Errorf("the gateway is %v while the callback runs", got)
		}
		close(leave)
		synctest.Wait()
		if n := calls.Load(); n != 2 {
			t.Errorf("%d calls, want one and one more for all that came meanwhile", n)
		}
	})
}

// Whoever makes a change, the last call is about the last state, and no change is lost.
func TestCallbacksAreInOrder(t *testing.T) {
	var w *Watch
	var last atomic.Pointer[string]
	differs := 0 // never written twice at once, as the race detector sees
	w = NewWatch(Config{Service: gatewayName}, Options{Probe: Probe{Kind: ProbeNone}}, func(problem error, changed bool) {
		text := fmt.Sprint(problem)
		last.Store(&text)
		if changed {
			differs++
		}
	})
	for range 200 {
		var wg sync.WaitGroup
		for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "192.0.2.1"} {
			wg.Go(func() { w.Set(balancer(addr), nil) })
		}
		wg.Wait()
		w.mu.Lock()
		_, want := w.entrance.Gateway(nil, true, Filter{})
		w.mu.Unlock()
		if got := *last.Load(); got != fmt.Sprint(want) {
			t.Fatalf("the last call is about %q, the gateway has %v", got, want)
		}
	}
	if differs == 0 {
		t.Error("no change was reported")
	}
}

func named(names ...string) *corev1.Service {
	svc := balancer()
	for _, name := range names {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: name})
	}
	return svc
}

func TestHostnameIsResolvedAndFollowed(t *testing.T) {
	watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
		if w.Gateway() != nil {
			t.Error("it is known before its Service is")
		}
		w.dns.set("gw.example.com", "192.0.2.2", "192.0.2.1", "2001:db8::1")
		w.Set(named("gw.example.com"), nil)
		w.wait(0)
		w.has(false, 2, "192.0.2.1", "192.0.2.2", "2001:db8::1")
		w.says("")

		w.dns.set("gw.example.com", "2001:db8::1", "192.0.2.1", "192.0.2.2") // reordered
		w.wait(time.Minute)
		w.has(false, 2, "192.0.2.1", "192.0.2.2", "2001:db8::1")
		if w.dns.queries < 4 || w.dns.queries > 6 {
			t.Errorf("%d queries in a minute", w.dns.queries)
		}

		w.dns.set("gw.example.com", "192.0.2.3")
		w.wait(37 * time.Second)
		w.has(false, 3, "192.0.2.3")

		w.dns.set("other.example.com", "192.0.2.4")
		w.Set(named("other.example.com"), nil) // not resolved yet: what is there stays
		w.wait(0)
		w.has(false, 5, "192.0.2.4")
	})
}

func TestHostnameIsResolvedAtOnceWhenTheServiceChanges(t *testing.T) {
	watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
		w.dns.set("gw.example.com", "192.0.2.1")
		w.Set(named("gw.example.com"), nil)
		w.wait(5 * time.Second)
		w.dns.set("gw.example.com", "192.0.2.2")
		w.Set(named("gw.example.com"), nil)
		w.wait(0)
		w.has(false, 3, "192.0.2.2")

		before := w.dns.queries
		for range 1000 { // but a remote that changes it all the time must not cause lookups all the time
			w.Set(named("gw.example.com"), nil)
			w.wait(10 * time.Millisecond)
		}
		if n := (w.dns.queries - before) / 2; n > 11 {
			t.Errorf("%d lookups in 10 seconds", n)
		}
	})
}

func TestLastGoodAnswerIsKept(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(*fakeDNS)
		says string
	}{
		{"SERVFAIL", func(d *fakeDNS) { d.answers["gw.example.com."] = nil }, "DNS lookup failed: server misbehaving; its last known addresses are used"},
		{"no answer", func(d *fakeDNS) { d.silent = true }, "DNS lookup timed out"},
		{"an empty answer", func(d *fakeDNS) { d.answers["gw.example.com."] = []string{} }, "DNS has no address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
				w.dns.set("gw.example.com", "192.0.2.1", "2001:db8::1")
				w.Set(named("gw.example.com"), nil)
				w.wait(0)
				w.dns.change(test.fail)
				w.wait(time.Hour)
				w.has(false, 2, "192.0.2.1", "2001:db8::1")
				w.says(test.says)
				w.dns.change(func(d *fakeDNS) { d.silent = false })
				w.dns.set("gw.example.com", "192.0.2.7")
				w.wait(16 * time.Second) // a failure is tried again sooner than a good answer
				w.has(false, 3, "192.0.2.7")
				w.says("")
			})
		})
	}
}

func TestOneFamilyFails(t *testing.T) {
	watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
		w.dns.set("gw.example.com", "192.0.2.1", "2001:db8::1")
		w.Set(named("gw.example.com"), nil)
		w.wait(0)
		w.dns.change(func(d *fakeDNS) { d.no6 = &net.DNSError{Err: "server misbehaving", IsTemporary: true} })
		w.dns.set("gw.example.com", "192.0.2.2", "2001:db8::1")
		w.wait(time.Minute)
		w.has(false, 3, "192.0.2.2", "2001:db8::1")
		w.says("DNS lookup failed")
		w.dns.change(func(d *fakeDNS) { d.no6 = &net.DNSError{Err: "no such host", IsNotFound: true} })
		w.wait(time.Minute)
		w.has(false, 4, "192.0.2.2")
		w.says("")
	})
}

// A family whose first query fails is not known, while the other one is: after a restart, live addresses stay.
func TestOneFamilyIsNotKnown(t *testing.T) {
	const v4, v6 = "192.0.2.1", "2001:db8::1"
	failing, none := &net.DNSError{Err: "server misbehaving", IsTemporary: true}, &net.DNSError{Err: "no such host", IsNotFound: true}
	for _, test := range []struct {
		name    string
		fail    func(*fakeDNS, error) // the queries of one family
		known   string                // of the other one
		missing corev1.IPFamily
		keeps   map[string]bool
	}{
		{"A", func(d *fakeDNS, err error) { d.no4 = err }, v6, corev1.IPv4Protocol, map[string]bool{"192.0.2.9": true, "2001:db8::9": false}},
		{"AAAA", func(d *fakeDNS, err error) { d.no6 = err }, v4, corev1.IPv6Protocol, map[string]bool{"192.0.2.9": false, "2001:db8::9": true}},
	} {
		for next, want := range map[string][]string{"answers": {v4, v6}, "has no address": {test.known}} {
			t.Run(test.name+", which then "+next, func(t *testing.T) {
				watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
					w.dns.change(func(d *fakeDNS) { test.fail(d, failing) })
					w.dns.set("gw.example.com", v4, v6)
					w.Set(named("gw.example.com"), nil)
					w.wait(time.Hour)
					w.has(true, 2, test.known)
					w.says("server misbehaving; its last known addresses are used, and existing " + string(test.missing) + " endpoints are kept")
					gw := w.Gateway()
					for text, want := range test.keeps {
						if addr := netip.MustParseAddr(text); gw.Keeps(addr) != want || gw.Lacks(FamilyOf(addr)) != want {
							w.Errorf("%s is kept: %v, its family lacks addresses: %v, want %v", text, gw.Keeps(addr), gw.Lacks(FamilyOf(addr)), want)
						}
					}
					w.dns.change(func(d *fakeDNS) { d.answers["gw.example.com."] = nil })
					w.wait(time.Hour) // nothing more is known
					w.has(true, 2, test.known)
					w.dns.set("gw.example.com", v4, v6)
					w.dns.change(func(d *fakeDNS) {
						if test.fail(d, nil); next != "answers" {
							test.fail(d, none)
						}
					})
					w.wait(10 * time.Second)
					w.has(false, 3, want...)
					w.says("")
					w.dns.change(func(d *fakeDNS) { test.fail(d, failing) })
					w.wait(time.Hour)
					w.has(false, 3, want...)
				})
			})
		}
	}
}

// Several hostnames may lack different families.
func TestHostnamesLackFamilies(t *testing.T) {
	for _, test := range []struct {
		name  string
		known map[string]answer
		want  corev1.IPFamily
	}{
		{"one family", map[string]answer{"a.example.com": {good: true, missing: corev1.IPv6Protocol}, "b.example.com": {good: true}}, corev1.IPv6Protocol},
		{"one family of both", map[string]answer{"a.example.com": {good: true, missing: corev1.IPv4Protocol}, "b.example.com": {good: true, missing: corev1.IPv4Protocol}}, corev1.IPv4Protocol},
		{"both families", map[string]answer{"a.example.com": {good: true, missing: corev1.IPv6Protocol}, "b.example.com": {good: true, missing: corev1.IPv4Protocol}}, ""},
		{"one is not resolved", map[string]answer{"a.example.com": {good: true, missing: corev1.IPv6Protocol}}, ""},
	} {
		w := NewWatch(Config{Service: gatewayName}, Options{Probe: Probe{Kind: ProbeNone}}, func(error, bool) {})
		w.names = test.known
		w.Set(named("a.example.com", "b.example.com"), nil)
		if gw := w.Gateway(); !gw.Partial || gw.Missing != test.want {
			t.Errorf("%s: partial %v, missing %q, want %q", test.name, gw.Partial, gw.Missing, test.want)
		}
	}
}

// A live address stays while the name that replaces it is not resolved, and goes when something of its family does.
func TestGatewayMovesToANameThatIsNotResolved(t *testing.T) {
	keeps := func(w *watched, text string, want bool) {
		w.Helper()
		if got := w.Gateway().Keeps(netip.MustParseAddr(text)); got != want {
			w.Errorf("%s is kept: %v", text, got)
		}
	}
	for _, failure := range []string{"NXDOMAIN", "SERVFAIL"} {
		t.Run(failure, func(t *testing.T) {
			watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
				w.dns.set("gw.example.com", "192.0.2.2")
				for _, name := range []string{"moved.example.com", "again.example.com"} {
					if failure == "NXDOMAIN" {
						w.dns.change(func(d *fakeDNS) { d.answers[name+"."] = []string{} })
					}
				}
				w.Set(balancer("192.0.2.1"), nil)
				w.Set(named("moved.example.com"), nil)
				keeps(w, "192.0.2.1", true) // as soon as the Service is known
				w.wait(time.Hour)
				w.has(true, 2)
				keeps(w, "192.0.2.1", true)

				w.Set(named("gw.example.com"), nil)
				w.wait(0)
				w.has(false, 3, "192.0.2.2")
				keeps(w, "192.0.2.1", false)
				w.Set(named("again.example.com"), nil)
				w.wait(time.Hour)
				w.has(true, 4)
				keeps(w, "192.0.2.2", true)

				svc := named("again.example.com")
				svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "2001:db8::1"})
				w.Set(svc, nil) // which replaces no IPv4 address
				w.wait(0)
				w.has(true, 5, "2001:db8::1")
				keeps(w, "192.0.2.2", true)
				svc = svc.DeepCopy()
				svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "192.0.2.3"})
				w.Set(svc, nil)
				w.wait(0)
				w.has(true, 6, "192.0.2.3", "2001:db8::1")
				keeps(w, "192.0.2.2", false)
			})
		})
	}
}

func TestUnresolvedHostnameIsNotEmpty(t *testing.T) {
	watching(t, Config{Service: gatewayName}, nil, func(w *watched) {
		svc := named("gw.example.com")
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "192.0.2.9"})
		w.Set(svc, nil)
		w.wait(time.Hour)
		w.has(true, 1, "192.0.2.9")
		w.says("existing endpoints are kept until it is resolved")
		w.dns.set("gw.example.com", "192.0.2.9", "192.0.2.1")
		w.wait(time.Minute)
		w.has(false, 2, "192.0.2.1", "192.0.2.9")
	})
}

func TestAddressesOfHostnamesAreFiltered(t *testing.T) {
	deny := func(o *Options) { o.Filter.Deny = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/30")} }
	watching(t, Config{Service: gatewayName}, deny, func(w *watched) {
		w.dns.set("gw.example.com", "169.254.169.254", "127.0.0.1", "192.0.2.1", "192.0.2.9")
		w.Set(named("gw.example.com"), nil)
		w.wait(0)
		w.has(false, 2, "192.0.2.9")
		w.says("address 169.254.169.254 is refused")
	})
}

func TestFilterMayChange(t *testing.T) {
	var known atomic.Pointer[[]Range]
	known.Store(new([]Range))
	watching(t, Config{Service: gatewayName}, func(o *Options) { o.Filter.Local = func() []Range { return *known.Load() } }, func(w *watched) {
		w.Set(balancer("10.96.0.1", "192.0.2.1"), nil)
		w.has(false, 1, "10.96.0.1", "192.0.2.1")
		known.Store(&[]Range{{netip.MustParsePrefix("10.96.0.0/16"), "Service range"}})
		w.Refilter()
		w.has(false, 2, "192.0.2.1")
		w.says("it is in this cluster's own Service range 10.96.0.0/16")
	})
}

func TestAddressOverrideByName(t *testing.T) {
	watching(t, Config{Service: gatewayName, Hostnames: []string{"gw.example.com"}, Addresses: parse("192.0.2.9")}, nil, func(w *watched) {
		w.dns.set("gw.example.com", "192.0.2.1")
		w.Set(balancer("192.0.2.77"), Reserved{{Port: "1"}: 2})
		w.wait(0)
		w.has(false, 2, "192.0.2.1", "192.0.2.9")
		if gw := w.Gateway(); !maps.Equal(gw.Reserved, Reserved{{Port: "1"}: 2}) || len(gw.Ports) != 2 {
			t.Errorf("got %+v", gw)
		}
	})
}

// probed runs a test of gateways whose addresses are healthy or not, without a network.
func probed(t *testing.T, test func(w *watched, healthy func(addr string, up bool))) {
	t.Helper()
	var mu sync.Mutex
	up := map[string]bool{}
	watching(t, Config{Service: gatewayName}, func(o *Options) {
		o.Probe = Probe{Kind: ProbeTCP, Path: "/", Period: 5 * time.Second, Timeout: 2 * time.Second, Threshold: 3}
	}, func(w *watched) {
		w.probeOnce = func(ctx context.Context, target netip.AddrPort) error {
			sleep(ctx, time.Millisecond, nil) // else the answer may be there when Set returns
			mu.Lock()
			defer mu.Unlock()
			if target.Port() != 80 {
				return fmt.Errorf("port %d is probed", target.Port())
			}
			if !up[target.Addr().String()] {
				return errors.New("connection refused")
			}
			return nil
		}
		test(w, func(addr string, now bool) {
			mu.Lock()
			defer mu.Unlock()
			up[addr] = now
		})
	})
}

func (w *watched) health(want string) {
	w.Helper()
	var got []string
	for _, address := range w.Gateway().Addresses {
		got = append(got, fmt.Sprintf("%v %v", address.Addr, address.Health))
	}
	if text := strings.Join(got, ", "); text != want {
		w.Errorf("got %s, want %s", text, want)
	}
}

func TestProbes(t *testing.T) {
	probed(t, func(w *watched, healthy func(string, bool)) {
		healthy("192.0.2.1", true)
		w.Set(balancer("192.0.2.1", "192.0.2.2"), nil)
		w.health("192.0.2.1 not probed yet, 192.0.2.2 not probed yet")
		w.wait(time.Second)
		w.health("192.0.2.1 ready, 192.0.2.2 not probed yet")
		w.wait(20 * time.Second)
		w.health("192.0.2.1 ready, 192.0.2.2 not ready")
		w.says("address 192.0.2.2 does not answer on port 80: connection refused")
		changes := w.changes
		w.wait(time.Hour) // without a change there is no call
		if w.changes != changes {
			t.Errorf("%d changes while nothing changed", w.changes-changes)
		}

		healthy("192.0.2.2", true)
		w.wait(6 * time.Second)
		w.health("192.0.2.1 ready, 192.0.2.2 ready")
		w.says("")

		healthy("192.0.2.1", false)
		w.wait(6 * time.Second)
		w.health("192.0.2.1 ready, 192.0.2.2 ready") // one failure is none
		healthy("192.0.2.1", true)
		w.wait(6 * time.Second)
		healthy("192.0.2.1", false)
		w.wait(8 * time.Second)
		w.health("192.0.2.1 ready, 192.0.2.2 ready") // nor are those of before a success
		w.wait(10 * time.Second)
		w.health("192.0.2.1 not ready, 192.0.2.2 ready")

		w.Set(balancer("192.0.2.2", "192.0.2.3"), nil) // the new address has no result yet, the other keeps its own
		w.health("192.0.2.2 ready, 192.0.2.3 not probed yet")
		w.wait(0)
		w.Set(balancer("192.0.2.1", "192.0.2.2"), nil)
		w.wait(0)
		w.health("192.0.2.1 not probed yet, 192.0.2.2 ready")
	})
}

func TestProbePort(t *testing.T) {
	for _, test := range []struct {
		probe   string
		only    string
		ports   []corev1.ServicePort
		failed  int32 // a port that the load balancer does not serve
		want    uint16
		wantErr string
	}{
		{ports: web, failed: 80, want: 443},
		{ports: web, failed: 80, only: "http", want: 80},
		{ports: []corev1.ServicePort{port("", 80, tcp, "")}, failed: 80, wantErr: "no TCP port to probe: the gateway has 80/TCP"},
		{ports: web[:1], failed: 80, wantErr: "no TCP port to probe: the gateway has http (80/TCP)"},
		{ports: web, want: 80},
		{ports: []corev1.ServicePort{port("dns", 53, udp, ""), port("b", 443, tcp, ""), port("a", 81, tcp, "")}, want: 81},
		{only: "https", ports: web, want: 443},
		{only: "8443", ports: web, want: 8443},
		{probe: "https", ports: web, want: 443},
		{probe: "9", only: "https", ports: web, want: 9},
		{probe: "x", ports: web, wantErr: `no TCP port "x" to probe: the gateway has http (80/TCP), https (443/TCP)`},
		{ports: []corev1.ServicePort{port("dns", 53, udp, "")}, wantErr: "no TCP port"},
	} {
		got, err := Probe{Port: test.probe}.Target(&Gateway{Ports: test.ports, Port: test.only, Unserved: map[PortNumber]string{{test.failed, tcp}: "X"}})
		if got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
		checkErr(t, err, test.wantErr)
	}
}

func TestProbeThatHasNoPortChangesNothing(t *testing.T) {
	watching(t, Config{Service: gatewayName}, func(o *Options) {
		o.Probe = Probe{Kind: ProbeTCP, Port: "x", Period: time.Second, Timeout: time.Second, Threshold: 1}
	}, func(w *watched) {
		w.Set(balancer("192.0.2.1"), nil)
		w.wait(time.Minute)
		w.health("192.0.2.1 not probed yet")
		w.says(`no TCP port "x" to probe`)
	})
}

// While a hostname is not resolved a live address may be its own, unless it is known
// not to be.
func TestLiveAddressesWhileNotAllAreKnown(t *testing.T) {
	var known atomic.Pointer[[]Range]
	known.Store(new([]Range))
	watching(t, Config{Service: gatewayName}, func(o *Options) {
		o.Filter.Local = func() []Range { return *known.Load() }
		o.Filter.Deny = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	}, func(w *watched) {
		svc := named("never.example.com")
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "192.0.2.1"})
		w.Set(svc, nil)
		moved := svc.DeepCopy()
		moved.Status.LoadBalancer.Ingress[1].IP = "192.0.2.2"
		w.Set(moved, nil)
		for text, want := range map[string]bool{"192.0.2.1": false, "192.0.2.9": true, "198.51.100.1": false, "127.0.0.1": false, "10.96.0.9": true} {
			if got := w.Gateway().Keeps(netip.MustParseAddr(text)); got != want {
				w.Errorf("%s is kept: %v", text, got)
			}
		}
		w.wait(0)
		before := w.changes
		known.Store(&[]Range{{netip.MustParsePrefix("10.96.0.0/16"), "Service range"}})
		w.Refilter()
		w.wait(0)
		if w.changes == before || w.Gateway().Keeps(netip.MustParseAddr("10.96.0.9")) {
			w.Error("a range of this cluster is ignored")
		}
	})
}
