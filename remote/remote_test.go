package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
)

const (
	exportedLabel = "service-mirror.io/exported"
	selector      = exportedLabel + "=true"
)

// cluster is a remote cluster with default/bar exported and ingress/gateway.
type cluster struct {
	*fake.Clientset

	mu       sync.Mutex
	refuse   func(clienttesting.Action) error // set by refusing
	watchers []*watch.FakeWatcher
}

func newCluster(uid types.UID) *cluster {
	c := &cluster{Clientset: fake.NewSimpleClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid}},
		service("default", "bar"), gatewayService("192.0.2.1"))}
	c.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		err := c.refusal(action)
		return err != nil, nil, err
	})
	c.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		if err := c.refusal(action); err != nil {
			return true, nil, err
		}
		return false, nil, nil
	})
	return c
}

func (c *cluster) refusal(action clienttesting.Action) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse == nil {
		return nil
	}
	return c.refuse(action)
}

// refusing has the cluster answer some requests with an error; nil ends it.
func (c *cluster) refusing(refuse func(clienttesting.Action) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = refuse
}

// watched has the test end the watches of this cluster, in place of the fake.
func (c *cluster) watched() {
	c.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		w := watch.NewFakeWithChanSize(100, false)
		c.watchers = append(c.watchers, w)
		return true, w, nil
	})
}

func (c *cluster) endWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watchers {
		w.Stop()
	}
	c.watchers = nil
}

// everything, gatewayReads, exports and identity choose requests for refusing.
func everything(err error) func(clienttesting.Action) error {
	return func(clienttesting.Action) error { return err }
}

func gatewayReads(err error) func(clienttesting.Action) error {
	return func(action clienttesting.Action) error {
		if action.GetResource().Resource == "services" && action.GetNamespace() == "ingress" {
			return err
		}
		return nil
	}
}

func exports(err error) func(clienttesting.Action) error {
	return func(action clienttesting.Action) error {
		if action.GetResource().Resource == "services" && action.GetNamespace() == "" {
			return err
		}
		return nil
	}
}

func identity(err error) func(clienttesting.Action) error {
	return func(action clienttesting.Action) error {
		if action.GetResource().Resource == "namespaces" {
			return err
		}
		return nil
	}
}

var errForbidden = apierrors.NewForbidden(corev1.Resource("services"), "", errors.New("no"))

func service(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(namespace + "-" + name), ResourceVersion: "1", Labels: map[string]string{exportedLabel: "true"},
	}}
}

func gatewayService(ips ...string) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "gateway", UID: "gateway-uid", ResourceVersion: "1"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	for _, ip := range ips {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	return svc
}

// rig is a Remote with clusters behind its kubeconfig.
type rig struct {
	*testing.T
	*Remote
	clusters map[string]*cluster // by host
	path     string              // of the kubeconfig
	log      *logBuffer
	dns      onlyIPv4
	made     atomic.Pointer[time.Time] // when the latest connection was
	stop     func()                    // ends the remote and waits for it

	mu       sync.Mutex
	accept   func(types.UID) error
	changed  []string
	records  []string
	resynced int
}

// onlyIPv4 is a DNS server that fails every AAAA query and, until it is up, every other one.
type onlyIPv4 struct{ up atomic.Bool }

func (d *onlyIPv4) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if network != "ip4" || !d.up.Load() {
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
}

