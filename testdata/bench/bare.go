package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// writers is how many write at once, as the daemon's --workers.
const writers = 32

const ours = "app.kubernetes.io/managed-by=service-mirror"

// bare are the programs that the daemon is compared with. They run in a process of their
// own, as it does.
func bare(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bare", flag.ExitOnError)
	kubeconfig := f.String("kubeconfig", "", "of the local cluster")
	remote := f.String("remote", "", "kubeconfig of the remote cluster")
	objects := f.String("objects", "", "file of the mirrors to create")
	address := f.String("address", "", "to write into all Endpoints")
	watch := f.Bool("watch", false, "watch the Endpoints that are written, into a cache")
	if len(args) == 0 {
		return errors.New("bare: create, publish, update or follow?")
	}
	f.Parse(args[1:])
	client, err := connectTo(*kubeconfig)
	if err != nil {
		return err
	}
	switch args[0] {
	case "create":
		return createAll(ctx, client, *objects)
	case "publish":
		return publishAll(ctx, client, *kubeconfig, *objects)
	case "update":
		return updateAll(ctx, client, *address, *watch)
	case "follow":
		return follow(ctx, client, *remote)
	}
	return fmt.Errorf("bare: there is no %q", args[0])
}

func connectTo(kubeconfig string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	return connect(config)
}

// objects are one mirror.
type objects struct {
	Service   *corev1.Service
	Endpoints *corev1.Endpoints
	Slices    []*discoveryv1.EndpointSlice
}

// createAll is the ceiling: a loop of creates.
func createAll(ctx context.Context, client kubernetes.Interface, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all []objects
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	return inParallel(writers, len(all), func(i int) error {
		one := all[i]
		namespace := one.Service.Namespace
		if one.Endpoints != nil { // in the daemon's order
			if _, err := client.CoreV1().Endpoints(namespace).Create(ctx, one.Endpoints, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		if _, err := client.CoreV1().Services(namespace).Create(ctx, one.Service, metav1.CreateOptions{}); err != nil {
			return err
		}
		for _, slice := range one.Slices {
			if _, err := client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// updateAll is a loop of updates. With a watch, it ends when that has seen all of them.
func updateAll(ctx context.Context, client kubernetes.Interface, address string, watch bool) error {
	seen := func(int) error { return nil }
	if watch {
		seen = watchEndpoints(ctx, client)
	}
	list, err := client.CoreV1().Endpoints(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return err
	}
	err = inParallel(writers, len(list.Items), func(i int) error {
		endpoints := &list.Items[i]
		endpoints.Subsets[0].Addresses = []corev1.EndpointAddress{{IP: address}}
		_, err := client.CoreV1().Endpoints(endpoints.Namespace).Update(ctx, endpoints, metav1.UpdateOptions{})
		return err
	})
	return errors.Join(err, seen(len(list.Items)))
}

// watchEndpoints keeps a cache of the Endpoints that are written. What it returns waits until that many have changed.
func watchEndpoints(ctx context.Context, client kubernetes.Interface) (seen func(number int) error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = ours }))
	changed := make(chan struct{}, 100_000)
	factory.Core().V1().Endpoints().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, _ any) { changed <- struct{}{} }})
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return func(number int) error {
		for range number {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
		}
		return nil
	}
}

// follow is the floor: an informer that answers each change with one write.
func follow(ctx context.Context, client kubernetes.Interface, kubeconfig string) error {
	remote, err := connectTo(kubeconfig)
	if err != nil {
		return err
	}
	mirrors := map[string]*corev1.Service{}
	list, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return err
	}
	for i := range list.Items {
		svc := &list.Items[i]
		mirrors[svc.Namespace+"/"+svc.Name] = svc
	}
	factory := informers.NewSharedInformerFactoryWithOptions(remote, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = stormSelector }))
	informer := factory.Core().V1().Services().Informer()
	informer.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, changed any) {
		svc := changed.(*corev1.Service)
		key := svc.Namespace + "/" + svc.Name + "-paris"
		mirror := mirrors[key]
		if mirror == nil {
			return
		}
		mirror.Spec.Ports[0].Port = svc.Spec.Ports[0].Port
		after, err := client.CoreV1().Services(mirror.Namespace).Update(ctx, mirror, metav1.UpdateOptions{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		mirrors[key] = after
	}})
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	<-ctx.Done()
	return nil
}

// dump writes the mirrors of a cluster to a file, as they were before the server added
// to them.
func dump(ctx context.Context, client kubernetes.Interface, file string) error {
	all := map[string]*objects{}
	services, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return err
	}
	for i := range services.Items {
		svc := &services.Items[i]
		svc.ObjectMeta = bareMeta(svc.ObjectMeta)
		for port := range svc.Spec.Ports {
			svc.Spec.Ports[port].NodePort = 0
		}
		svc.Spec = corev1.ServiceSpec{Ports: svc.Spec.Ports, IPFamilyPolicy: svc.Spec.IPFamilyPolicy}
		prefer := corev1.IPFamilyPolicyPreferDualStack
		svc.Spec.IPFamilyPolicy = &prefer
		all[svc.Namespace+"/"+svc.Name] = &objects{Service: svc}
	}
	endpoints, err := client.CoreV1().Endpoints(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return err
	}
	for i := range endpoints.Items {
		one := &endpoints.Items[i]
		if mirror := all[one.Namespace+"/"+one.Name]; mirror != nil {
			one.ObjectMeta = bareMeta(one.ObjectMeta)
			mirror.Endpoints = one
		}
	}
	owned, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: "endpointslice.kubernetes.io/managed-by=service-mirror.io"})
	if err != nil {
		return err
	}
	for i := range owned.Items {
		one := &owned.Items[i]
		if mirror := all[one.Namespace+"/"+one.Labels[discoveryv1.LabelServiceName]]; mirror != nil {
			one.ObjectMeta = bareMeta(one.ObjectMeta)
			mirror.Slices = append(mirror.Slices, one)
		}
	}
	var list []*objects
	for _, key := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[key])
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// bareMeta is what whoever makes an object says.
func bareMeta(meta metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: meta.Name, Namespace: meta.Namespace, Labels: meta.Labels, Annotations: meta.Annotations}
}
