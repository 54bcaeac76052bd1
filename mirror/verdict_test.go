package mirror

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/plan/fixture"
	"service-mirror.io/service-mirror/remote"
)

// lookup is an exported Service that has a UDP port alone.
func lookup() *corev1.Service {
	svc := named("default", "lookup")
	svc.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
	return svc
}

// servingLookup is a gateway that has reserved a port for it.
func servingLookup() *gateway.Gateway {
	gw := parisGateway()
	gw.Ports = append(gw.Ports, corev1.ServicePort{Name: "x", Port: 15353, Protocol: corev1.ProtocolUDP})
	gw.Reserved = gateway.Reserved{{Service: cache.NewObjectName("default", "lookup"), Port: "53", Protocol: corev1.ProtocolUDP}: 15353}
	return gw
}

func headless() *corev1.Service {
	svc := named("default", "headless")
	svc.Spec.ClusterIP = corev1.ClusterIPNone
	return svc
}

// What waiting may change is awaited, and nothing else is.
func TestAwaited(t *testing.T) {
	bar := exportedBar()
	early := named("soon", "early")
	db := named("default", "db")
	db.Spec.Ports = []corev1.ServicePort{{Name: "postgres", Port: 5432}}
	limited := named("default", "limited")
	limited.Annotations = map[string]string{plan.ExportToAnnotation: "london"}
	long := named("default", strings.Repeat("x", 60))
	for name, test := range map[string]struct {
		exports []*corev1.Service
		change  func(*fakeRemote)
		want    Wanted
		outcome verify.Outcome // of bar
		err     string         // a part of it; empty: there is none
		awaited string         // a part of it; empty: nothing is
	}{
		"all reached":                   {exports: []*corev1.Service{bar, lookup()}, outcome: verify.Outcome{Result: verify.Reached}},
		"not reached yet":               {exports: []*corev1.Service{bar}, outcome: verify.Outcome{Result: verify.NotRouted}, err: "2 of 2 not reached", awaited: "0 of 2 verified: 2 of 2 not reached: default/bar-paris"},
		"never reached":                 {exports: []*corev1.Service{bar}, outcome: verify.Outcome{Result: verify.Certificate, Lasting: true}, err: "2 of 2 not reached; waiting does not help default/bar-paris"},
		"nothing exported yet":          {err: "no mirrors to verify", awaited: "no mirrors to verify"},
		"the mirror not exported yet":   {want: Wanted{Mirrors: []string{"bar-paris"}}, err: "mirror bar-paris: no remote exports its Service", awaited: "mirror bar-paris: no remote exports"},
		"UDP alone":                     {exports: []*corev1.Service{lookup()}, err: "only UDP ports, which cannot be verified: default/lookup-paris: test them with a client in a pod"},
		"UDP, and one is missing":       {exports: []*corev1.Service{lookup()}, want: Wanted{Mirrors: []string{"lookup-paris", "bar-paris"}}, err: "only UDP ports", awaited: "mirror bar-paris: no remote exports its Service"},
		"headless":                      {exports: []*corev1.Service{headless()}, err: "1 of 1 not reached; waiting does not help default/headless-paris"},
		"headless, and UDP":             {exports: []*corev1.Service{headless(), lookup()}, err: "1 of 2 not reached; waiting does not help default/headless-paris"},
		"headless, and another":         {exports: []*corev1.Service{headless(), bar}, outcome: verify.Outcome{Result: verify.Refused}, err: "3 of 3 not reached", awaited: "0 of 3 verified: 3 of 3 not reached: default/bar-paris; waiting does not help default/headless-paris"},
		"limited to named clusters":     {exports: []*corev1.Service{limited}, err: "; waiting does not help default/limited-paris"},
		"a name that is too long":       {exports: []*corev1.Service{long}, err: "; waiting does not help default/xxx"},
		"a namespace that may come":     {exports: []*corev1.Service{early}, err: "1 of 1 not reached", awaited: "soon/early-paris"},
		"a port that may be served":     {exports: []*corev1.Service{db}, err: "1 of 1 not reached", awaited: "default/db-paris"},
		"an address that may come":      {exports: []*corev1.Service{bar}, change: func(r *fakeRemote) { r.gateway = fixture.GatewayAt() }, err: "2 of 2 not reached", awaited: "default/bar-paris"},
		"an address that a flag denies": {exports: []*corev1.Service{bar}, change: func(r *fakeRemote) { r.gateway = fixture.GatewayAt(); r.gateway.Refused = true }, err: "2 of 2 not reached; waiting does not help default/bar-paris"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{Domain: "cluster.local"}, paris, func(w *world) {
				checks := verifying(w)
				checks.fails = map[string]verify.Outcome{"bar-paris": test.outcome, "udp ": {Result: verify.NotKnown, Lasting: true}}
				w.remotes["paris"].gateway = servingLookup()
				if test.change != nil {
					test.change(w.remotes["paris"])
				}
				for _, svc := range test.exports {
					w.remotes["paris"].export(svc)
				}
				w.standby = true
				w.settle()
				err := w.controller.Verify(w.Context(), nil, test.want, io.Discard)
				if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
					w.Errorf("the error is %v, want %q", err, test.err)
				}
				if got := Awaited(err); (got == "") != (test.awaited == "") || !strings.Contains(got, test.awaited) {
					w.Errorf("awaited is %q, want %q", got, test.awaited)
				}
			})
		})
	}
}