// connecting gives a test a Remote that runs inside a bubble of virtual time.
// Its kubeconfig points to a.example.com, unless start is false: then there is none.
func connecting(t *testing.T, spec Spec, start bool, test func(*rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, path: filepath.Join(dir, "config"), log: &logBuffer{}, clusters: map[string]*cluster{
			"https://a.example.com": newCluster("a-uid"), "https://b.example.com": newCluster("b-uid"),
		}}
		spec.Name, spec.Kubeconfig = "paris", r.path
		r.Remote = New(spec, Options{Selector: selector, Gateway: gateway.Options{Resolver: &r.dns, Refresh: 30 * time.Second, Probe: gateway.Probe{Kind: gateway.ProbeNone}}}, Hooks{
			Trim: func(svc *corev1.Service) *corev1.Service { return svc },
			Changed: func(_ string, before, after *corev1.Service) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.changed = append(r.changed, cache.MetaObjectToName(cmp.Or(after, before)).String())
			},
			RecordChanged: func(_ string, change RecordChange) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.records = append(r.records, fmt.Sprintf("%v: %s -> %s", change.Service, strings.Join(change.Had, " "), strings.Join(change.Has, " ")))
			},
			Resync: func(string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.resynced++
			},
			Accept: func(_ context.Context, _ Spec, uid types.UID) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.accept == nil {
					return nil
				}
				return r.accept(uid)
			},
		})
		r.newClient = func(cfg *rest.Config) (Client, error) {
			if c := r.clusters[cfg.Host]; c != nil {
				note(&r.made)
				return c, nil
			}
			return nil, errors.New("no such cluster")
		}
		if start {
			r.pointTo("a.example.com")
		}
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), r.log.logger()))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.Remote.Run(ctx)
		}()
		r.stop = func() {
			cancel()
			<-ended
		}
		defer r.stop()
		synctest.Wait()
		test(r)
	})
}

// through is what the flags say of a gateway Service.
func through() Spec {
	return Spec{Gateways: []gateway.Config{{Service: cache.NewObjectName("ingress", "gateway")}}}
}

// pointTo writes the kubeconfig.
func (r *rig) pointTo(host string) { write(r.T, r.path, kubeconfigFor(host, "token: secret")) }

func (r *rig) a() *cluster { return r.clusters["https://a.example.com"] }
func (r *rig) b() *cluster { return r.clusters["https://b.example.com"] }

func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) setAccept(accept func(types.UID) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accept = accept
}

func (r *rig) resyncs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.resynced
	r.resynced = 0
	return n
}

// recordsChanged are the changes of records since it was last called.
func (r *rig) recordsChanged() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := r.records
	r.records = nil
	return changed
}

// known wants the remote to be known: of which cluster, with which exports, and
// at which address; "" is an unknown gateway.
func (r *rig) known(uid types.UID, address string, exported ...string) {
	r.Helper()
	view, ok := r.View()
	if !ok {
		r.Fatalf("nothing is known of the remote; log:\n%s", r.log)
	}
	var keys []string
	for _, part := range view.Services {
		keys = append(keys, part.GetIndexer().ListKeys()...)
	}
	// The fake does not select.
	keys = slices.DeleteFunc(keys, func(key string) bool { return strings.HasPrefix(key, "ingress/") })
	slices.Sort(keys)
	if view.UID != uid || !slices.Equal(keys, exported) {
		r.Errorf("it is known as %q with %q, want %q with %q", view.UID, keys, uid, exported)
	}
	gw, err := view.Gateways.For(service("default", "bar"))
	switch {
	case err != nil:
		r.Error(err)
	case address == "" && gw != nil:
		r.Errorf("its gateway is known: %+v", gw)
	case address == "none" && (gw == nil || len(gw.Addresses) != 0):
		r.Errorf("its gateway is %+v, want one without addresses", gw)
	case address != "" && address != "none" &&
		(gw == nil || !slices.Equal(gw.Addresses, []gateway.Address{{Addr: netip.MustParseAddr(address), Health: gateway.NotProbed}})):
		r.Errorf("its gateway is %+v, want %s", gw, address)
	}
}

func (r *rig) unknown() {
	r.Helper()
	if view, ok := r.View(); ok {
		r.Errorf("it is known, as %q", view.UID)
	}
}

func (r *rig) logged(times int, text string) {
	r.Helper()
	if got := r.log.count(text); got != times {
		r.Errorf("%q is logged %d times, want %d:\n%s", text, got, times, r.log)
	}
}

func TestRemoteIsKnownOnceItsCacheIsFilled(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		if r.resyncs() == 0 {
			r.Error("no resync")
		}
		r.logged(0, "failing")
		for _, action := range r.a().Actions() {
			if list, ok := action.(clienttesting.ListActionImpl); ok {
				want := metav1.ListOptions{LabelSelector: selector}
				if list.Namespace == "ingress" {
					want = metav1.ListOptions{FieldSelector: "metadata.name=gateway"}
				}
				if got := list.ListOptions; got.LabelSelector != want.LabelSelector || got.FieldSelector != want.FieldSelector || got.ResourceVersion != "" {
					r.Errorf("list in %q: %+v", list.Namespace, got)
				}
			}
			if verb := action.GetVerb(); verb != "get" && verb != "list" && verb != "watch" {
				r.Errorf("it does %s %s", verb, action.GetResource().Resource)
			}
		}
	})
}

