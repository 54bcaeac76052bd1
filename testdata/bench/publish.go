package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/testdata/harness"
)

// publisher is the ServiceAccount of deploy/publish.
var publisher = harness.ServiceAccountUser(harness.PublisherAccount.Namespace, harness.PublisherAccount.Name)

var routesResource = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}

// gatewayAPI are its kinds that such a cluster serves.
var gatewayAPI = []string{"gatewayclasses", "gateways", "httproutes", "tlsroutes", "tcproutes", "udproutes"}

// publishing is a cluster with a Gateway and exported Services, and the kubeconfig of the publisher's ServiceAccount.
type publishing struct {
	*cluster
	account string
}

// newPublishing starts such a cluster, in which nothing else is under way any more.
func (b *bench) newPublishing(ctx context.Context, exports int) (*publishing, error) {
	c, err := b.start("exports")
	if err != nil {
		return nil, err
	}
	p := &publishing{cluster: c}
	if err := b.fillPublishing(ctx, p, exports); err != nil {
		c.stop()
		return nil, err
	}
	return p, nil
}

func (b *bench) fillPublishing(ctx context.Context, p *publishing, exports int) (err error) {
	if err := p.ApplyGatewayAPI(ctx, "../gatewayapi", gatewayAPI...); err != nil {
		return err
	}
	p.account = filepath.Join(p.Dir, "publish.kubeconfig")
	if err := p.InstallPublisher(ctx, harness.Publisher{From: b.deploy + "/publish", Gateway: "gateway/gateway"}, p.account); err != nil {
		return err
	}
	if err := p.namespaces(ctx, append(b.namespaces(), "gateway")); err != nil {
		return err
	}
	if err := p.apply(ctx, b.deploy+"/gateways/gateway-api"); err != nil {
		return err
	}
	if err := p.readRoutes(ctx); err != nil {
		return err
	}
	if err := inParallel(64, exports, func(i int) error {
		svc := b.service(i)
		svc.Labels["service-mirror.io/exported"] = "true"
		_, err := p.CoreV1().Services(svc.Namespace).Create(ctx, svc, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	return harness.Eventually(10*time.Minute, "the controllers have followed, and the publisher may write", func() error {
		return errors.Join(p.followed(ctx, exports), p.mayPublish(ctx))
	})
}

// readRoutes reads each kind of the Gateway API, as its implementation does in a real cluster: the first who reads a kind of a
// CustomResourceDefinition has the API server fill its cache of it, and is refused until it has.
func (p *publishing) readRoutes(ctx context.Context) error {
	client, err := dynamic.NewForConfig(p.Config)
	if err != nil {
		return err
	}
	return inParallel(len(gatewayAPI), len(gatewayAPI), func(i int) error {
		watch, err := client.Resource(routesResource.GroupVersion().WithResource(gatewayAPI[i])).Watch(ctx, metav1.ListOptions{}) // retries
		if err == nil {
			watch.Stop()
		}
		return err
	})
}

// followed tells whether Kubernetes' own controllers have done what they do for that many Services.
func (p *publishing) followed(ctx context.Context, exports int) error {
	options := metav1.ListOptions{LabelSelector: "app=bench"}
	endpoints, err := p.CoreV1().Endpoints(metav1.NamespaceAll).List(ctx, options)
	if err != nil {
		return err
	}
	slices, err := p.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, options)
	if err != nil {
		return err
	}
	if len(endpoints.Items) < exports || len(slices.Items) < exports {
		return fmt.Errorf("%d Endpoints and %d EndpointSlices of %d", len(endpoints.Items), len(slices.Items), exports)
	}
	return nil
}

// mayPublish tells whether the ServiceAccount's permissions count.
func (p *publishing) mayPublish(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", p.account)
	if err != nil {
		return err
	}
	client, err := connect(config)
	if err != nil {
		return err
	}
	for _, what := range []authorizationv1.ResourceAttributes{
		{Namespace: "shop-0", Verb: "create", Group: routesResource.Group, Resource: routesResource.Resource},
		{Namespace: "service-mirror", Verb: "create", Resource: "configmaps"},
	} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &what}}
		answer, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if !answer.Status.Allowed {
			return fmt.Errorf("it may not create %s yet", what.Resource)
		}
	}
	return nil
}

// publish starts the publisher as the Deployment does, but for the election.
func (b *bench) publish(p *publishing, more ...string) (*daemon, error) {
	address, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	args := []string{"publish", "--kubeconfig", p.account, "--listen", address, "--name=paris", "--to=gateway-api", "--gateway=gateway/gateway",
		"--record-namespace=service-mirror"}
	return b.process(address, b.program, append(args, more...)...)
}

