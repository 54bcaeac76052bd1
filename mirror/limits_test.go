package mirror

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// huge is an exported Service as large as an API server accepts.
func huge() *corev1.Service {
	svc := named("default", strings.Repeat("n", 57)) // with -paris 63 characters
	for n := range 24 {
		svc.Annotations[fmt.Sprintf("example.com/%d", n)] = strings.Repeat("a", 64<<10)
	}
	label := strings.Repeat("l", 63)
	svc.Labels[strings.Repeat("d", 63)+".example/"+label], svc.Labels["team"] = label, label
	svc.Spec.Ports = nil
	for n := range 900 {
		name := fmt.Sprintf("p%d-%s", n, strings.Repeat("x", 63))[:63]
		app := "example.com/" + label
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: name, Port: int32(1000 + n), Protocol: corev1.ProtocolTCP, AppProtocol: &app})
	}
	return svc
}

func TestHugeServiceCostsTheOthersNothing(t *testing.T) {
	run(t, Options{Policy: Policy{CopyAnnotations: []string{"note"}}}, paris, func(w *world) {
		for n := range 50 {
			one := huge()
			one.Name = fmt.Sprintf("huge-%d", n)
			w.remotes["paris"].export(one)
		}
		w.remotes["paris"].export(exportedBar())
		w.settle()
		if n := mirrors(w); n != 51 || w.pair().Service == nil {
			w.Errorf("%d mirrors, want 51", n)
		}
		w.server.wrote()
		w.remotes["paris"].know(true)
		w.settle()
		w.expect()
	})
}