func TestAwaitedOfErrors(t *testing.T) {
	some := NotReached{Wrong: 3, Reached: 2, All: 5, Pending: []string{"shop/a", "shop/b"}}
	many := NotReached{Wrong: 5, All: 5, Pending: []string{"a", "b", "c", "d", "e"}}
	wrong := fmt.Errorf("remote paris: %w", remote.NewWrongCluster(errors.New("it is another cluster")))
	only := Unverifiable{[]string{"UDP"}, []string{"a", "b", "c", "d"}}
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("connection refused"), "connection refused"},
		{ErrNoMirror, ErrNoMirror.Error()},
		{some, "2 of 5 verified: 3 of 5 not reached: shop/a, shop/b"},
		{errors.Join(many), "0 of 5 verified: 5 of 5 not reached: a, b, c and 2 more"},
		{wrong, ""},
		{errors.Join(wrong, only), ""},
		{errors.Join(wrong, errors.New("remote berlin: connection refused"), only), "remote berlin: connection refused"},
		{errors.Join(errors.Join(wrong), some), "2 of 5 verified: 3 of 5 not reached: shop/a, shop/b"},
	} {
		if got := Awaited(test.err); got != test.want {
			t.Errorf("%v: got %q, want %q", test.err, got, test.want)
		}
	}
	if got, want := only.Error(), "only UDP ports, which cannot be verified: a, b, c and 1 more: test them with a client in a pod"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A line that refers to the problems of the remote has those of its gateway.
func TestProblemsOfTheGatewayAreExplained(t *testing.T) {
	run(t, Options{Domain: "cluster.local"}, paris, func(w *world) {
		verifying(w)
		w.remotes["paris"].gateway = fixture.GatewayAt()
		w.remotes["paris"].gateway.Refused = true
		w.remotes["paris"].problems = []remote.Problem{
			{Part: "gateway Service ingress/gateway", Cause: "address 192.0.2.1 is refused: --gateway-deny contains 192.0.2.0/24"}, {Part: "identity", Cause: "no"},
		}
		w.remotes["paris"].export(exportedBar())
		w.standby = true
		w.settle()
		var out strings.Builder
		w.controller.Verify(w.Context(), nil, Wanted{}, &out)
		want := "NoAddress: all addresses of the gateway are refused: see the problems of the remote: gateway Service ingress/gateway: address 192.0.2.1 is refused: --gateway-deny contains 192.0.2.0/24\n"
		if strings.Count(out.String(), want) != 2 || strings.Contains(out.String(), "identity") {
			w.Errorf("got\n%s\nwant %s", &out, want)
		}
	})
}
