package remote

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote/gatewayapi"
)

// apiCluster is a remote cluster that has the Gateway API.
type apiCluster struct {
	*cluster
	mu       sync.Mutex
	version  int
	gateways map[string]*gatewayapi.Gateway
	sets     map[string]*gatewayapi.ListenerSet
	refused  error // of ListenerSets
	listed   int   // ListenerSets
	changed  chan struct{}
}

// reader lists and watches what a function gives.
type reading[L runtime.Object] struct {
	c    *apiCluster
	list func() (L, error)
}

func (r reading[L]) List(context.Context, metav1.ListOptions) (L, error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return r.list()
}

// Watch ends at the next change, as a watch may at any time, so that all is listed again.
func (r reading[L]) Watch(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if _, err := r.list(); err != nil {
		return nil, err
	}
	w := watch.NewFake()
	changed := r.c.changed
	go func() {
		select {
		case <-ctx.Done():
		case <-changed:
			status := apierrors.NewResourceExpired("changed").Status()
			w.Error(&status)
		}
		w.Stop()
	}()
	return w, nil
}

func (c *apiCluster) Gateways(namespace string) Lister[*gatewayapi.GatewayList] {
	return reading[*gatewayapi.GatewayList]{c, func() (*gatewayapi.GatewayList, error) {
		list := &gatewayapi.GatewayList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(c.version)}}
		for _, g := range c.gateways {
			if g.Namespace == namespace {
				list.Items = append(list.Items, *g.DeepCopyObject().(*gatewayapi.Gateway))
			}
		}
		return list, nil
	}}
}

func (c *apiCluster) ListenerSets() Lister[*gatewayapi.ListenerSetList] {
	return reading[*gatewayapi.ListenerSetList]{c, func() (*gatewayapi.ListenerSetList, error) {
		c.listed++
		list := &gatewayapi.ListenerSetList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(c.version)}}
		for _, s := range c.sets {
			list.Items = append(list.Items, *s.DeepCopyObject().(*gatewayapi.ListenerSet))
		}
		return list, c.refused
	}}
}

// change changes the cluster.
func (c *apiCluster) change(edit func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	edit()
	c.version++
	for _, g := range c.gateways {
		g.ResourceVersion = strconv.Itoa(c.version)
	}
	for _, s := range c.sets {
		s.ResourceVersion = strconv.Itoa(c.version)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *apiCluster) setsListed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listed
}

func metaOf(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "-" + name), ResourceVersion: "1"}
}

// gatewayed runs a test with a remote whose gateway is the Gateway ingress/public.
func gatewayed(t *testing.T, test func(r *rig, c *apiCluster, public *gatewayapi.Gateway)) {
	spec := Spec{Gateways: []gateway.Config{{Service: cache.NewObjectName("ingress", "public"), API: true}}}
	connecting(t, spec, false, func(r *rig) {
		public := &gatewayapi.Gateway{ObjectMeta: metaOf("ingress", "public"), Spec: gatewayapi.GatewaySpec{Listeners: []gatewayapi.Listener{{Name: "web", Port: 80, Protocol: "HTTP"}}}}
		public.Status.Addresses = []gatewayapi.Address{{Value: "192.0.2.7"}}
		c := &apiCluster{cluster: r.a(), version: 1, changed: make(chan struct{}), gateways: map[string]*gatewayapi.Gateway{"public": public}, sets: map[string]*gatewayapi.ListenerSet{}}
		r.newClient = func(*rest.Config) (Client, error) { return c, nil }
		test(r, c, public)
	})
}

// listens wants the gateway's ports.
func (r *rig) listens(want ...int32) {
	r.Helper()
	view, _ := r.View()
	gw, err := view.Gateways.For(service("default", "bar"))
	if gw == nil || err != nil {
		r.Fatalf("the gateway is not known: %v; log:\n%s", err, r.log)
	}
	var got []int32
	for _, port := range gw.Ports {
		got = append(got, port.Port)
	}
	if !slices.Equal(got, want) {
		r.Errorf("it has ports %v, want %v; log:\n%s", got, want, r.log)
	}
}

