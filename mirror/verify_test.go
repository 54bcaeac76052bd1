package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/plan/fixture"
	"service-mirror.io/service-mirror/mirror/status"
)

// fakeChecks are the requests that a test's controller would send.
type fakeChecks struct {
	mu    sync.Mutex
	asked []string
	at    []time.Time
	fails map[string]verify.Outcome // by a part of what is asked for
}

func (f *fakeChecks) check(_ context.Context, t verify.Target) verify.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := fmt.Sprintf("%s %s:%d at %v", t.Class, t.Host, t.Port, t.Address)
	if t.Reserved {
		text += ", reserved"
	}
	f.asked, f.at = append(f.asked, text), append(f.at, time.Now())
	for part, outcome := range f.fails {
		if strings.Contains(text, part) {
			return outcome
		}
	}
	return verify.Outcome{Result: verify.Reached, Answer: "status 200", Latency: 3 * time.Millisecond}
}

func (f *fakeChecks) fail(part string, result verify.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = map[string]verify.Outcome{}
	if part != "" {
		f.fails[part] = verify.Outcome{Result: result, Answer: "what it answers", Remedy: "what to do"}
	}
}

func (f *fakeChecks) drain() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked, f.at = nil, nil
	return asked
}

func verifying(w *world) *fakeChecks {
	checks := &fakeChecks{}
	w.controller.verified.check = checks.check
	return checks
}

var everyTenMinutes = verify.Options{Period: 10 * time.Minute}

// What is dialled is what the mirror's endpoints are.
func TestCheckables(t *testing.T) {
	app := func(text string) *string { return &text }
	for _, test := range []struct {
		name   string
		change func(*corev1.Service)
		api    plan.EndpointsAPI
		want   []string
	}{
		{"http and https", func(*corev1.Service) {}, plan.UseEndpoints, []string{
			"http 80/TCP: http bar-paris.default.svc.london.local:80 at 192.0.2.1:8080", "https 443/TCP: https bar-paris.default.svc.london.local:443 at 192.0.2.1:8443"}},
		{"the same in slices", func(*corev1.Service) {}, plan.UseEndpointSlices, []string{
			"http 80/TCP: http bar-paris.default.svc.london.local:80 at 192.0.2.1:8080", "https 443/TCP: https bar-paris.default.svc.london.local:443 at 192.0.2.1:8443"}},
		{"a port that is not served", func(svc *corev1.Service) {
			svc.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "tcp-db", Port: 5432}}
		}, plan.UseEndpoints, []string{"http 80/TCP: http bar-paris.default.svc.london.local:80 at 192.0.2.1:8080", "tcp-db 5432/TCP: PortNotServed: port tcp-db (5432/TCP)"}},
		{"a reserved port", func(svc *corev1.Service) {
			svc.Annotations = map[string]string{"service-mirror.io/gateway-ports": "80=8443"}
			svc.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: app("kubernetes.io/h2c")}}
		}, plan.UseEndpoints, []string{"http 80/TCP: grpc bar-paris.default.svc.london.local:80 at 192.0.2.1:8443, reserved"}},
		{"refused", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone }, plan.UseEndpoints, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, Options{Policy: plan.Policy{EndpointsAPI: test.api}, Domain: "london.local"}, paris, func(w *world) {
				svc := exportedBar()
				test.change(svc)
				w.remotes["paris"].export(svc)
				w.settle()
				checks := &fakeChecks{}
				var got []string
				for _, p := range w.controller.wanted(Wanted{}) {
					for _, one := range checkables(p, w.controller.options.Domain) {
						text := one.None
						if text == "" {
							checks.check(w.Context(), one.Target)
							text = checks.drain()[0]
						}
						got = append(got, one.Port+": "+text)
					}
				}
				if len(got) != len(test.want) || !slices.EqualFunc(got, test.want, strings.HasPrefix) {
					w.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
				}
			})
		})
	}
}

