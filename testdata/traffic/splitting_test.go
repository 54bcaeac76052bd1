package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// londonAddress is what London's own gateway has. No request uses it: foo calls the gateway's ClusterIP.
const londonAddress = "198.51.100.1"

// splits has a gateway in London split traffic between there and one in Paris.
func splits(kind controllerKind) controllerKind {
	kind.splits = true
	return kind
}

// splitting has a gateway in London share requests between its own bar and Paris's, by the guide's objects: Paris's
// gateway has the publisher's route, which has the plain name.
func (s *scene) splitting() {
	const plain, public = "bar.default.svc.cluster.local", "bar.example.org"
	s.localBar()
	s.must(s.world.root.issue("london-gateway", "*.default.svc.cluster.local"))
	s.installControllerIn(s.world.london, traefikGatewayAPI, []string{londonAddress})
	to := []string{"--to", "gateway.gateway.svc.cluster.local:80"}
	route := s.guide("splitting/route.yaml")
	s.applyText(route)
	s.bothAnswer(append(to, "http://"+plain+"/"), plain)
	s.shares(append(to, "--count", "10000", "http://"+plain+"/"), 0.2)

	shifted := strings.NewReplacer("weight: 80", "weight: 0", "weight: 20", "weight: 100").Replace(route)
	s.applyText(shifted)
	s.must(eventually("weights of 0 and 100", func() error {
		got, err := s.counted(append(to, "--count", "20", "http://"+plain+"/"))
		if err == nil && got.Backends["bar of paris"] != 20 {
			err = fmt.Errorf("they are answered by %v", got.Backends)
		}
		return err
	}))
	s.shares(append(to, "--count", "1000", "http://"+plain+"/"), 1)

	s.applyText(s.guide("splitting/public.yaml"))
	s.bothAnswer(append(to, "http://"+public+"/"), plain)
}

// localBar has a bar in London, too, until the test is over.
func (s *scene) localBar() {
	s.Helper()
	c := s.world.london
	s.must(s.world.root.issue("london-secure", "bar.default.svc.cluster.local"))
	s.must(c.backend("bar", false, []corev1.ServicePort{port("http", 80, httpPort)}))
	s.Cleanup(func() {
		var now int64
		s.must(errors.Join(
			c.CoreV1().Services("default").Delete(background, "bar", metav1.DeleteOptions{}),
			c.CoreV1().Pods("default").Delete(background, "bar", metav1.DeleteOptions{GracePeriodSeconds: &now}),
			(&namespace{name: c.name + "-bar"}).remove(),
		))
	})
}

// guide is a file of deploy/guides.
func (s *scene) guide(file string) string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/guides", file))
	s.must(err)
	return string(text)
}

// applyText applies objects to London until the test is over.
func (s *scene) applyText(text string) {
	s.Helper()
	path := filepath.Join(s.TempDir(), "objects.yaml")
	s.must(os.WriteFile(path, []byte(text), 0o644))
	_, err := s.world.london.Kubectl(s.Context(), "apply", "-f", path)
	s.must(err)
	s.Cleanup(func() {
		_, err := s.world.london.Kubectl(background, "delete", "--ignore-not-found", "-f", path)
		s.must(err)
	})
}

// bothAnswer waits until both clusters have answered, each to this Host.
func (s *scene) bothAnswer(args []string, host string) {
	s.Helper()
	left := map[string]bool{"bar of london": true, "bar of paris": true}
	s.must(eventually(strings.Join(args, " "), func() error {
		got, err := s.world.call(args...)
		if err != nil {
			return err
		}
		if got.Host != host {
			s.Fatalf("%s has seen the Host %s, want %s", got.Backend, got.Host, host)
		}
		if delete(left, got.Backend); len(left) > 0 {
			return fmt.Errorf("no answer of %v", left)
		}
		return nil
	}))
}

// counted has foo make requests, and returns the count.
func (s *scene) counted(args []string) (result tally, err error) {
	self, err := os.Executable()
	if err != nil {
		return tally{}, err
	}
	out, err := s.world.foo.command(self, append([]string{"client", "--timeout", "30s"}, args...)...).Output()
	if err != nil {
		return tally{}, err
	}
	return result, json.Unmarshal(out, &result)
}

// shares has foo make requests, of which this share is Paris's: within five standard deviations of what independent
// choices would give, a chance of less than one in a million.
func (s *scene) shares(args []string, share float64) {
	s.Helper()
	got, err := s.counted(args)
	s.must(err)
	sent := float64(got.Sent)
	sigma := math.Sqrt(sent * share * (1 - share))
	paris, london := got.Backends["bar of paris"], got.Backends["bar of london"]
	s.Logf("of %d requests London has answered %d, Paris %d (%.2f%%, want %.0f%% within %.2f%%), and %d failed",
		got.Sent, london, paris, 100*float64(paris)/sent, 100*share, 100*5*sigma/sent, got.Failed)
	if got.Sent < 1000 || got.Failed > 0 || paris+london != got.Sent || math.Abs(float64(paris)-share*sent) > 5*sigma {
		s.Errorf("not the shares that were wanted: %+v", got)
	}
}