func TestGatewayOfTheGatewayAPI(t *testing.T) {
	gatewayed(t, func(r *rig, c *apiCluster, public *gatewayapi.Gateway) {
		r.pointTo("a.example.com")
		r.wait(5 * time.Second)
		r.known("a-uid", "192.0.2.7", "default/bar")
		r.listens(80)
		if got := r.Status().Gateways[0]; got.Name != "gateway-api:ingress/public" || got.Problem != "" {
			t.Errorf("its status is %+v", got)
		}
		svc := service("default", "bar")
		svc.Annotations = map[string]string{gateway.Annotation: "gateway-api:ingress/public"}
		if view, _ := r.View(); view.Gateways.Known[cache.NewObjectName("ingress", "public")] == nil {
			t.Error("it has no name")
		} else if _, err := view.Gateways.For(svc); err != nil {
			t.Error(err)
		}
		c.change(func() {
			public.Status.Addresses[0].Value = "192.0.2.8"
			public.Spec.Listeners = append(public.Spec.Listeners, gatewayapi.Listener{Name: "pg", Port: 15000, Protocol: "TCP"})
			public.Status.Conditions = []metav1.Condition{{Type: "Programmed", Status: metav1.ConditionFalse, Reason: "Invalid"}}
		})
		r.wait(10 * time.Second)
		r.known("a-uid", "192.0.2.8", "default/bar")
		r.listens(80, 15000)
		r.logged(1, "Gateway ingress/public is not programmed (Invalid): check its status and its controller")
		c.change(func() { delete(c.gateways, "public") })
		r.wait(10 * time.Second)
		r.known("a-uid", "none", "default/bar")
		r.logged(1, "Gateway ingress/public does not exist")
		if c.setsListed() != 0 {
			t.Error("ListenerSets are read although no Gateway allows any")
		}
		for _, action := range r.a().Actions() {
			if action.GetResource().Resource == "services" && action.GetNamespace() == "ingress" {
				t.Errorf("it does %s in %s", action.GetVerb(), action.GetNamespace())
			}
		}
	})
}

// What a Gateway that allows ListenerSets has is not known before they are.
func TestListenerSets(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: gatewayapi.Group, Resource: "listenersets"}, "", errors.New("no"))
	absent := apierrors.NewNotFound(schema.GroupResource{Group: gatewayapi.Group, Resource: "listenersets"}, "")
	gatewayed(t, func(r *rig, c *apiCluster, public *gatewayapi.Gateway) {
		c.change(func() {
			public.Spec.AllowedListeners = &gatewayapi.AllowedListeners{Namespaces: &gatewayapi.AllowedNamespaces{From: "Same"}}
			c.sets["databases"] = &gatewayapi.ListenerSet{ObjectMeta: metaOf("ingress", "databases"),
				Spec:   gatewayapi.ListenerSetSpec{ParentRef: gatewayapi.ParentRef{Name: "public"}, Listeners: []gatewayapi.Listener{{Name: "pg", Port: 15000, Protocol: "TCP"}}},
				Status: gatewayapi.ListenerSetStatus{Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue}}}}
			c.refused = forbidden
		})
		r.pointTo("a.example.com")
		r.wait(time.Minute)
		r.known("a-uid", "", "default/bar")
		r.logged(1, `is failing" cluster="paris" part="watch of ListenerSets"`)
		c.change(func() { c.refused = nil })
		r.wait(10 * time.Second)
		r.listens(80, 15000)
		r.logged(1, `recovered" cluster="paris" part="watch of ListenerSets"`)
		c.change(func() { delete(c.sets, "databases") })
		r.wait(10 * time.Second)
		r.listens(80)
	})
	gatewayed(t, func(r *rig, c *apiCluster, public *gatewayapi.Gateway) {
		c.change(func() {
			public.Spec.AllowedListeners = &gatewayapi.AllowedListeners{Namespaces: &gatewayapi.AllowedNamespaces{From: "All"}}
			c.refused = absent
		})
		r.pointTo("a.example.com")
		r.wait(time.Minute)
		r.listens(80)
		r.logged(0, `part="watch of ListenerSets"`)
	})
}
