package mirror

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/status"
)

// exportedOf is an exported Service with these ports.
func exportedOf(name string, ports ...corev1.ServicePort) *corev1.Service {
	svc := named("default", name)
	svc.Spec.Ports = ports
	return svc
}

var (
	httpPort = corev1.ServicePort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}
	grpcPort = corev1.ServicePort{Name: "grpc", Port: 50051, Protocol: corev1.ProtocolTCP}
	dbPort   = corev1.ServicePort{Name: "db", Port: 5432, Protocol: corev1.ProtocolTCP}
	apiPort  = corev1.ServicePort{Port: 3000, Protocol: corev1.ProtocolTCP}
)

// A gateway that gains or loses a port is logged as that, with what it does to how many mirrors.
func TestGatewayPortsAreLogged(t *testing.T) {
	with := func(ports ...corev1.ServicePort) *gateway.Gateway {
		gw := parisGateway()
		gw.Ports = append(gw.Ports, ports...)
		return gw
	}
	const changed = `"Gateway ports changed"`
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].setGateway(with())
		for _, svc := range []*corev1.Service{
			exportedOf("a", httpPort), exportedOf("b", grpcPort, httpPort), exportedOf("c", grpcPort, dbPort), exportedOf("d", dbPort),
		} {
			w.remotes["paris"].export(svc)
		}
		w.settle()
		w.logged(0, changed)
		step := func(gw *gateway.Gateway, want string) {
			t.Helper()
			before := w.log.count(changed)
			w.remotes["paris"].setGateway(gw)
			w.wait(time.Second)
			if want == "" {
				w.logged(before, changed)
				return
			}
			w.logged(before+1, changed)
			w.logged(1, changed+` cluster="paris" gateway="" `+want)
		}
		step(with(grpcPort), `gained="grpc (50051/TCP)" lost="none" mirrorsGaining=2 mirrorsLosing=0 mirrorsMoving=0`)
		step(with(grpcPort), "")
		step(with(grpcPort, corev1.ServicePort{Name: "http-main", Port: 80}), `gained="http-main (80/TCP)" lost="none" mirrorsGaining=0 mirrorsLosing=0 mirrorsMoving=0`)
		main := corev1.ServicePort{Name: "main", Port: 80}
		step(with(main), `gained="main (80/TCP)" lost="grpc (50051/TCP), http-main (80/TCP)" mirrorsGaining=0 mirrorsLosing=2 mirrorsMoving=0`)
		step(nil, "") // not known: what was known stays
		gone := with()
		gone.Ports = []corev1.ServicePort{main}
		step(gone, `gained="none" lost="http (8080/TCP), https (8443/TCP)" mirrorsGaining=0 mirrorsLosing=0 mirrorsMoving=2`)
		gone = with()
		gone.Ports = nil
		step(gone, `gained="none" lost="main (80/TCP)" mirrorsGaining=0 mirrorsLosing=2 mirrorsMoving=0`)
	})
}

// The mapping, and the line that matched, are in the overview and in the dry run.
func TestMappingIsShown(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		odd := exportedOf("odd", httpPort, apiPort, dbPort)
		headless := exportedOf("headless", httpPort)
		headless.Spec.ClusterIP = corev1.ClusterIPNone
		w.remotes["paris"].export(odd)
		w.remotes["paris"].export(headless)
		w.settle()
		want := []status.Mapping{
			{Name: "http", Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 8080, Line: "same class (http)"},
			{Port: 3000, Protocol: "TCP", Class: "unknown", GatewayPort: 8080, Line: "assumed HTTP"},
			{Name: "db", Port: 5432, Protocol: "TCP", Class: "tcp"},
		}
		for _, row := range w.controller.Overview().Mirrors {
			if row.Name == "odd-paris" && !reflect.DeepEqual(row.Mapping, want) || row.Name == "headless-paris" && len(row.Mapping) > 0 {
				w.Errorf("%s: got %+v", row.Name, row.Mapping)
			}
		}
		w.logged(1, `served ports: 80 -> 8080 (same class (http)), 3000 -> 8080 (assumed HTTP)`)
		var out bytes.Buffer
		for _, p := range w.controller.Plans() {
			printPlan(&out, p, "london")
		}
		const line = "ports of mirror default/odd-paris in london for remote paris: 80 -> 8080 (same class (http)), 3000 -> 8080 (assumed HTTP), 5432 -> none\n"
		if !bytes.Contains(out.Bytes(), []byte(line)) {
			w.Errorf("the dry run prints\n%s\nwant the line\n%s", &out, line)
		}

		odd.Annotations[gateway.SelectAnnotation] = "http"
		w.remotes["paris"].export(odd)
		w.wait(time.Second)
		if got := w.server.service("default", "odd-paris").Spec.Ports; len(got) != 1 || got[0].Name != "http" {
			w.Errorf("the mirror has ports %s", text(got))
		}
		for _, row := range w.controller.Overview().Mirrors {
			if row.Name == "odd-paris" && (row.State != status.Mirrored || !reflect.DeepEqual(row.Mapping, want[:1]) || !reflect.DeepEqual(row.Ports, []string{"80/TCP"})) {
				w.Errorf("one port is selected: got %+v", row)
			}
		}
		w.remotes["paris"].setGateway(nil)
		for _, row := range w.controller.Overview().Mirrors {
			if len(row.Mapping) > 0 {
				w.Errorf("nothing is known of the gateway: got %+v", row.Mapping)
			}
		}
	})
}