// published waits until a route and a record of each export are written, and tells the writes.
func (p *publishing) published(ctx context.Context, since harness.Mark, exports int) ([]request, error) {
	for _, resource := range []string{routesResource.Resource, "configmaps"} {
		if err := p.logged(ctx, since, exports, logged{publisher, "create", resource}); err != nil {
			return nil, err
		}
	}
	all, err := p.writesBy(since, publisher)
	if err == nil && len(all) != 2*exports {
		err = fmt.Errorf("%d exports took %s", exports, summary(all))
	}
	return all, err
}

// publishCold compares the publisher's first minutes with a bare loop of the same creates, each in a new cluster.
func (b *bench) publishCold(ctx context.Context) error {
	for i, n := range b.sizes {
		if i > 0 && i < len(b.sizes)-1 {
			continue // the smallest and the largest
		}
		file := filepath.Join(b.dir, fmt.Sprintf("published-%d.json", n))
		var starts, writing []time.Duration // until the first write, and from then on
		ours := func() (time.Duration, error) {
			start, took, err := b.publishOnce(ctx, n, file)
			starts, writing = append(starts, start), append(writing, took-start)
			return took, err
		}
		if i == 0 { // warms the machine
			if _, err := ours(); err != nil {
				return err
			}
			starts, writing = nil, nil
		}
		times, bare, err := b.alternate(b.runsOf(n), ours, func() (time.Duration, error) { return b.publishBare(ctx, n, file) })
		if err != nil {
			return err
		}
		r := compare(fmt.Sprintf("publisher: cold start, %d exports", n), n, 1.10, bareLoop, times, bare)
		r.Measured += fmt.Sprintf("; its first write comes after %.2f s, and from there on it takes %.2f ×", median(starts).Seconds(), median(writing).Seconds()/median(bare).Seconds())
		if err := b.note(r); err != nil {
			return err
		}
	}
	return nil
}

// publishOnce is from the start of the publisher to its first write, and to the answer to its last one. It leaves what was
// written in a file.
func (b *bench) publishOnce(ctx context.Context, n int, file string) (start, took time.Duration, err error) {
	p, err := b.newPublishing(ctx, n)
	if err != nil {
		return 0, 0, err
	}
	defer p.stop()
	since, err := p.Mark()
	if err != nil {
		return 0, 0, err
	}
	d, err := b.publish(p)
	if err != nil {
		return 0, 0, err
	}
	defer d.stop()
	all, err := p.published(ctx, since, n)
	if err != nil {
		return 0, 0, err
	}
	if _, err := os.Stat(file); err != nil {
		if err := p.dump(ctx, file); err != nil {
			return 0, 0, err
		}
	}
	first, last := span(all)
	return first.Sub(d.started), last.Sub(d.started), nil
}

// publishBare is how long the bare loop takes to create what is in the file.
func (b *bench) publishBare(ctx context.Context, n int, file string) (time.Duration, error) {
	p, err := b.newPublishing(ctx, n)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	if err := p.adopt(ctx, file); err != nil {
		return 0, err
	}
	since, err := p.Mark()
	if err != nil {
		return 0, err
	}
	loop, err := b.bare("publish", "--kubeconfig", p.account, "--objects", file)
	if err != nil {
		return 0, err
	}
	if err := loop.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(loop.log)
		return 0, fmt.Errorf("bare loop: %w: %s", err, text)
	}
	all, err := p.published(ctx, since, n)
	if err != nil {
		return 0, err
	}
	first, last := span(all)
	return last.Sub(first), nil
}

// publishedObjects are those of one export.
type publishedObjects struct {
	Route  *unstructured.Unstructured
	Record *corev1.ConfigMap
}

func (p *publishing) routes(ctx context.Context) ([]unstructured.Unstructured, error) {
	client, err := dynamic.NewForConfig(p.Config)
	if err != nil {
		return nil, err
	}
	list, err := client.Resource(routesResource).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// dump writes the routes and records to a file, as they were before the server added to them.
func (p *publishing) dump(ctx context.Context, file string) error {
	routes, err := p.routes(ctx)
	if err != nil {
		return err
	}
	records, err := p.CoreV1().ConfigMaps("service-mirror").List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return err
	}
	byName := map[string]*corev1.ConfigMap{}
	for i := range records.Items {
		one := &records.Items[i]
		one.ObjectMeta = bareMeta(one.ObjectMeta)
		byName[one.Name] = one
	}
	var all []publishedObjects
	for i := range routes {
		route := &routes[i]
		meta := map[string]any{"namespace": route.GetNamespace(), "name": route.GetName()}
		for _, field := range []string{"labels", "annotations", "ownerReferences"} {
			meta[field], _, _ = unstructured.NestedFieldNoCopy(route.Object, "metadata", field)
		}
		route.Object["metadata"] = meta
		delete(route.Object, "status")
		all = append(all, publishedObjects{route, byName[route.GetNamespace()+"."+route.GetLabels()["service-mirror.io/service"]]})
	}
	return writeJSON(file, all)
}

