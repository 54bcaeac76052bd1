package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"service-mirror.io/service-mirror/gateway"
)

// validate says what an API server would not take of a mirror, as far as
// apimachinery knows its rules; the rest is about values that are written as they
// are in the exported Service, which an API server took.
func validate(objects Objects) (wrong []string) {
	for kind, obj := range map[string]metav1.Object{"Service": objects.Service, "Endpoints": objects.Endpoints} {
		for _, err := range apivalidation.ValidateObjectMetaAccessor(obj, true, apivalidation.NameIsDNS1035Label, field.NewPath(kind)) {
			// Since 1.34 a Service's name may begin with a digit; before, the API server says no.
			if err.Field != kind+".name" || len(validation.IsDNS1123Label(obj.GetName())) > 0 {
				wrong = append(wrong, err.Error())
			}
		}
		for _, err := range metav1validation.ValidateLabels(obj.GetLabels(), field.NewPath(kind)) {
			wrong = append(wrong, err.Error())
		}
	}
	for _, subset := range objects.Endpoints.Subsets {
		for _, port := range subset.Ports {
			for _, problem := range validation.IsValidPortNum(int(port.Port)) {
				wrong = append(wrong, fmt.Sprintf("port %d: %s", port.Port, problem))
			}
		}
		for _, addr := range append(subset.Addresses, subset.NotReadyAddresses...) {
			if _, err := netip.ParseAddr(addr.IP); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
	}
	return wrong
}

func TestMirrorOfAHugeService(t *testing.T) {
	policy := Policy{CopyLabels: []string{"team"}, CopyAnnotations: []string{"note"}}
	src := parisBar()
	src.Service = huge()
	if refusal := policy.Refuse(src); refusal != nil {
		t.Fatal(refusal)
	}
	src.Gateway = &gateway.Gateway{Port: "all", Ports: []corev1.ServicePort{{Name: "all", Port: 80}}}
	for n := range gateway.MaxAddresses {
		src.Gateway.Addresses = append(src.Gateway.Addresses, gateway.Address{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})})
	}
	trimmed := src
	trimmed.Service = policy.TrimExported(src.Service.DeepCopy())
	if held := trimmed.Service.Size(); held > 256<<10 {
		t.Errorf("%d bytes are held of it", held)
	}
	want, err := policy.Desired(trimmed, Objects{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := validate(want); len(wrong) > 0 {
		t.Errorf("%q", wrong)
	}
	if len(want.Service.Spec.Ports) != 900 || len(want.Endpoints.Subsets[0].Ports) != 900 || len(want.Endpoints.Subsets[0].Addresses) != gateway.MaxAddresses {
		t.Errorf("got %d ports, %d of the Endpoints", len(want.Service.Spec.Ports), len(want.Endpoints.Subsets[0].Ports))
	}
	// etcd takes 1.5 MiB.
	for _, size := range []int{want.Service.Size(), want.Endpoints.Size()} {
		if size > 1<<20 {
			t.Errorf("%d bytes", size)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("paris", "bar")
	f.Add("eu-paris", "api")
	f.Add("p", strings.Repeat("n", 61))
	f.Add("paris", strings.Repeat("n", 58))
	f.Add("paris", "1st")
	f.Add("-", "")
	f.Add("a/b", "x\x00y")
	f.Add("paris.", "bar.baz")
	f.Fuzz(func(t *testing.T, cluster, exported string) {
		naming, svc := Naming{Cluster: cluster}, named("default", exported)
		name, err := naming.Key(svc).Name, naming.validate(svc)
		problems := validation.IsDNS1123Label(name)
		if (err == nil) != (len(problems) == 0) {
			t.Errorf("Name(%q, %q) is %q, %v; but an API server says %q", cluster, exported, name, err, problems)
		}
		if err != nil && len(err.Error()) > 1000 && len(name) < 500 {
			t.Errorf("a message of %d characters", len(err.Error()))
		}
		if len(exported) == len(name)-len(cluster)-1 && !strings.HasPrefix(name, exported) {
			t.Errorf("%q of %q", name, exported)
		}
	})
}

// FuzzCopiedKeys: whatever a remote has as labels and annotations, and whatever keys
// the flags name, a mirror is ours, of that remote and source, and can be written.
func FuzzCopiedKeys(f *testing.F) {
	f.Add("team", "team", "blue")
	f.Add("a,b", "a", "")
	f.Add(ManagedByLabel, ManagedByLabel, "Helm")
	f.Add("x.service-mirror.io/y", ClusterLabel, "berlin")
	f.Add("x.io/y", RemoteServiceAnnotation, "kube-system/x")
	f.Add("team", "team", strings.Repeat("v", 63))
	f.Add("KUBERNETES.IO/x", "KUBERNETES.IO/x", "x")
	f.Add(stopTraffic[0], stopTraffic[0], "x")
	f.Fuzz(func(t *testing.T, flags, key, value string) {
		keys := strings.Split(flags, ",")
		if ValidateKeys(keys) != nil {
			return
		}
		labels := map[string]string{key: value}
		if len(metav1validation.ValidateLabels(labels, nil)) > 0 {
			return // the remote's own API server would not have taken it
		}
		policy := Policy{CopyLabels: keys, CopyAnnotations: keys}
		src := parisBar()
		src.Service.Labels, src.Service.Annotations = labels, map[string]string{key: value}
		src.Service = policy.TrimExported(src.Service)
		if policy.Refuse(src) != nil {
			return
		}
		want, _ := policy.Desired(src, Objects{}, nil, nil)
		if wrong := validate(want); len(wrong) > 0 {
			t.Errorf("%q", wrong)
		}
		mirror := mirrorOfBar()
		for name, got := range map[string][2]map[string]string{
			"labels":                {want.Service.Labels, mirror.Service.Labels},
			"annotations":           {want.Service.Annotations, mirror.Service.Annotations},
			"labels of Endpoints":   {want.Endpoints.Labels, mirror.Endpoints.Labels},
			"annotations of theirs": {want.Endpoints.Annotations, mirror.Endpoints.Annotations},
		} {
			for key, value := range got[1] {
				if got[0][key] != value {
					t.Errorf("%s: %s is %q", name, key, got[0][key])
				}
			}
			for key, value := range got[0] {
				if _, ours := got[1][key]; !ours && (labels[key] != value || key == stopTraffic[0] || key == stopTraffic[1]) {
					t.Errorf("%s: there is %s=%q", name, key, value)
				}
			}
		}
	})
}
