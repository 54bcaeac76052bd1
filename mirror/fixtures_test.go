package mirror

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/plan/fixture"
)

var (
	exportedBar  = fixture.ExportedBar
	named        = fixture.Named
	parisGateway = fixture.ParisGateway
	gatewayAt    = fixture.GatewayAt
	text         = fixture.Text
	huge         = fixture.Huge
)

const (
	ipv4 = corev1.IPv4Protocol
	ipv6 = corev1.IPv6Protocol
)

func parisBar() plan.Candidate {
	return plan.Candidate{Cluster: "paris", UID: "paris-uid", Service: exportedBar(), Gateway: parisGateway()}
}

// mirrorOfBar is the mirror of parisBar as it is first written.
func mirrorOfBar() plan.Objects {
	svc, endpoints := fixture.MirrorOfBar()
	return plan.Objects{Service: svc, Endpoints: endpoints}
}

// storedBar is the same as the API server returns it.
func storedBar() plan.Objects {
	svc, endpoints := fixture.Stored(fixture.MirrorOfBar())
	return plan.Objects{Service: svc, Endpoints: endpoints}
}

func checkObjects(t *testing.T, got, want plan.Objects) {
	t.Helper()
	if !equality.Semantic.DeepEqual(got.Service, want.Service) {
		t.Errorf("Service:\ngot  %s\nwant %s", text(got.Service), text(want.Service))
	}
	if !equality.Semantic.DeepEqual(got.Endpoints, want.Endpoints) {
		t.Errorf("Endpoints:\ngot  %s\nwant %s", text(got.Endpoints), text(want.Endpoints))
	}
}

// said are the addresses of a mirror's objects, in the form of gatewayAt.
func said(objects plan.Objects) (texts []string) {
	all := objects.Endpointed()
	for _, addr := range objects.Addresses() {
		if !all[netip.MustParseAddr(addr)] {
			addr += " dead"
		}
		texts = append(texts, addr)
	}
	return texts
}

func mustAddr(text string) netip.Addr { return netip.MustParseAddr(text) }

// generator makes objects as a cluster may have them.
type generator struct{ *rand.Rand }

func pickOne[T any](g generator, choices ...T) T { return choices[g.IntN(len(choices))] }

var defaulted = fixture.Defaulted
