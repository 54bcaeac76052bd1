package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files again")

const (
	linkerdAnnotation = "mirror.linkerd.io/gateway-identity"
	linkerdIdentity   = "linkerd-gateway.linkerd-multicluster.serviceaccount.identity.linkerd.cluster.local"
)

// identify makes the remote's gateway Linkerd's, or not.
func (r *remote) identify(identity string) {
	r.env.Helper()
	r.env.change(r.cluster, "gateway", func(svc *corev1.Service) {
		delete(svc.Annotations, linkerdAnnotation)
		if identity != "" {
			metav1.SetMetaDataAnnotation(&svc.ObjectMeta, linkerdAnnotation, identity)
		}
	})
}

// golden compares an object with a file, except for what a server sets and for the test's
// ID.
func (e *env) golden(file string, obj runtime.Object) {
	e.Helper()
	obj = obj.DeepCopyObject()
	meta := obj.(metav1.Object)
	meta.SetUID("")
	meta.SetResourceVersion("")
	meta.SetGeneration(0)
	meta.SetCreationTimestamp(metav1.Time{})
	meta.SetManagedFields(nil)
	if meta.GetGenerateName() != "" {
		meta.SetName("")
	}
	owners := meta.GetOwnerReferences()
	for i := range owners {
		owners[i].UID = ""
	}
	annotations := meta.GetAnnotations()
	delete(annotations, corev1.EndpointsLastChangeTriggerTime)
	if _, ok := annotations["service-mirror.io/cluster-uid"]; ok {
		annotations["service-mirror.io/cluster-uid"] = "UID"
	}
	if slice, ok := obj.(*discoveryv1.EndpointSlice); ok && meta.GetName() == "" { // the mirroring controller's, in any order
		slices.SortFunc(slice.Endpoints, func(a, b discoveryv1.Endpoint) int { return strings.Compare(a.Addresses[0], b.Addresses[0]) })
	}
	if svc, ok := obj.(*corev1.Service); ok {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "", nil
	}
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	e.must(err)
	obj.GetObjectKind().SetGroupVersionKind(kinds[0])
	got, err := yaml.Marshal(obj)
	e.must(err)
	got = regexp.MustCompile(`\b`+e.id+`\b`).ReplaceAll(got, []byte("ID"))
	path := filepath.Join("testdata", file)
	if *update {
		e.must(os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	e.must(err)
	if !bytes.Equal(got, want) {
		e.Errorf("%s (go test -update rewrites it):\n%s\nwant:\n%s", path, got, want)
	}
}

// oneSlice is the only EndpointSlice of a mirror.
func (r *remote) oneSlice(name string) *discoveryv1.EndpointSlice {
	r.env.Helper()
	list, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).List(r.env.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + r.mirror(name)})
	r.env.must(err)
	if len(list.Items) != 1 {
		r.env.Fatalf("%d EndpointSlices", len(list.Items))
	}
	return &list.Items[0]
}