func TestVerifyCommand(t *testing.T) {
	for _, test := range []struct {
		name  string
		want  Wanted
		fails string
		lines []string // the start of each
		err   string   // empty: none
	}{
		{"all", Wanted{}, "", []string{"Verified from here; pods may use another network.",
			"reached      default/bar-paris, port http 80/TCP, http to 192.0.2.1:8080, 3 ms: status 200", "reached      default/bar-paris, port https 443/TCP",
			"no endpoint  default/headless-paris: Headless: it is headless", "reached      default/web-paris, port http", "reached      default/web-paris, port https"}, "1 of 5 not reached"},
		{"one", Wanted{Mirrors: []string{"default/bar-paris"}}, "", []string{"Verified", "reached      default/bar-paris, port http 80", "reached      default/bar-paris, port https 443"}, ""},
		{"by name", Wanted{Mirrors: []string{"web-paris"}}, "", []string{"Verified", "reached      default/web-paris, port http 80", "reached      default/web-paris, port https 443"}, ""},
		{"as in DNS", Wanted{Mirrors: []string{"web-paris.default"}}, "", []string{"Verified", "reached", "reached"}, ""},
		{"one that does not exist", Wanted{Mirrors: []string{"no-paris"}}, "", []string{"Verified"}, "mirror no-paris: no remote exports its Service"},
		{"another remote's", Wanted{Remote: "berlin"}, "", []string{"Verified"}, "no mirrors to verify"},
		{"one fails", Wanted{Mirrors: []string{"bar-paris"}}, "https bar", []string{"Verified", "reached ",
			"not routed   default/bar-paris, port https 443/TCP, https to 192.0.2.1:8443: what it answers: what to do"}, "1 of 2 not reached"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, Options{Domain: "cluster.local"}, []string{"paris", "berlin"}, func(w *world) {
				checks := verifying(w)
				checks.fail(test.fails, verify.NotRouted)
				headless := named("default", "headless")
				headless.Spec.ClusterIP = corev1.ClusterIPNone
				for _, svc := range []*corev1.Service{exportedBar(), named("default", "web"), headless} {
					w.remotes["paris"].export(svc)
				}
				w.standby = true
				w.settle()
				var out bytes.Buffer
				test.want.From = "here"
				err := w.controller.Verify(w.Context(), nil, test.want, &out)
				if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
					w.Errorf("error %v, want %q", err, test.err)
				}
				lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
				if !slices.EqualFunc(lines, test.lines, strings.HasPrefix) {
					w.Errorf("got\n%s\nwant\n%s", &out, strings.Join(test.lines, "\n"))
				}
				w.expect() // nothing is written
			})
		})
	}
}

func TestVerifyCommandAsJSON(t *testing.T) {
	run(t, Options{Domain: "cluster.local"}, paris, func(w *world) {
		verifying(w).fail("https", verify.Certificate)
		w.remotes["paris"].export(exportedBar())
		w.standby = true
		w.settle()
		var out bytes.Buffer
		if err := w.controller.Verify(w.Context(), nil, Wanted{JSON: true, From: "here"}, &out); err == nil {
			w.Error("there is no error")
		}
		var got struct {
			From    string
			Results []verification
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := []verification{
			{Mirror: "default/bar-paris", Remote: "paris", Port: "http 80/TCP", Class: gateway.HTTP, Address: "192.0.2.1:8080", Result: verify.Reached, Answer: "status 200", Latency: 0.003},
			{Mirror: "default/bar-paris", Remote: "paris", Port: "https 443/TCP", Class: gateway.HTTPS, Address: "192.0.2.1:8443", Result: verify.Certificate, Answer: "what it answers", Remedy: "what to do"},
		}
		if got.From != "here" || fixture.Text(got.Results) != fixture.Text(want) {
			w.Errorf("got %s", &out)
		}
	})
}

// found is what the page shows of default/bar-paris: its state, its verification, and its reasons.
func found(w *world) string {
	for _, row := range w.controller.Overview().Mirrors {
		if row.Name == "bar-paris" {
			text := row.State + ", " + row.Verified
			for _, p := range row.Problems {
				text += ", " + p.Reason
			}
			return text
		}
	}
	return "no mirror"
}

func TestDaemonVerifies(t *testing.T) {
	events, recorder := recording(nil)
	run(t, Options{Events: events, Verify: everyTenMinutes, Domain: "cluster.local"}, paris, func(w *world) {
		checks := verifying(w)
		w.remotes["paris"].export(exportedBar())
		shows := func(want string) {
			w.Helper()
			if got := found(w); got != want {
				w.Errorf("the page has %q, want %q", got, want)
			}
		}
		w.settle()
		shows("mirrored, not verified")
		w.wait(time.Minute)
		shows("mirrored, reached")
		if got := checks.drain(); len(got) != 2 {
			w.Errorf("it was asked %q", got)
		}
		expectEvents(w.T, recorder)

		checks.fail("https", verify.TimedOut)
		w.wait(10 * time.Minute)
		shows("incomplete, timed out, NotReached")
		expectEvents(w.T, recorder, "Warning NotReached remote paris: timed out: gateway 192.0.2.1:8443: what it answers: what to do")
		w.wait(time.Hour)
		w.remotes["paris"].know(true) // syncs change nothing about it
		w.wait(time.Minute)
		shows("incomplete, timed out, NotReached")
		expectEvents(w.T, recorder)

		checks.fail("", "")
		w.wait(10 * time.Minute)
		shows("mirrored, reached")
		w.logged(1, "Mirror has a problem")
		w.logged(1, "Mirror no longer has this problem")

		checks.fail("https", verify.TimedOut)
		w.wait(10 * time.Minute)
		w.remotes["paris"].unexport(exportedBar())
		w.wait(20 * time.Minute)
		shows("no mirror")
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		shows("mirrored, not verified") // nothing of before is known of it
	})
}

// One failure is none: the next request, a second later, decides.
func TestOneFailedRequestIsNoFailure(t *testing.T) {
	run(t, Options{Verify: everyTenMinutes, Domain: "cluster.local"}, paris, func(w *world) {
		failed := map[string]bool{}
		var mu sync.Mutex
		w.controller.verified.check = func(_ context.Context, t verify.Target) verify.Outcome {
			mu.Lock()
			defer mu.Unlock()
			if !failed[t.Address.String()] {
				failed[t.Address.String()] = true
				return verify.Outcome{Result: verify.Refused, Remedy: "x"}
			}
			return verify.Outcome{Result: verify.Reached}
		}
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(11 * time.Minute)
		if got := found(w); got != "mirrored, reached" || len(failed) != 2 {
			w.Errorf("the page has %q, %d failed", got, len(failed))
		}
	})
}

// Requests are few and spread over the period, all mirrors get their turn, and a gateway that is slow holds up no
// other mirror.
func TestVerificationIsBounded(t *testing.T) {
	const mirrors = 100
	run(t, Options{Verify: verify.Options{Period: time.Minute}, Domain: "cluster.local"}, []string{"berlin", "paris"}, func(w *world) {
		checks := verifying(w)
		w.remotes["berlin"].export(named("default", "slow"))
		for i := range mirrors {
			w.remotes["paris"].export(named("default", fmt.Sprintf("s%d", i)))
		}
		w.controller.verified.check = func(ctx context.Context, t verify.Target) verify.Outcome {
			if strings.HasPrefix(t.Host, "slow") {
				<-ctx.Done()
				return verify.Outcome{Result: verify.TimedOut}
			}
			return checks.check(ctx, t)
		}
		w.settle()
		w.wait(10 * time.Second)
		checks.drain()
		w.wait((mirrors + 2) * verifyPace)
		seen, most, second := map[string]bool{}, map[time.Time]int{}, 0
		checks.mu.Lock()
		for i, text := range checks.asked {
			seen[strings.Fields(text)[1]] = true
			most[checks.at[i].Truncate(verifyPace)]++
		}
		checks.mu.Unlock()
		for _, n := range most {
			second = max(second, n)
		}
		if len(seen) != 2*mirrors || second > verifyPorts {
			w.Errorf("%d ports were verified, want %d; at most %d within %v", len(seen), 2*mirrors, second, verifyPace)
		}
	})
}

// A standby sends nothing, and what a leader has found goes with its leadership.
func TestStandbyDoesNotVerify(t *testing.T) {
	run(t, Options{Verify: everyTenMinutes, Domain: "cluster.local"}, paris, func(w *world) {
		checks := verifying(w)
		w.remotes["paris"].export(exportedBar())
		w.standby = true
		w.settle()
		w.wait(time.Hour)
		if got := checks.drain(); len(got) > 0 {
			w.Errorf("a standby has sent %q", got)
		}
		depose := w.lead()
		w.wait(time.Hour)
		if got := found(w); got != "mirrored, reached" {
			w.Errorf("the leader shows %q", got)
		}
		depose()
		if got := found(w); got != "mirrored, not verified" {
			w.Errorf("a standby shows %q", got)
		}
	})
}

// Without --verify nothing is sent, and the page does not say that all is healthy.
func TestNothingIsVerifiedByDefault(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		checks := verifying(w)
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(time.Hour)
		page := w.controller.Overview()
		if got := checks.drain(); len(got) > 0 || page.Verifying || found(w) != "mirrored, "+status.NotVerified {
			w.Errorf("sent %q, the page has %q", got, found(w))
		}
	})
}

