package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// verified is one line of what verify says.
type verified struct{ Mirror, Port, Address, Result, Answer, Remedy string }

func (v verified) String() string {
	return fmt.Sprintf("%s %s at %s: %s: %s: %s", v.Mirror, v.Port, v.Address, v.Result, v.Answer, v.Remedy)
}

// verifies runs verify in the daemon's pod, with the daemon's flags. It fails if anything is not reached.
func (s *scene) verifies(args ...string) (lines []verified, failed bool) {
	s.Helper()
	cmd := s.world.mirror.command(harness.Program(daemonName()), slices.Concat([]string{"verify", "-o", "json"}, args, s.world.daemonFlags())...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		s.Fatalf("verify %q: %v: %s", args, err, &stderr)
	}
	var got struct{ Results []verified }
	if jsonErr := json.Unmarshal(out, &got); jsonErr != nil {
		s.Fatalf("verify %q: %v, %v: %s%s", args, jsonErr, err, out, &stderr)
	}
	return got.Results, err != nil
}

// results compares what verify says of each port, at each address.
func (s *scene) results(want map[string]string, args ...string) (lines []verified) {
	s.Helper()
	var differs []string
	s.must(eventually(fmt.Sprintf("verify %q", args), func() error { // the gateway and its routes come about in their own time
		var failed bool
		lines, failed = s.verifies(args...)
		differs = nil
		seen := map[string]bool{}
		for _, line := range lines {
			key := strings.TrimSpace(line.Mirror + " " + line.Port)
			if wanted, ok := want[key]; ok && line.Result != wanted {
				differs = append(differs, fmt.Sprintf("%v, want %s", line, wanted))
			}
			seen[key] = true
		}
		for key := range want {
			if !seen[key] {
				differs = append(differs, key+" is missing")
			}
		}
		fine := !slices.ContainsFunc(slices.Collect(maps.Values(want)), func(result string) bool { return result != "reached" && result != "not known" })
		if failed == (fine && len(seen) == len(want)) {
			differs = append(differs, fmt.Sprintf("verify has failed: %t", failed))
		}
		if len(differs) > 0 {
			return errors.New(strings.Join(differs, "\n"))
		}
		return nil
	}))
	return lines
}

// says wants a line about a port to have these words.
func (s *scene) says(lines []verified, key, words string) {
	s.Helper()
	for _, line := range lines {
		if line.Mirror+" "+line.Port == key && strings.Contains(line.String(), words) {
			return
		}
	}
	s.Errorf("no line about %s has %q: %v", key, words, lines)
}

// verify has every outcome: reached, not routed, a certificate that clients do not trust, a dead address, and no
// backend, each told apart.
func (s *scene) verify(kind gatewayKind) {
	other := s.exportMore()
	ca := []string{"--ca-file", s.world.root.file("ca")}
	reached := map[string]string{
		"default/bar-paris http 80/TCP": "reached", "default/bar-paris https 443/TCP": "reached",
		"default/web-paris http 8080/TCP": "reached", "default/six-paris http 80/TCP": "reached", "default/hello-paris grpc 9090/TCP": "reached",
	}
	want := maps.Clone(reached)
	maps.Copy(want, map[string]string{
		"default/secure-paris tls-443 443/TCP": "reached",
		"default/gone-paris http 80/TCP":       "unavailable", "default/gone-paris grpc 9090/TCP": "unavailable",
		other + " http 80/TCP": "unavailable", other + " https 443/TCP": "certificate",
		"default/postgres-paris postgres 5432/TCP": "no endpoint", "default/lookup-paris lookup 5353/UDP": "no endpoint",
	})
	if kind.tcp {
		want["default/postgres-paris postgres 5432/TCP"] = "reached"
	}
	if kind.udp {
		want["default/lookup-paris lookup 5353/UDP"] = "not known"
	}
	lines := s.results(want, append(ca, "--remote", "paris")...)
	s.says(lines, other+" https 443/TCP", "the certificate is for *.default.svc.cluster.local, not for other-paris.team.svc.cluster.local: it is a wildcard for namespace default")
	if n := len(lines); n < 2*len(reached) {
		s.Errorf("there are %d lines: is each address of the gateway verified?", n)
	}
	s.results(map[string]string{"default/bar-paris http 80/TCP": "reached", "default/bar-paris https 443/TCP": "reached"}, append(ca, "default/bar-paris")...)
	lines = s.results(map[string]string{"default/bar-paris http 80/TCP": "reached", "default/bar-paris https 443/TCP": "certificate"}, "bar-paris.default")
	s.says(lines, "default/bar-paris https 443/TCP", "is signed by the untrusted CA")

	s.must(s.world.paris.silence(parisAddress))
	s.Cleanup(func() { s.must(s.world.paris.silence()) })
	lines, failed := s.verifies("default/web-paris")
	s.must(s.world.paris.silence())
	for _, line := range lines {
		if dead := strings.HasPrefix(line.Address, parisAddress+":"); dead != (line.Result == "timed out") || !dead && line.Result != "reached" {
			s.Errorf("one address is dead: %v", line)
		}
	}
	if !failed || len(lines) != 2 {
		s.Errorf("one address is dead: failed %t, %v", failed, lines)
	}
}

// notRouted has a gateway that knows no name of the mirrors.
func (s *scene) notRouted() {
	lines := s.results(map[string]string{
		"default/bar-paris http 80/TCP": "not routed", "default/bar-paris https 443/TCP": "not routed",
		"default/web-paris http 8080/TCP": "not routed", "default/hello-paris grpc 9090/TCP": "not routed",
	}, "--ca-file", s.world.root.file("ca"), "--remote", "paris")
	s.says(lines, "default/bar-paris http 80/TCP", "status 421: the gateway has no route for bar-paris.default.svc.cluster.local: configure the gateway to route")
}

// exportMore exports a Service without a backend, and one of another namespace, whose mirror is returned.
func (s *scene) exportMore() string {
	s.Helper()
	for _, c := range []*cluster{s.world.london, s.world.paris} {
		_, err := c.CoreV1().Namespaces().Create(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			s.must(err)
		}
	}
	for _, one := range []struct {
		namespace, name string
		ports           []corev1.ServicePort
	}{
		{"default", "gone", []corev1.ServicePort{port("http", 80, httpPort), port("grpc", 9090, grpcPort)}},
		{"team", "other", []corev1.ServicePort{port("http", 80, httpPort), port("https", 443, httpPort)}},
	} {
		s.must(s.world.paris.service(one.namespace, one.name, true, func(svc *corev1.Service) { svc.Spec.Ports = one.ports }))
		s.Cleanup(func() {
			s.must(s.world.paris.CoreV1().Services(one.namespace).Delete(background, one.name, metav1.DeleteOptions{}))
		})
	}
	return "team/other-paris"
}