// linkerdKeys are all keys of Linkerd's on any object of the test in the local
// cluster, each with its value.
func (e *env) linkerdKeys() []string {
	e.Helper()
	var objects []metav1.Object
	services, err := e.local.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for i := range services.Items {
		objects = append(objects, &services.Items[i])
	}
	endpoints, err := e.local.CoreV1().Endpoints(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for i := range endpoints.Items {
		objects = append(objects, &endpoints.Items[i])
	}
	list, err := e.local.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for i := range list.Items {
		objects = append(objects, &list.Items[i])
	}
	var keys []string
	for _, obj := range objects {
		for _, some := range []map[string]string{obj.GetLabels(), obj.GetAnnotations()} {
			for key, value := range some {
				if strings.Contains(key, "linkerd") {
					keys = append(keys, fmt.Sprintf("%T %s=%s", obj, strings.TrimPrefix(key, "mirror.linkerd.io/"), value))
				}
			}
		}
	}
	slices.Sort(keys)
	return keys
}

func (e *env) hasLinkerdKeys(want ...string) func() error {
	return func() error {
		if got := e.linkerdKeys(); !slices.Equal(got, want) {
			return fmt.Errorf("keys of Linkerd's: %q, want %q", got, want)
		}
		return nil
	}
}

// What Linkerd's proxies read of a mirror, to the letter.
func TestLinkerd(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"endpoints", "endpointslices"} {
		t.Run(api, func(t *testing.T) {
			e := newSlicesEnv(t)
			r := e.remote(paris)
			r.gateway("203.0.113.2", "203.0.113.1")
			r.identify(linkerdIdentity)
			h2c := "kubernetes.io/h2c"
			r.export("bar", func(svc *corev1.Service) {
				svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "grpc", Port: 9090, AppProtocol: &h2c})
			})
			d := e.daemon([]*remote{r}, "--endpoints-api", api)
			addresses := []string{"203.0.113.1", "203.0.113.2"}
			whole := r.slicesLead("bar", append(to("http:8080", addresses...), to("grpc:8080", addresses...)...)...)
			e.soon("the mirror", r.hasService("bar"), whole)
			e.golden("linkerd-service.yaml", e.service(r.mirror("bar")))
			if api == "endpoints" {
				e.golden("linkerd-endpoints.yaml", e.endpoints(r.mirror("bar")))
				e.golden("linkerd-mirrored-slice.yaml", r.oneSlice("bar"))
			} else {
				e.golden("linkerd-own-slice.yaml", r.oneSlice("bar"))
			}
			keys := func(identity, domain string) []string {
				kinds := []string{"*v1.Endpoints", "*v1.EndpointSlice"}
				if api != "endpoints" {
					kinds = kinds[1:]
				}
				var keys []string
				for _, kind := range kinds {
					keys = append(keys, kind+" cluster-name="+r.name,
						kind+" remote-gateway-identity="+identity, kind+" remote-svc-fq-name=bar."+e.id+".svc."+domain)
				}
				slices.Sort(keys)
				return keys
			}
			e.must(e.hasLinkerdKeys(keys(linkerdIdentity, "cluster.local")...)())

			since := london.mark(t)
			d.stop()
			d = e.daemon([]*remote{r}, "--endpoints-api", api)
			e.stays("the same over a restart", whole, e.hasLinkerdKeys(keys(linkerdIdentity, "cluster.local")...))
			e.noWrites(since)
			r.identify("other.identity")
			e.soon("another identity", e.hasLinkerdKeys(keys("other.identity", "cluster.local")...))
			d.stop()
			r.keys = ",cluster-domain=paris.internal"
			e.daemon([]*remote{r}, "--endpoints-api", api)
			e.soon("another domain", e.hasLinkerdKeys(keys("other.identity", "paris.internal")...))
			before := e.identities()
			r.identify("")
			e.soon("not Linkerd's any more", e.hasLinkerdKeys(), whole)
			e.sameIdentities(before)
		})
	}
}

func (r *remote) hasService(name string) func() error {
	return func() error {
		_, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		return err
	}
}

// If the gateway is not Linkerd's, nothing of Linkerd's is written or removed.
func TestNoLinkerd(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar", func(svc *corev1.Service) {
		svc.Labels["mirror.linkerd.io/exported"] = "true"
		svc.Annotations = map[string]string{"linkerd.io/inject": "enabled"}
	})
	e.daemon([]*remote{r})
	right := r.mirrored("bar", "203.0.113.1")
	e.soon("the mirror", right, r.slicesLead("bar", to("http:8080", "203.0.113.1")...))
	e.stays("nothing of Linkerd's", e.hasLinkerdKeys())
	endpoints := e.endpoints(r.mirror("bar"))
	endpoints.Annotations = map[string]string{"mirror.linkerd.io/remote-gateway-identity": "theirs", "mirror.linkerd.io/note": "theirs"}
	endpoints.Subsets[0].Addresses[0].IP = "192.0.2.1" // to be fixed
	_, err := london.CoreV1().Endpoints(e.id).Update(e.ctx, endpoints, metav1.UpdateOptions{})
	e.must(err)
	theirs := []string{
		"*v1.EndpointSlice note=theirs", "*v1.EndpointSlice remote-gateway-identity=theirs",
		"*v1.Endpoints note=theirs", "*v1.Endpoints remote-gateway-identity=theirs",
	}
	e.soon("theirs, copied by the mirroring controller, and the address fixed", e.hasLinkerdKeys(theirs...), right)
	e.stays("theirs", e.hasLinkerdKeys(theirs...), right)
}
