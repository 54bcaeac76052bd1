//go:build compat

package main

import "testing"

// otherControllers are those whose programs take too long to build for every run of the tests.
var otherControllers = []controllerKind{published(skipperIngress), published(envoyGateway), byListenerSets(published(envoyGateway))}

// TestOtherControllers is TestTraffic's part with controllers, for these.
func TestOtherControllers(t *testing.T) {
	w, err := newWorld(worldDir, "paris")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.startDaemon(); err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, world: w}
	t.Cleanup(func() { s.logs() })
	s.controllersRun(otherControllers)
}
