package plan

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/mirror/plan/fixture"
)

var (
	exportedBar  = fixture.ExportedBar
	parisGateway = fixture.ParisGateway
	gatewayAt    = fixture.GatewayAt
	text         = fixture.Text
	huge         = fixture.Huge
)

const (
	ipv4 = corev1.IPv4Protocol
	ipv6 = corev1.IPv6Protocol
)

func named(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func parisBar() Candidate {
	return Candidate{Cluster: "paris", UID: "paris-uid", Service: exportedBar(), Gateway: parisGateway()}
}

// mirrorOfBar is the pair that parisBar makes, as it is written first.
func mirrorOfBar() Objects {
	svc, endpoints := fixture.MirrorOfBar()
	return Objects{Service: svc, Endpoints: endpoints}
}

// storedBar is the same as the API server returns it.
func storedBar() Objects {
	svc, endpoints := fixture.Stored(fixture.MirrorOfBar())
	return Objects{Service: svc, Endpoints: endpoints}
}

func checkObjects(t *testing.T, got, want Objects) {
	t.Helper()
	if !equality.Semantic.DeepEqual(got.Service, want.Service) {
		t.Errorf("Service:\ngot  %s\nwant %s", text(got.Service), text(want.Service))
	}
	if !equality.Semantic.DeepEqual(got.Endpoints, want.Endpoints) {
		t.Errorf("Endpoints:\ngot  %s\nwant %s", text(got.Endpoints), text(want.Endpoints))
	}
}

// said is what a mirror's objects say of its addresses, as gatewayAt reads it.
func said(objects Objects) (texts []string) {
	all := objects.Endpointed()
	for _, addr := range objects.Addresses() {
		if !all[netip.MustParseAddr(addr)] {
			addr += " dead"
		}
		texts = append(texts, addr)
	}
	return texts
}

// Changes are the writes that turn live objects into desired ones.
type Changes struct{ Create, Update, Delete Objects }

func (c Changes) Empty() bool { return c == Changes{} }

// Diff compares as Decide does, without asking whose the objects are.
func Diff(live, desired Objects) (changes Changes) {
	for _, k := range allKinds {
		switch had, want := live.Get(k), desired.Get(k); {
		case want == nil:
			changes.Delete.Set(k, had)
		case had == nil:
			changes.Create.Set(k, want)
		case k.differs(had, want):
			changes.Update.Set(k, want)
		}
	}
	return changes
}
