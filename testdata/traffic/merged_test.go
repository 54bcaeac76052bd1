package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

const (
	mergedPeriod    = 500 * time.Millisecond
	mergedTimeout   = 500 * time.Millisecond
	mergedThreshold = 3
	// mergedLimit is how long errors may last once a gateway drops what comes: until that many probes, a period apart, have
	// timed out, and kube-proxy has followed. A machine that everything shares needs more than that.
	mergedLimit = mergedThreshold*(mergedPeriod+mergedTimeout) + 20*time.Second
)

// joined is the merged mirror bar of Paris and Berlin.
type joined struct {
	*called
	service *corev1.Service
}

// merged has Paris and Berlin serve one mirror, each as one of all and as the first, and Paris's gateway die under load
// and come back.
func (s *scene) merged() {
	s.install(s.world.paris, "nginx", parisAddresses)
	s.install(s.world.berlin, "nginx", []string{berlinAddress}, edit{"cluster.conf", "default paris;", "default berlin;"})
	s.Cleanup(func() {
		s.must(errors.Join(s.world.paris.silence(), s.world.startDaemon()))
		s.must(eventually("no merged mirror", func() error { return s.world.london.gone("bar") }))
		s.servesBoth()
		s.must(s.gateway.remove())
	})
	s.startMerged("all")
	j := s.joined()
	s.must(eventually("slices of both remotes, ready", func() error { return j.ready(true, true) }))
	j.bothAnswer()
	j.share()
	j.gatewayDies("all")
	j.gatewayComesBack("all")

	load := j.load()
	j.bothAnswer()
	s.startMerged("first")
	j.firstServes()
	j.none("the rule changed from all to first", j.ended(load, "paris", "berlin"))
	j.gatewayDies("first")
	j.gatewayComesBack("first")
}

// startMerged starts a daemon that merges by this rule.
func (s *scene) startMerged(rule string) {
	s.Helper()
	s.must(s.world.startDaemon("--merge="+rule, "--name-template={service}", "--endpoints-api=endpointslices",
		"--probe=tcp", "--probe-period="+mergedPeriod.String(), "--probe-timeout="+mergedTimeout.String(), fmt.Sprintf("--probe-threshold=%d", mergedThreshold)))
}