func TestChangesAreReportedByName(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(3 * time.Second)
		r.changed = nil
		if _, err := r.a().CoreV1().Services("default").Create(r.Context(), service("default", "foo"), metav1.CreateOptions{}); err != nil {
			r.Fatal(err)
		}
		if err := r.a().CoreV1().Services("default").Delete(r.Context(), "bar", metav1.DeleteOptions{}); err != nil {
			r.Fatal(err)
		}
		synctest.Wait()
		if want := []string{"default/foo", "default/bar"}; !slices.Equal(r.changed, want) {
			r.Errorf("got %q, want %q", r.changed, want)
		}
		r.known("a-uid", "192.0.2.1", "default/foo")
	})
}

// A gateway that may not be read holds nothing up for longer than its grace.
func TestGatewayThatMayNotBeRead(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.a().refusing(gatewayReads(errForbidden))
		r.pointTo("a.example.com")
		r.wait(reloadPeriod + 2*time.Second - time.Millisecond)
		r.unknown()
		r.wait(time.Millisecond)
		r.known("a-uid", "", "default/bar")
		r.wait(time.Hour)
		r.logged(1, `is failing" cluster="paris" part="watch of the gateway Service ingress/gateway"`)
		r.resyncs()
		r.a().refusing(nil)
		r.wait(4 * time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		if r.resyncs() == 0 {
			r.Error("no resync for the gateway")
		}
		r.logged(1, `recovered" cluster="paris" part="watch of the gateway Service ingress/gateway"`)
	})
}

func TestGatewayFollowsItsService(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(3 * time.Second)
		r.resyncs()
		services := r.a().CoreV1().Services("ingress")
		update := func(svc *corev1.Service) {
			r.Helper()
			if _, err := services.Update(r.Context(), svc, metav1.UpdateOptions{}); err != nil {
				r.Fatal(err)
			}
			synctest.Wait()
		}
		update(gatewayService("192.0.2.2"))
		r.known("a-uid", "192.0.2.2", "default/bar")
		if got := r.resyncs(); got != 1 {
			r.Errorf("%d resyncs, want one", got)
		}
		same := gatewayService("192.0.2.2", "192.0.2.2")
		same.Annotations = map[string]string{"a": "b"}
		update(same)
		if got := r.resyncs(); got != 0 {
			r.Errorf("%d resyncs for nothing", got)
		}
		if err := services.Delete(r.Context(), "gateway", metav1.DeleteOptions{}); err != nil {
			r.Fatal(err)
		}
		synctest.Wait()
		r.known("a-uid", "none", "default/bar")
		r.logged(1, "gateway Service ingress/gateway does not exist")
	})
}

func TestStaticGatewayIsNotRead(t *testing.T) {
	spec := Spec{Gateways: []gateway.Config{{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}, Port: "443"}}}
	connecting(t, spec, true, func(r *rig) {
		r.wait(time.Millisecond)
		r.known("a-uid", "192.0.2.9", "default/bar")
		for _, action := range r.a().Actions() {
			if action.GetResource().Resource == "services" && action.GetNamespace() != "" {
				r.Errorf("it does %s in %s", action.GetVerb(), action.GetNamespace())
			}
		}
	})
}

func TestRemoteThatIsDown(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.a().refusing(everything(errDown))
		r.pointTo("a.example.com")
		r.wait(time.Hour)
		r.unknown()
		r.logged(1, `mirrors are kept unchanged" cluster="paris" part="watch of exported Services"`)
		r.a().refusing(nil)
		r.wait(4 * time.Second) // never more than 3.6 s
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.logged(1, `recovered" cluster="paris" part="watch of exported Services"`)
	})
}

// An unknown list is no empty list.
func TestExportsThatMayNotBeRead(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.a().refusing(exports(errForbidden))
		r.pointTo("a.example.com")
		r.wait(time.Hour)
		r.unknown()
		if r.resyncs(); len(r.changed) != 0 {
			r.Errorf("changes %q", r.changed)
		}
	})
}