// What was not reached is among what is verified next: else it would be over, and begin again, with each turn.
func TestFailedTargetKeepsItsTurn(t *testing.T) {
	run(t, Options{Verify: everyTenMinutes, Domain: "cluster.local"}, paris, func(w *world) {
		checks := verifying(w)
		checks.fail("at 192.0.2.7", verify.Refused)
		var addresses []string
		for i := range 9 {
			addresses = append(addresses, fmt.Sprintf("192.0.2.%d", i+1))
		}
		w.remotes["paris"].gateway = fixture.GatewayAt(addresses...)
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(2 * time.Hour)
		if got := found(w); got != "incomplete, refused, NotReached" {
			w.Fatalf("the page has %q", got)
		}
		w.wait(5 * time.Hour)
		w.logged(1, "Mirror has a problem")
	})
}

// What is found of a gateway that moves meanwhile is not what its mirrors have now.
func TestGatewayMovesWhileItIsVerified(t *testing.T) {
	run(t, Options{Verify: everyTenMinutes, Domain: "cluster.local"}, paris, func(w *world) {
		w.controller.verified.check = func(context.Context, verify.Target) verify.Outcome {
			time.Sleep(10 * time.Second)
			return verify.Outcome{Result: verify.TimedOut, Remedy: "x"}
		}
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(5 * time.Second) // it is under way
		w.remotes["paris"].setGateway(fixture.GatewayAt("192.0.2.9"))
		w.wait(time.Minute)
		if got := found(w); got != "mirrored, not verified" {
			w.Errorf("the page has %q", got)
		}
	})
}

// A check that is interrupted has an outcome, too: a connection that is closed, or an answer that never came. It is no result.
func TestInterruptedVerification(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // of two that are ready, select takes either
		outcome := make(chan verify.Outcome, 1)
		outcome <- verify.Outcome{Result: verify.Closed}
		if v := (verification{outcome: outcome}); v.await(ctx) == nil {
			t.Fatal("it counts")
		}
	}
}