// joined waits for the merged mirror of both remotes.
func (s *scene) joined() *joined {
	s.Helper()
	var bar *corev1.Service
	s.must(eventually("a merged mirror", func() (err error) {
		bar, err = s.world.london.CoreV1().Services("default").Get(s.Context(), "bar", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if remotes := bar.Annotations["service-mirror.io/remotes"]; remotes != "paris=default/bar,berlin=default/bar" {
			return fmt.Errorf("its remotes are %q", remotes)
		}
		return nil
	}))
	return &joined{s.called(bar), bar}
}

// ready checks which of the remotes have a ready endpoint.
func (j *joined) ready(paris, berlin bool) error {
	return errors.Join(j.steps.is("bar.paris.ipv4", paris), j.steps.is("bar.berlin.ipv4", berlin))
}

// gatewayDies has Paris's gateway drop whatever comes: what it would have got fails, until its probe does.
func (j *joined) gatewayDies(rule string) {
	load := j.load()
	if rule == "all" {
		j.bothAnswer()
	} else {
		j.answeredBy("paris")
	}
	mark, err := j.world.london.Mark()
	j.must(err)
	begin := time.Now()
	j.must(j.world.paris.silence(parisAddresses...))
	j.must(eventually("Berlin alone serves", func() error {
		return errors.Join(j.ready(false, true), j.world.london.leadsNot(parisAddress), j.world.london.leads(berlinAddress))
	}))
	settled := time.Since(begin)
	j.answeredBy("berlin")
	result := j.ended(load, "paris", "berlin")
	down, err := j.steps.after(begin, "bar.paris.ipv4", false)
	j.must(err)
	failed := result.LastFailed.Sub(begin)
	j.Logf("--merge=%s, a probe each %v, %d failures: Paris's gateway died; its slice was not ready after %v, kube-proxy had followed after %v at the latest, the last request failed that began after %v; of %d, %d a second, %d failed, %v",
		rule, mergedPeriod, mergedThreshold, down.Sub(begin).Round(time.Millisecond), settled.Round(time.Millisecond), failed.Round(time.Millisecond),
		result.Sent, hurried, result.Failed, result.Backends)
	if result.Failed == 0 || failed > mergedLimit {
		j.Errorf("of %d requests %d failed, the last after %v, want some, for at most %v: %q", result.Sent, result.Failed, failed, mergedLimit, result.Errors)
	}
	if rule == "all" {
		j.wrote(mark, "bar.paris.")
	} else {
		j.wrote(mark, "bar.paris.", "bar.berlin.")
	}
}

// gatewayComesBack has no request notice that.
func (j *joined) gatewayComesBack(rule string) {
	load := j.load()
	j.answeredBy("berlin")
	begin := time.Now()
	j.must(j.world.paris.silence())
	if rule == "all" {
		j.must(eventually("slices of both remotes, ready", func() error { return j.ready(true, true) }))
		j.bothAnswer()
	} else {
		j.firstServes()
	}
	took := time.Since(begin)
	if rule == "all" {
		j.share()
	}
	result := j.ended(load, "paris", "berlin")
	j.Logf("--merge=%s: Paris's gateway came back, and served again after %v: answers %v", rule, took.Round(time.Millisecond), result.Backends)
	j.none("Paris's gateway came back", result)
}

// firstServes waits until Paris serves, and Berlin is on standby.
func (j *joined) firstServes() {
	j.Helper()
	j.must(eventually("Paris alone serves", func() error {
		return errors.Join(j.ready(true, false), j.world.london.leadsNot(berlinAddress), j.world.london.leads(parisAddress))
	}))
	j.answeredBy("paris")
}

// bothAnswer waits until both remotes have answered.
func (j *joined) bothAnswer() {
	j.Helper()
	left := map[string]bool{"bar of paris": true, "bar of berlin": true}
	j.must(eventually("answers of both", func() error {
		got, err := j.world.call(j.url...)
		if err != nil {
			return err
		}
		if delete(left, got.Backend); len(left) > 0 {
			return fmt.Errorf("no answer of %v", left)
		}
		return nil
	}))
}

// share has each remote, with one address of the family, answer half of the requests: within five standard deviations of
// what independent choices would give, a chance of less than one in a million.
func (j *joined) share() {
	j.Helper()
	const sent = 600
	got, err := j.counted(append([]string{"--rate", fmt.Sprint(hurried), "--count", fmt.Sprint(sent)}, j.url...))
	j.must(err)
	paris, berlin := got.Backends["bar of paris"], got.Backends["bar of berlin"]
	j.Logf("of %d requests, %d a second, Paris has answered %d (%.0f%%), Berlin %d, and %d failed", got.Sent, hurried, paris, 100*float64(paris)/sent, berlin, got.Failed)
	if got.Failed > 0 || paris+berlin != sent || math.Abs(float64(paris-sent/2)) > 5*math.Sqrt(sent)/2 {
		j.Errorf("not a half each: %+v", got)
	}
}

// wrote has the audit log say that since then the daemon has written of bar only slices with these prefixes, and that
// the Service is the one that it was.
func (j *joined) wrote(since harness.Mark, prefixes ...string) {
	j.Helper()
	daemon := harness.ServiceAccountUser("default", "service-mirror")
	writes, err := j.world.london.Requests(since, daemon, func(r harness.Request) bool {
		return r.User.Username == daemon && r.Writes() && (r.ObjectRef.Name == "bar" || strings.HasPrefix(r.ObjectRef.Name, "bar."))
	})
	j.must(err)
	written := map[string]bool{}
	for _, write := range writes {
		known := false
		for _, prefix := range prefixes {
			if write.ObjectRef.Resource == "endpointslices" && strings.HasPrefix(write.ObjectRef.Name, prefix) {
				known, written[prefix] = true, true
			}
		}
		if !known {
			j.Errorf("the daemon has written what did not change: %v", write)
		}
	}
	if len(written) != len(prefixes) {
		j.Errorf("the audit log has not a write of each of %q: %v", prefixes, writes)
	}
	now, err := j.world.london.CoreV1().Services("default").Get(j.Context(), "bar", metav1.GetOptions{})
	j.must(err)
	if now.UID != j.service.UID || now.Spec.ClusterIP != j.service.Spec.ClusterIP {
		j.Errorf("the Service is another one: it had UID %s and ClusterIP %s, and has %s and %s", j.service.UID, j.service.Spec.ClusterIP, now.UID, now.Spec.ClusterIP)
	}
}