func TestWhatIsKnownStaysWhenTheRemoteGoesDown(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.a().watched()
		r.pointTo("a.example.com")
		r.wait(5 * time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.a().refusing(everything(errDown))
		r.a().endWatches()
		r.wait(time.Hour)
		r.known("a-uid", "192.0.2.1", "default/bar")
	})
}

func TestWrongClusterIsRefused(t *testing.T) {
	for _, refusal := range []error{errors.New("its UID cannot be read"), NewWrongCluster(errors.New("another cluster than before"))} {
		t.Run(refusal.Error(), func(t *testing.T) { testRefusal(t, refusal) })
	}
}

// testRefusal has a cluster refused, and accepted later.
func testRefusal(t *testing.T, refusal error) {
	connecting(t, through(), false, func(r *rig) {
		r.setAccept(func(uid types.UID) error {
			if uid != "a-uid" {
				r.Errorf("Accept is called with %q", uid)
			}
			return refusal
		})
		r.pointTo("a.example.com")
		r.wait(time.Hour)
		r.unknown()
		err := r.Unknown()
		_, wrong := errors.AsType[WrongCluster](err)
		if _, want := refusal.(WrongCluster); wrong != want || err == nil || !strings.Contains(err.Error(), refusal.Error()) {
			r.Errorf("%v is unknown because of %v, wrong cluster: %t", refusal, err, wrong)
		}
		r.logged(1, refusal.Error())
		for _, action := range r.a().Actions() {
			if action.GetResource().Resource == "services" {
				r.Fatalf("its Services are read before it is accepted")
			}
		}
		r.setAccept(nil)
		r.wait(6 * time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		if err := r.Unknown(); err != nil {
			r.Errorf("once it is accepted: %v", err)
		}
		if r.resyncs() == 0 {
			r.Error("no resync")
		}
	})
}

func TestClusterThatMayNotBeIdentified(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.a().refusing(identity(errForbidden))
		var uids []types.UID
		r.setAccept(func(uid types.UID) error { uids = append(uids, uid); return nil })
		r.pointTo("a.example.com")
		r.wait(5 * time.Second)
		r.known("", "192.0.2.1", "default/bar")
		if len(uids) == 0 || uids[0] != "" {
			r.Errorf("Accept is called with %q", uids)
		}
		r.logged(1, "cannot be detected")
	})
}

// uid=unverified is the operator's word, and no problem.
func TestClusterThatNeedNotBeIdentified(t *testing.T) {
	spec := through()
	spec.UID = Unverified
	connecting(t, spec, false, func(r *rig) {
		r.a().refusing(identity(errForbidden))
		r.pointTo("a.example.com")
		r.wait(5 * time.Second)
		r.known("", "192.0.2.1", "default/bar")
		if status := r.Status(); status.State != Up || len(status.Problems) > 0 {
			r.Errorf("it is %+v", status)
		}
		// What cannot be read for another reason is not known.
		r.a().refusing(identity(errDown))
		r.pointTo("b.example.com")
		r.b().refusing(identity(errDown))
		r.wait(time.Minute)
		r.known("", "192.0.2.1", "default/bar")
	})
}

// replace puts another cluster behind the address of a. It exports nothing.
func (r *rig) replace() {
	r.Helper()
	r.answers("b-uid")
	if err := r.a().Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), "default", "bar"); err != nil {
		r.Fatal(err)
	}
	r.a().endWatches()
}

// answers has the cluster behind the address of a have this UID.
func (r *rig) answers(uid types.UID) {
	r.Helper()
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid}}
	if err := r.a().Tracker().Update(corev1.SchemeGroupVersion.WithResource("namespaces"), system, ""); err != nil {
		r.Fatal(err)
	}
}

// late refuses to list exports for the first ten seconds of each connection.
func (r *rig) late(action clienttesting.Action) error {
	if time.Since(*r.made.Load()) < 10*time.Second {
		return exports(errDown)(action)
	}
	return nil
}

// not refuses one cluster.
func not(refused types.UID) func(types.UID) error {
	return func(uid types.UID) error {
		if uid == refused {
			return errors.New("not the one")
		}
		return nil
	}
}

