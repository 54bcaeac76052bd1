package leader

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

func TestHolder(t *testing.T) {
	lease := func(identity string, renewed time.Duration) *coordinationv1.Lease {
		at, seconds := metav1.NewMicroTime(time.Now().Add(-renewed)), int32(15)
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "sm", Name: "lease"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &identity, RenewTime: &at, LeaseDurationSeconds: &seconds},
		}
	}
	own := New(Options{On: true, Duration: time.Minute}).Identity
	for name, test := range map[string]struct {
		lease     *coordinationv1.Lease
		pod, fail string
	}{
		"its own identity": {lease: lease("service-mirror-abc_"+own[strings.LastIndexByte(own, '_')+1:], time.Second), pod: "service-mirror-abc"},
		"a late renewal":   {lease: lease("a_b_c", 20*time.Second), pod: "a_b"},
		"expired":          {lease: lease("a_b", time.Hour), fail: "a_b has not renewed Lease sm/lease, which expired "},
		"released":         {lease: lease("", time.Second), fail: "no replica has Lease sm/lease"},
		"missing":          {lease: &coordinationv1.Lease{}, fail: "read Lease sm/lease: "},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Holder(t.Context(), fake.NewClientset(test.lease).CoordinationV1(), cache.NewObjectName("sm", "lease"))
			if test.fail != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.fail) {
					t.Errorf("got %v, want %s", err, test.fail)
				}
				return
			}
			if err != nil || got != cache.NewObjectName("sm", test.pod) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