// adopt has the routes in a file owned by the Services of this cluster: else they would be garbage to it.
func (p *publishing) adopt(ctx context.Context, file string) error {
	all, err := readPublished(file)
	if err != nil {
		return err
	}
	services, err := p.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: "app=bench"})
	if err != nil {
		return err
	}
	uids := map[string]types.UID{}
	for _, svc := range services.Items {
		uids[svc.Namespace+"/"+svc.Name] = svc.UID
	}
	for _, one := range all {
		owners := one.Route.GetOwnerReferences()
		for i := range owners {
			owners[i].UID = uids[one.Route.GetNamespace()+"/"+owners[i].Name]
		}
		one.Route.SetOwnerReferences(owners)
	}
	return writeJSON(file, all)
}

func readPublished(file string) (all []publishedObjects, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(text, &all)
}

func writeJSON(file string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// publishAll is the ceiling: a loop of creates, in the publisher's order.
func publishAll(ctx context.Context, client kubernetes.Interface, kubeconfig, file string) error {
	all, err := readPublished(file)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	routes, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	return inParallel(writers, len(all), func(i int) error {
		one := all[i]
		if _, err := routes.Resource(routesResource).Namespace(one.Route.GetNamespace()).Create(ctx, one.Route, metav1.CreateOptions{}); err != nil {
			return err
		}
		_, err := client.CoreV1().ConfigMaps("service-mirror").Create(ctx, one.Record, metav1.CreateOptions{})
		return err
	})
}

// publishIdle is the publisher's memory, and what it asks for when nothing happens. The sizes are measured at once: they
// mostly wait.
func (b *bench) publishIdle(ctx context.Context) error {
	sizes := []int{0, b.sizes[0]}
	if last := b.sizes[len(b.sizes)-1]; last != b.sizes[0] {
		sizes = append(sizes, last)
	}
	results := make([][]result, len(sizes))
	if err := inParallel(len(sizes), len(sizes), func(i int) (err error) {
		results[i], err = b.publisherAtRest(ctx, sizes[i])
		return err
	}); err != nil {
		return err
	}
	return b.note(slices.Concat(results...)...)
}

func (b *bench) publisherAtRest(ctx context.Context, n int) ([]result, error) {
	p, err := b.newPublishing(ctx, n)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	since, err := p.Mark()
	if err != nil {
		return nil, err
	}
	d, err := b.publish(p, "--leader-elect", "--leader-elect-lease=service-mirror/service-mirror-publish")
	if err != nil {
		return nil, err
	}
	defer d.stop()
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	if _, err := p.published(ctx, since, n); err != nil {
		return nil, err
	}
	takes, err := d.footprint(ctx)
	if err != nil {
		return nil, err
	}
	goal := int64(40*mb + 21*kb*n)
	memory := result{What: fmt.Sprintf("publisher: memory, %d exports", n), Mirrors: n,
		Goal:     fmt.Sprintf("at most %d MB on the way: 10,000 are to fit into the 256 MB of the Deployment", goal/mb),
		Measured: fmt.Sprintf("%d MB, %d MB of it the program itself; at most %d MB on the way", takes.now/mb, takes.file/mb, takes.peak/mb), Met: takes.peak <= goal}
	if since, err = p.Mark(); err != nil {
		return nil, err
	}
	before, err := d.cpu()
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, b.idle); err != nil {
		return nil, err
	}
	after, err := d.cpu()
	if err != nil {
		return nil, err
	}
	all, err := p.requests(since, publisher)
	if err != nil {
		return nil, err
	}
	writes, err := p.writesBy(since, publisher)
	if err != nil {
		return nil, err
	}
	idle := result{What: fmt.Sprintf("publisher: idle for %v, %d exports, writes", b.idle, n), Mirrors: n, Goal: "none but the lease",
		Measured: fmt.Sprintf("%d; in all %s; CPU %.3f %% of a core", len(writes), orNone(summary(all)), 100*(after-before).Seconds()/b.idle.Seconds()), Met: len(writes) == 0}
	return []result{memory, idle}, nil
}