// That it is another cluster is seen when the network connection is a new one.
func TestAnotherClusterBehindTheSameAddress(t *testing.T) {
	for name, test := range map[string]struct {
		accept  func(types.UID) error
		late    bool
		refused bool
	}{
		"refused":                  {accept: not("b-uid"), refused: true},
		"accepted":                 {},
		"accepted, and it is slow": {late: true},
	} {
		t.Run(name, func(t *testing.T) {
			connecting(t, through(), false, func(r *rig) {
				r.a().watched()
				r.pointTo("a.example.com")
				r.wait(5 * time.Second)
				r.known("a-uid", "192.0.2.1", "default/bar")
				r.setAccept(test.accept)
				if test.late {
					r.a().refusing(r.late)
				}
				r.replace()
				r.wait(time.Minute)
				if test.refused {
					r.unknown()
					return
				}
				r.known("b-uid", "192.0.2.1")
			})
		})
	}
}

// A cluster is known once it is listed. Until then, what is known of the one before is not taken for it, whatever was
// in between.
func TestAnotherClusterThatIsAcceptedLater(t *testing.T) {
	unreadable := identity(errForbidden)
	for name, test := range map[string]struct {
		first   types.UID // as which the one before is known
		refuse  func(clienttesting.Action) error
		between func(*rig)
	}{
		"it was refused": {"a-uid", nil, func(r *rig) {
			r.setAccept(not("b-uid"))
			r.replace()
			r.wait(time.Minute)
			r.unknown()
		}},
		"it was refused, and the one before could not be identified": {"", unreadable, func(r *rig) {
			r.setAccept(not("b-uid"))
			r.a().refusing(nil)
			r.replace()
			r.wait(time.Minute)
			r.unknown()
		}},
		"the one before could no longer be identified": {"a-uid", nil, func(r *rig) {
			r.a().refusing(unreadable)
			r.a().endWatches()
			r.wait(time.Minute)
			r.known("a-uid", "192.0.2.1", "default/bar")
			r.a().refusing(exports(errDown))
			r.replace()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := through()
			spec.UID = Unverified
			connecting(t, spec, false, func(r *rig) {
				r.a().watched()
				r.a().refusing(test.refuse)
				r.pointTo("a.example.com")
				r.wait(5 * time.Second)
				r.known(test.first, "192.0.2.1", "default/bar")
				test.between(r)
				r.a().refusing(exports(errDown))
				r.setAccept(nil)
				for n := range 600 {
					if n == 300 {
						r.a().refusing(nil)
					}
					r.wait(100 * time.Millisecond)
					if view, ok := r.View(); ok && view.UID == "b-uid" && view.Services.Get(cache.NewObjectName("default", "bar")) != nil {
						r.Fatal("what is known of the one before is taken for it")
					}
				}
				r.known("b-uid", "192.0.2.1")
			})
		})
	}
}

// A cluster in whose place another one answered for a while, which was refused, is still known.
func TestClusterThatIsBack(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.a().watched()
		r.pointTo("a.example.com")
		r.wait(5 * time.Second)
		r.setAccept(not("b-uid"))
		r.answers("b-uid")
		r.a().endWatches()
		r.wait(time.Minute)
		r.unknown()
		made := r.made.Load()
		r.answers("a-uid")
		r.resyncs()
		r.wait(4 * time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		if r.resyncs() == 0 {
			r.Error("no resync")
		}
		if r.made.Load() != made {
			r.Error("another connection was made")
		}
	})
}

func TestKubeconfigSwapKeepsTheOldConnectionUntilTheNewOneIsReady(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(5 * time.Second)
		r.b().refusing(everything(errDown))
		r.pointTo("b.example.com")
		r.wait(time.Hour)
		r.known("a-uid", "192.0.2.1", "default/bar")
		// The old one still follows its cluster.
		if _, err := r.a().CoreV1().Services("default").Create(r.Context(), service("default", "foo"), metav1.CreateOptions{}); err != nil {
			r.Fatal(err)
		}
		synctest.Wait()
		r.known("a-uid", "192.0.2.1", "default/bar", "default/foo")
		r.resyncs()
		r.b().refusing(nil)
		r.wait(6 * time.Second)
		r.known("b-uid", "192.0.2.1", "default/bar")
		if r.resyncs() == 0 {
			r.Error("no resync")
		}
		// The old one is closed.
		r.mu.Lock()
		r.changed = nil
		r.mu.Unlock()
		if err := r.a().CoreV1().Services("default").Delete(r.Context(), "foo", metav1.DeleteOptions{}); err != nil {
			r.Fatal(err)
		}
		before := len(r.a().Actions())
		r.wait(time.Hour)
		if after := len(r.a().Actions()); after != before || len(r.changed) != 0 {
			r.Errorf("the old cluster gets %d more requests, with changes %q", after-before, r.changed)
		}
	})
}

