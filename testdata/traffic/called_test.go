package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hurried are the requests per second to a Service that is called.
const hurried = 200

// called is London's Service bar, which remotes serve as well: pods call it, and its slices are watched.
type called struct {
	*scene
	url   []string // what a pod of London calls: the ClusterIP, by the plain name
	steps *sliceSteps
}

// called has bar's slices watched until the test is over.
func (s *scene) called(bar *corev1.Service) *called {
	s.Helper()
	c := &called{scene: s, url: []string{"--network", "tcp4", "--to", bar.Spec.ClusterIP + ":80", "--timeout", "2s", "http://bar.default.svc.cluster.local/"}}
	c.watch()
	return c
}

// load has a pod call bar at a rate, until it is ended.
func (c *called) load() *load {
	c.Helper()
	l := c.startLoadOf(append([]string{"--rate", fmt.Sprint(hurried)}, c.url...)...)
	c.Cleanup(func() {
		l.stdin.Close()
		l.cmd.Wait()
	})
	return l
}

// ended is what came of a load that only these clusters may have answered.
func (c *called) ended(l *load, by ...string) tally {
	c.Helper()
	result, err := l.end()
	c.must(err)
	answered := 0
	for _, cluster := range by {
		answered += result.Backends["bar of "+cluster]
	}
	if result.Sent < 10 || answered+result.Failed != result.Sent {
		c.Errorf("not what was to be sent, and answered by %v: %+v", by, result)
	}
	return result
}

// answeredBy waits until a cluster's bar answers: several times in a row, and no other one does.
func (c *called) answeredBy(cluster string) {
	c.Helper()
	c.must(eventually("an answer of "+cluster, func() error {
		for range 5 {
			got, err := c.world.call(c.url...)
			if err != nil {
				return err
			}
			if got.Backend != "bar of "+cluster {
				return errors.New(got.Backend + " answers")
			}
		}
		return nil
	}))
}

// watch notes what becomes of bar's slices until the test is over.
func (c *called) watch() {
	c.Helper()
	ctx, cancel := context.WithCancel(background)
	events, err := c.world.london.DiscoveryV1().EndpointSlices("default").Watch(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=bar"})
	c.must(err)
	c.steps = &sliceSteps{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for event := range events.ResultChan() {
			if slice, ok := event.Object.(*discoveryv1.EndpointSlice); ok {
				c.steps.add(sliceStep{time.Now(), slice.Name, hasReady(slice)})
			}
		}
	})
	c.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func hasReady(slice *discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready })
}

// sliceStep is that a slice had a ready endpoint at a time, or had none.
type sliceStep struct {
	at    time.Time
	name  string
	ready bool
}

type sliceSteps struct {
	mu  sync.Mutex
	all []sliceStep
}

func (s *sliceSteps) add(step sliceStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, step)
}

// is checks what a slice was last.
func (s *sliceSteps) is(name string, ready bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range slices.Backward(s.all) {
		if step.name == name {
			if step.ready != ready {
				return fmt.Errorf("EndpointSlice %s has a ready endpoint: %t", name, step.ready)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no EndpointSlice %s", name)
}

// after is when a slice with such a name was first seen so after a time.
func (s *sliceSteps) after(begin time.Time, prefix string, ready bool) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range s.all {
		if step.at.After(begin) && strings.HasPrefix(step.name, prefix) && step.ready == ready {
			return step.at, nil
		}
	}
	return time.Time{}, fmt.Errorf("no EndpointSlice %s was seen with a ready endpoint: %t", prefix, ready)
}