func TestKubeconfigSwappedTwice(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(5 * time.Second)
		r.b().refusing(everything(errDown))
		r.pointTo("b.example.com")
		r.wait(time.Minute)
		r.pointTo("a.example.com") // back, before the other one was ready
		r.wait(10 * time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		before := len(r.b().Actions())
		r.wait(time.Hour)
		if after := len(r.b().Actions()); after != before {
			r.Errorf("the one that was given up gets %d more requests", after-before)
		}
	})
}

func TestKubeconfigThatComesLate(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		r.wait(time.Hour)
		r.unknown()
		r.logged(1, `mirrors are kept unchanged" cluster="paris" part="kubeconfig"`)
		r.pointTo("a.example.com")
		r.wait(reloadPeriod + time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.logged(1, `recovered" cluster="paris" part="kubeconfig"`)
	})
}

func TestKubeconfigThatBreaks(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(5 * time.Second)
		write(r.T, r.path, "{")
		r.wait(time.Hour)
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.logged(1, `mirrors are kept unchanged" cluster="paris" part="kubeconfig"`)
		r.pointTo("a.example.com")
		r.wait(5 * time.Second)
		r.logged(1, `recovered" cluster="paris" part="kubeconfig"`)
		r.known("a-uid", "192.0.2.1", "default/bar")
	})
}

func TestKubeconfigThatMakesNoClient(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(5 * time.Second)
		r.pointTo("c.example.com")
		r.wait(time.Hour)
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.logged(1, `mirrors are kept unchanged" cluster="paris" part="kubeconfig"`)
		r.pointTo("b.example.com")
		r.wait(10 * time.Second)
		r.known("b-uid", "192.0.2.1", "default/bar")
	})
}

// The end of the program does not wait for the grace of a gateway, nor for a
// remote that is down.
func TestRemoteEndsAtOnce(t *testing.T) {
	for name, refuse := range map[string]func(clienttesting.Action) error{"in the grace": gatewayReads(errForbidden), "while it is down": everything(errDown)} {
		t.Run(name, func(t *testing.T) {
			connecting(t, through(), false, func(r *rig) {
				r.a().refusing(refuse)
				r.pointTo("a.example.com")
				r.wait(reloadPeriod + 100*time.Millisecond)
				start := time.Now()
				r.stop()
				if took := time.Since(start); took > 100*time.Millisecond {
					r.Errorf("it took %v", took)
				}
			})
		})
	}
}

// What a new connection knows counts from the moment at which it serves: a dry run must not take the
// moment before for a remote without exports.
func TestUnknownUntilServed(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.known("a-uid", "192.0.2.1", "default/bar")
		if err := r.Unknown(); err != nil {
			t.Error(err)
		}
		r.current.Store(nil) // as while only the newest connection knows it
		if err := r.Unknown(); err == nil {
			t.Error("the remote is known, and has no view")
		}
	})
}

// A gateway of which one family is known is known: some DNS servers never answer for the other one, and plan and
// prune must not wait for that.
func TestKnownByOneFamily(t *testing.T) {
	spec := through()
	spec.Gateways[0].Hostnames = []string{"gw.example.com"}
	connecting(t, spec, true, func(r *rig) {
		r.wait(time.Minute)
		if err := r.Unknown(); err == nil || !strings.Contains(err.Error(), "hostname gw.example.com: DNS lookup failed") {
			r.Errorf("while its hostname is not resolved, it is unknown because of %v", err)
		}
		r.dns.up.Store(true)
		r.wait(time.Minute)
		r.known("a-uid", "192.0.2.7", "default/bar")
		if err := r.Unknown(); err != nil {
			r.Errorf("it is unknown because of %v", err)
		}
	})
}
