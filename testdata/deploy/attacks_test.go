package deploy

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// object is one that a test makes; its name begins with the stem.
type object func(stem string) *unstructured.Unstructured

func made(obj runtime.Object) *unstructured.Unstructured {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		panic(err) // it is one of Kubernetes' own types
	}
	return &unstructured.Unstructured{Object: content}
}

const (
	managedBy  = "app.kubernetes.io/managed-by"
	clusterKey = "service-mirror.io/cluster"
	mirrorKey  = "service-mirror.io/mirror"
	sourceKey  = "service-mirror.io/remote-service"
)

// meta is that of what belongs to the mirror of a remote's Service.
func meta(name, mirror, cluster string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, Labels: map[string]string{managedBy: ours, clusterKey: cluster},
		Annotations: map[string]string{mirrorKey: "shop/" + mirror},
	}
}

// serviceOf is a mirror's Service, with these changes.
func serviceOf(cluster string, changes ...func(*corev1.Service)) object {
	return func(stem string) *unstructured.Unstructured {
		svc := &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: meta(stem+"-"+cluster, stem+"-"+cluster, cluster),
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}
		svc.Annotations[sourceKey] = "shop/" + stem
		for _, change := range changes {
			change(svc)
		}
		return made(svc)
	}
}

// endpointsOf are a mirror's Endpoints.
func endpointsOf(cluster string, changes ...func(*corev1.Endpoints)) object {
	return func(stem string) *unstructured.Unstructured {
		endpoints := &corev1.Endpoints{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Endpoints"},
			ObjectMeta: meta(stem+"-"+cluster, stem+"-"+cluster, cluster),
			Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "203.0.113.1"}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 8080}}}},
		}
		for _, change := range changes {
			change(endpoints)
		}
		return made(endpoints)
	}
}

// sliceOf is a mirror's EndpointSlice of one family.
func sliceOf(cluster string, family discoveryv1.AddressType, changes ...func(*discoveryv1.EndpointSlice)) object {
	address := map[discoveryv1.AddressType]string{
		discoveryv1.AddressTypeIPv4: "203.0.113.1", discoveryv1.AddressTypeIPv6: "2001:db8::1", discoveryv1.AddressTypeFQDN: "shop.example.com",
	}[family]
	return func(stem string) *unstructured.Unstructured {
		mirror := stem + "-" + cluster
		slice := &discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  meta(mirror+"-"+strings.ToLower(string(family)), mirror, cluster),
			AddressType: family,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}}},
		}
		slice.Labels[discoveryv1.LabelManagedBy], slice.Labels[discoveryv1.LabelServiceName] = byDaemon, mirror
		for _, change := range changes {
			change(slice)
		}
		return made(slice)
	}
}

func ipv4Of(cluster string, changes ...func(*discoveryv1.EndpointSlice)) object {
	return sliceOf(cluster, discoveryv1.AddressTypeIPv4, changes...)
}

// failoverKey labels a Service that fails over, and the slices that are added to it.
const failoverKey = "service-mirror.io/failover"

// usersOf is a user's Service in the test's namespace, named as the stem, with the label for failover or without.
func usersOf(fails bool) object {
	return func(stem string) *unstructured.Unstructured {
		svc := &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: stem},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": stem}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}
		if fails {
			svc.Labels = map[string]string{failoverKey: "true"}
		}
		return made(svc)
	}
}

// besideOf is the slice for failover to a remote, of the Service named as the stem.
func besideOf(cluster string, changes ...func(*discoveryv1.EndpointSlice)) object {
	return func(stem string) *unstructured.Unstructured {
		ready := false
		slice := &discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  meta(stem+"."+cluster+".ipv4", stem, cluster),
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		}
		slice.Labels[discoveryv1.LabelManagedBy], slice.Labels[discoveryv1.LabelServiceName], slice.Labels[failoverKey] = byDaemon, stem, "true"
		for _, change := range changes {
			change(slice)
		}
		return made(slice)
	}
}

// unselected keeps a slice from being what the policy is about, so that it can exist.
func unselected(s *discoveryv1.EndpointSlice) { delete(s.Labels, failoverKey) }

// serving has a slice's endpoints be ready.
func serving(s *discoveryv1.EndpointSlice) {
	ready := true
	s.Endpoints[0].Conditions.Ready = &ready
}

// terminating has a slice's endpoints be those that kube-proxy uses while none is ready.
func terminating(s *discoveryv1.EndpointSlice) {
	yes := true
	s.Endpoints[0].Conditions.Serving, s.Endpoints[0].Conditions.Terminating = &yes, &yes
}

// besideAt is the place of a slice for failover of another Service.
func besideAt(namespace, service string) func(*unstructured.Unstructured) {
	return func(obj *unstructured.Unstructured) {
		at(namespace, service)(obj)
		obj.SetName(service + ".paris.ipv4")
		label(discoveryv1.LabelServiceName, service)(obj)
	}
}

// with changes the metadata of an object.
func (o object) with(changes ...func(*unstructured.Unstructured)) object {
	return func(stem string) *unstructured.Unstructured {
		obj := o(stem)
		for _, change := range changes {
			change(obj)
		}
		return obj
	}
}

func label(key, value string) func(*unstructured.Unstructured) {
	return func(obj *unstructured.Unstructured) {
		labels := obj.GetLabels()
		labels[key] = value
		obj.SetLabels(labels)
	}
}

func annotation(key, value string) func(*unstructured.Unstructured) {
	return func(obj *unstructured.Unstructured) {
		annotations := obj.GetAnnotations()
		annotations[key] = value
		obj.SetAnnotations(annotations)
	}
}

func unannotated(key string) func(*unstructured.Unstructured) {
	return func(obj *unstructured.Unstructured) {
		annotations := obj.GetAnnotations()
		delete(annotations, key)
		obj.SetAnnotations(annotations)
	}
}

func unlabelled(obj *unstructured.Unstructured) { obj.SetLabels(map[string]string{"app": "shop"}) }

func halfLabelled(obj *unstructured.Unstructured) { obj.SetLabels(map[string]string{managedBy: ours}) }

// at is another place for a mirror's object, which its record agrees with.
func at(namespace, name string) func(*unstructured.Unstructured) {
	return func(obj *unstructured.Unstructured) {
		obj.SetNamespace(namespace)
		obj.SetName(name)
		annotation(mirrorKey, namespace+"/"+name)(obj)
		if _, service := obj.GetAnnotations()[sourceKey]; service {
			annotation(sourceKey, namespace+"/"+strings.TrimSuffix(name, "-paris"))(obj)
		}
	}
}

func finalized(obj *unstructured.Unstructured) {
	obj.SetFinalizers([]string{"example.com/keep"})
}

func ownedBySomeone(obj *unstructured.Unstructured) {
	obj.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "u"}})
}

// What may be done to a Service's spec.
func externalIPs(s *corev1.Service)  { s.Spec.ExternalIPs = []string{"192.0.2.1"} }
func headless(s *corev1.Service)     { s.Spec.ClusterIP = corev1.ClusterIPNone }
func selecting(s *corev1.Service)    { s.Spec.Selector = map[string]string{"app": "shop"} }
func balanced(s *corev1.Service)     { s.Spec.Type = corev1.ServiceTypeLoadBalancer }
func onNodes(s *corev1.Service)      { s.Spec.Type = corev1.ServiceTypeNodePort }
func loadBalancer(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.1" }
func external(s *corev1.Service) {
	s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "shop.example.com"
}

// sourceRanges are what a hand edit may leave, and the API server may not accept on another type.
func sourceRanges(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} }

func serves(service string) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = service }
}

func managed(manager string) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelManagedBy] = manager }
}

// aside is a mirror's slice under a name as Kubernetes' controllers make them, and without a record.
func aside(s *discoveryv1.EndpointSlice) {
	s.Name = strings.TrimSuffix(s.Name, "-ipv4") + "-x7x7x"
	s.Annotations = nil
}

func lease(name string) object {
	return func(string) *unstructured.Unstructured {
		return made(&coordinationv1.Lease{
			TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}, ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: name},
		})
	}
}

func event(component string) object {
	return func(stem string) *unstructured.Unstructured {
		return made(&corev1.Event{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: stem + ".1"},
			InvolvedObject: corev1.ObjectReference{Kind: "Service", Namespace: "shop", Name: stem}, Source: corev1.EventSource{Component: component},
		})
	}
}

// theAPI is the Service default/kubernetes, or what belongs to it, as a thief would have it.
var theAPI = at("default", "kubernetes")

// Parts of the policies' messages.
const (
	notLabelled   = "may only write objects with its labels"
	notRecorded   = "matches their name"
	notBefore     = "objects that it does not own"
	otherOwner    = "may not move a mirror"
	notClusterIP  = "of type ClusterIP"
	noSelector    = "must not have a selector"
	noOutside     = "must not have externalIPs"
	notItsSlice   = "EndpointSlices that it manages"
	otherSlice    = "must be named after their Service"
	notHeldBack   = "may not set finalizers or owner references"
	unknownRemote = "is not configured"
	notShaped     = "does not have the name of a mirror of remote"
	notFailing    = "does not fail over"
	noneFailing   = "no params found"
	notTheAPI     = "to default/kubernetes"
	notTurned     = "may not convert another EndpointSlice"
	otherBeside   = "SERVICE.REMOTE.FAMILY"
	notMerged     = "of a merged mirror of the remotes"
	otherLease    = "may only write the Lease"
	othersEvent   = "may only write its own Events"
)

// attacks are what must be denied; deploy/guides/security.md has them by kind.
var attacks = map[string]attempt{
	"a Service of a remote that is not configured": creates(serviceOf("ghost")).against(unknownRemote),
	"a Service without labels":                     creates(serviceOf("paris").with(unlabelled)).against(notLabelled),
	"a Service with half of the labels":            creates(serviceOf("paris").with(halfLabelled)).against(notLabelled),
	"a Service with externalIPs":                   creates(serviceOf("paris", externalIPs)).against(noOutside),
	"a LoadBalancer":                               creates(serviceOf("paris", balanced)).against(notClusterIP),
	"a LoadBalancer with source ranges":            creates(serviceOf("paris", balanced, sourceRanges)).against(notClusterIP),
	"a Service with a load balancer's IP":          creates(serviceOf("paris", loadBalancer)).against(noOutside),
	"a NodePort with a selector":                   creates(serviceOf("paris", onNodes, selecting)).against(notClusterIP),
	"a Service with a selector":                    creates(serviceOf("paris", selecting)).against(noSelector),
	"a headless Service":                           creates(serviceOf("paris", headless)).against(notClusterIP),
	"an ExternalName":                              creates(serviceOf("paris", external)).against(notClusterIP),
	"an ExternalName in kube-system":               creates(serviceOf("paris", external).with(at("kube-system", "x-paris"))).against(notClusterIP),
	"a Service named kubernetes":                   creates(serviceOf("paris").with(at("shop", "kubernetes"))).against(notShaped),
	"a Service without a mirror's name":            creates(serviceOf("paris").with(at("shop", "bar"))).against(notShaped),
	"a Service of another remote's name":           creates(serviceOf("paris").with(label(clusterKey, "berlin"))).against(notShaped),
	"a Service named after a part of a remote":     creates(serviceOf("paris").with(at("shop", "bar-eu-xparis"))).against(notShaped),
	"a Service that records another mirror":        creates(serviceOf("paris").with(annotation(mirrorKey, "shop/other-paris"))).against(notRecorded),
	"a Service that records no mirror":             creates(serviceOf("paris").with(unannotated(mirrorKey))).against(notRecorded),
	"a Service that records another source":        creates(serviceOf("paris").with(annotation(sourceKey, "shop/other"))).against(notShaped),
	"a Service that records another namespace":     creates(serviceOf("paris").with(annotation(sourceKey, "default/bar"))).against(notShaped),
	"a Service that records no source":             creates(serviceOf("paris").with(unannotated(sourceKey))).against(notShaped),
	"a Service that cannot be deleted":             creates(serviceOf("paris").with(finalized)).against(notHeldBack),
	"a Service with an owner":                      creates(serviceOf("paris").with(ownedBySomeone)).against(notHeldBack),

	"adopt a user's Service":                    updates(serviceOf("paris").with(unlabelled), serviceOf("paris")).against(notLabelled),
	"adopt default/kubernetes":                  overwrites(serviceOf("paris").with(theAPI)).against(notLabelled, notShaped, notTheAPI),
	"adopt a copy of a mirror":                  updates(serviceOf("paris").with(annotation(mirrorKey, "shop/other-paris")), serviceOf("paris")).against(notBefore),
	"adopt a labelled Service without a record": updates(serviceOf("paris").with(unannotated(mirrorKey), unannotated(sourceKey)), serviceOf("paris")).against(notBefore),
	"pass a mirror on to another remote":        updates(apiOf("paris"), apiOf("eu-paris")).against(otherOwner),
	"release a mirror":                          updates(serviceOf("paris"), serviceOf("paris").with(unlabelled)).against(notLabelled),
	"change a mirror's record":                  updates(serviceOf("paris"), serviceOf("paris").with(annotation(mirrorKey, "shop/other-paris"))).against(notRecorded),
	"update a mirror of a removed remote":       updates(serviceOf("ghost"), serviceOf("ghost").with(annotation("changed", "yes"))).against(unknownRemote),
	"give a mirror a selector":                  updates(serviceOf("paris"), serviceOf("paris", selecting)).against(noSelector),
	"give a mirror externalIPs":                 updates(serviceOf("paris"), serviceOf("paris", externalIPs)).against(noOutside),
	"make a mirror a LoadBalancer":              updates(serviceOf("paris"), serviceOf("paris", balanced)).against(notClusterIP),
	"make a mirror an ExternalName":             updates(serviceOf("paris"), serviceOf("paris", external)).against(notClusterIP),
	"give a mirror a finalizer":                 updates(serviceOf("paris"), serviceOf("paris").with(finalized)).against(notHeldBack),

	"delete a user's Service":          deletes(serviceOf("paris").with(unlabelled)).against(notLabelled),
	"delete a half labelled Service":   deletes(serviceOf("paris").with(halfLabelled)).against(notLabelled),
	"delete default/kubernetes":        deletesExisting(serviceOf("paris").with(theAPI)).against(notLabelled),
	"delete a copy of a mirror":        deletes(serviceOf("paris").with(annotation(mirrorKey, "shop/other-paris"))).against(notBefore),
	"delete a labelled user's Service": deletes(serviceOf("paris").with(unannotated(mirrorKey), unannotated(sourceKey))).against(notBefore),

	"Endpoints beside a user's Service without a selector": creates(endpointsOf("paris").with(at("shop", "db")), serviceOf("paris").with(unlabelled, at("shop", "db"))).against(notShaped),
	"Endpoints of a remote that is not configured":         creates(endpointsOf("ghost")).against(unknownRemote),
	"Endpoints without labels":                             creates(endpointsOf("paris").with(unlabelled)).against(notLabelled),
	"Endpoints that record another mirror":                 creates(endpointsOf("paris").with(annotation(mirrorKey, "shop/other-paris"))).against(notRecorded),
	"Endpoints that record no mirror":                      creates(endpointsOf("paris").with(unannotated(mirrorKey))).against(notRecorded),
	"Endpoints of another remote's name":                   creates(endpointsOf("paris").with(label(clusterKey, "berlin"))).against(notShaped),
	"Endpoints for default/kubernetes":                     creates(endpointsOf("paris").with(theAPI)).against(notShaped, notTheAPI),
	"adopt a user's Endpoints":                             updates(endpointsOf("paris").with(unlabelled), endpointsOf("paris")).against(notLabelled),
	"adopt copied Endpoints":                               updates(endpointsOf("paris").with(annotation(mirrorKey, "shop/other-paris")), endpointsOf("paris")).against(notBefore),
	"adopt labelled Endpoints of no mirror's name":         updates(endpointsOf("paris").with(at("shop", "bar"), unannotated(mirrorKey)), endpointsOf("paris").with(at("shop", "bar"))).against(notBefore, notShaped),
	"pass Endpoints on to another remote":                  updates(endpointsOf("eu-paris"), endpointsOf("eu-paris").with(label(clusterKey, "paris"))).against(otherOwner),
	"release Endpoints":                                    updates(endpointsOf("paris"), endpointsOf("paris").with(unlabelled)).against(notLabelled),
	"delete a user's Endpoints":                            deletes(endpointsOf("paris").with(unlabelled)).against(notLabelled),
	"delete copied Endpoints":                              deletes(endpointsOf("paris").with(annotation(mirrorKey, "shop/other-paris"))).against(notBefore),

	"failover of an unlabelled Service":                   creates(besideOf("paris"), usersOf(false)).against(notFailing, noneFailing),
	"serve an unlabelled Service":                         updates(besideOf("paris", unselected), besideOf("paris", serving)).and(usersOf(false)).against(notTurned),
	"failover of default/kubernetes":                      creates(besideOf("paris").with(besideAt("default", "kubernetes"))).against(notFailing, noneFailing, notTheAPI),
	"failover where no Service has the label":             creates(besideOf("paris").with(besideAt("default", "db"))).against(noneFailing),
	"failover to a remote that is not configured":         creates(besideOf("ghost"), usersOf(true)).against(unknownRemote),
	"serve by a removed remote":                           updates(besideOf("ghost"), besideOf("ghost", serving)).and(usersOf(true)).against(unknownRemote),
	"serve by a removed remote's terminating endpoints":   updates(besideOf("ghost"), besideOf("ghost", terminating)).and(usersOf(true)).against(unknownRemote),
	"failover under a mirror's name":                      creates(besideOf("paris", func(s *discoveryv1.EndpointSlice) { s.Name = strings.Replace(s.Name, ".paris.", "-", 1) }), usersOf(true)).against(otherBeside),
	"failover of another Service":                         creates(besideOf("paris", serves("db")), usersOf(true)).against(otherSlice, otherBeside, notFailing),
	"failover without the slice's label":                  creates(besideOf("paris", unselected), usersOf(true)).against(notShaped),
	"a slice for any Service":                             creates(ipv4Of("paris").with(sliceAt("shop", "db"))).against(notShaped),
	"a slice for default/kubernetes":                      creates(ipv4Of("paris").with(sliceAt("default", "kubernetes"))).against(notShaped, notTheAPI),
	"a mirror's slice that names another Service":         creates(ipv4Of("paris", serves("db"))).against(otherSlice, notShaped),
	"a mirror's slice that names no Service":              creates(ipv4Of("paris", serves(""))).against(otherSlice, notShaped),
	"a slice under another name":                          creates(ipv4Of("paris", func(s *discoveryv1.EndpointSlice) { s.Name = "x" + s.Name })).against(notRecorded),
	"a slice of hostnames":                                creates(sliceOf("paris", discoveryv1.AddressTypeFQDN)).against(notRecorded),
	"a slice named after the other family":                creates(sliceOf("paris", discoveryv1.AddressTypeIPv6, func(s *discoveryv1.EndpointSlice) { s.Name = strings.Replace(s.Name, "-ipv6", "-ipv4", 1) })).against(otherSlice),
	"a slice of a remote that is not configured":          creates(ipv4Of("ghost")).against(unknownRemote),
	"a slice without labels":                              creates(ipv4Of("paris").with(unlabelled)).against(notLabelled),
	"a slice that records no mirror":                      creates(ipv4Of("paris").with(unannotated(mirrorKey))).against(notRecorded),
	"a slice that nobody manages":                         creates(ipv4Of("paris", managed("someone.example.com"))).against(notItsSlice),
	"a slice in the name of Kubernetes":                   creates(ipv4Of("paris", managed(bySelector))).against(notItsSlice),
	"adopt Kubernetes' slice of a mirror":                 updates(ipv4Of("paris", managed(byKubernetes)), ipv4Of("paris")).against(notItsSlice),
	"adopt the slice of a selector":                       updates(ipv4Of("paris", managed(bySelector)), ipv4Of("paris")).against(notItsSlice),
	"adopt a user's slice":                                updates(ipv4Of("paris").with(unlabelled), ipv4Of("paris")).against(notLabelled),
	"adopt a copied slice":                                updates(ipv4Of("paris").with(annotation(mirrorKey, "shop/other-paris")), ipv4Of("paris")).against(notBefore),
	"pass a slice on to Kubernetes":                       updates(ipv4Of("paris"), ipv4Of("paris", managed(bySelector))).against(notItsSlice),
	"pass a slice on to another Service":                  updates(ipv4Of("paris"), ipv4Of("paris", serves("db"))).against(otherSlice, notShaped),
	"pass a slice on to another remote":                   updates(ipv4Of("eu-paris"), ipv4Of("eu-paris").with(label(clusterKey, "paris"))).against(otherOwner),
	"delete a user's slice":                               deletes(ipv4Of("paris").with(unlabelled)).against(notLabelled),
	"delete Kubernetes' slice of a mirror":                deletes(ipv4Of("paris", managed(byKubernetes))).against(notItsSlice),
	"delete the slice of a user's Service":                deletes(ipv4Of("paris", managed(bySelector)).with(halfLabelled, label(discoveryv1.LabelManagedBy, bySelector))).against(notLabelled),
	"delete a copied slice":                               deletes(ipv4Of("paris").with(annotation(mirrorKey, "shop/other-paris"))).against(notBefore),
	"a merged Service of no remote":                       creates(mergedOf()).against(notMerged),
	"a merged Service with a remote's own template":       creates(mergedOf("paris=shop/STEM")).against(notMerged),
	"a merged Service of a remote that is not configured": creates(mergedOf("oslo=shop/STEM", "ghost=shop/STEM")).against(notMerged),
	"a merged Service of another name":                    creates(mergedOf("oslo=shop/other")).against(notMerged),
	"a merged Service of another namespace":               creates(mergedOf("oslo=default/STEM")).against(notMerged),
	"list another Service in a merged one":                updates(mergedOf("oslo=shop/STEM"), mergedOf("oslo=shop/STEM", "rome=shop/other")).against(notMerged),
	"merge a user's Service":                              updates(mergedOf("oslo=shop/STEM").with(unlabelled), mergedOf("oslo=shop/STEM")).against(notLabelled),
	"pass a mirror on by merging it":                      updates(apiOf("paris"), apiOf("paris").with(label(clusterKey, mergedCluster), annotation(remotesKey, "eu-paris=shop/api"))).against(notMerged),
	"Endpoints of a merged mirror":                        creates(endpointsOf("oslo").with(label(clusterKey, mergedCluster))).against(unknownRemote),
	"a merged slice in the name of all":                   creates(partOf("oslo").with(label(clusterKey, mergedCluster))).against(unknownRemote, otherSlice),
	"a merged slice of another remote's name":             creates(partOf("oslo").with(label(clusterKey, "rome"))).against(otherSlice),
	"a merged slice of a remote that is not configured":   creates(partOf("ghost")).against(unknownRemote),
	"a merged slice for a remote's own template":          creates(partOf("paris")).against(notShaped),
	"a merged slice that names another Service":           creates(partOf("oslo", serves("db"))).against(otherSlice),
	"a merged slice for default/kubernetes":               creates(partOf("oslo").with(besideAt("default", "kubernetes"), func(obj *unstructured.Unstructured) { obj.SetName("kubernetes.oslo.ipv4") })).against(notTheAPI),
	"a merged slice that records another mirror":          creates(partOf("oslo").with(annotation(mirrorKey, "shop/db"))).against(notRecorded),
	"another Lease":                                       creates(lease("other")).against(otherLease),
	"an Event in the name of another program":             creates(event("kubelet")).against(othersEvent),
}

// apiOf is the Service api-eu-paris, whose name two remotes can want.
func apiOf(cluster string) object {
	return serviceOf(cluster).with(func(obj *unstructured.Unstructured) {
		stem := strings.TrimSuffix(obj.GetName(), "-"+cluster)
		at("shop", stem+"-eu-paris")(obj)
		annotation(sourceKey, "shop/"+strings.TrimSuffix(obj.GetName(), "-"+cluster))(obj)
	})
}

// plainOf is a mirror of a remote whose mirrors have the names of their Services.
func plainOf(cluster string) object {
	return serviceOf(cluster).with(func(obj *unstructured.Unstructured) {
		stem := strings.TrimSuffix(obj.GetName(), "-"+cluster)
		at("shop", stem)(obj)
		annotation(sourceKey, "shop/"+stem)(obj)
	})
}

// sliceAt is at for an EndpointSlice, which serves the Service of that name.
func sliceAt(namespace, service string) func(*unstructured.Unstructured) {
	return func(obj *unstructured.Unstructured) {
		at(namespace, service)(obj)
		obj.SetName(service + "-ipv4")
		label(discoveryv1.LabelServiceName, service)(obj)
	}
}

// What a merged mirror has on its Service.
const (
	mergedCluster = "merged.service-mirror.io"
	remotesKey    = "service-mirror.io/remotes"
)

// mergedOf is the Service of a merged mirror that lists these remotes, where STEM is its own name.
func mergedOf(listed ...string) object {
	return serviceOf("oslo").with(func(obj *unstructured.Unstructured) {
		stem := strings.TrimSuffix(obj.GetName(), "-oslo")
		at("shop", stem)(obj)
		label(clusterKey, mergedCluster)(obj)
		unannotated(sourceKey)(obj)
		annotation(remotesKey, strings.ReplaceAll(strings.Join(listed, ","), "STEM", stem))(obj)
	})
}

// partOf is the EndpointSlice of a remote in a merged mirror.
func partOf(cluster string, changes ...func(*discoveryv1.EndpointSlice)) object {
	return ipv4Of(cluster, changes...).with(func(obj *unstructured.Unstructured) {
		stem := strings.TrimSuffix(strings.TrimSuffix(obj.GetName(), "-ipv4"), "-"+cluster)
		service := obj.GetLabels()[discoveryv1.LabelServiceName]
		at("shop", stem)(obj)
		obj.SetName(stem + "." + cluster + ".ipv4")
		if service == stem+"-"+cluster {
			service = stem
		}
		label(discoveryv1.LabelServiceName, service)(obj)
	})
}

// writes are what the daemon does.
var writes = map[string]attempt{
	"a merged Service":                           creates(mergedOf("oslo=shop/STEM", "rome=shop/STEM")),
	"another remote in a merged Service":         updates(mergedOf("oslo=shop/STEM"), mergedOf("rome=shop/STEM", "oslo=shop/STEM")),
	"a merged Service after a remote's removal":  updates(mergedOf("oslo=shop/STEM", "ghost=shop/STEM"), mergedOf("oslo=shop/STEM", "ghost=shop/STEM").with(annotation("changed", "yes"))),
	"a Service becomes merged":                   updates(plainOf("oslo"), mergedOf("oslo=shop/STEM", "rome=shop/STEM")),
	"a Service is no longer merged":              updates(mergedOf("oslo=shop/STEM"), plainOf("oslo")),
	"delete a merged Service":                    deletes(mergedOf("ghost=shop/STEM")),
	"a merged slice":                             creates(partOf("oslo")),
	"update a merged slice":                      updates(partOf("rome"), partOf("rome").with(annotation("service-mirror.io/standby", "true"))),
	"correct the label of a merged slice":        updates(partOf("oslo").with(label(clusterKey, "rome")), partOf("oslo")),
	"delete a merged slice of a removed remote":  deletes(partOf("ghost")),
	"a new Service":                              creates(serviceOf("paris")),
	"a new Service, with what is copied":         creates(serviceOf("paris").with(label("team", "shop"), annotation("example.com/owner", "shop"))),
	"a new Service in kube-system":               creates(serviceOf("paris").with(at("kube-system", "x-paris"))),
	"a new Service with the ClusterIP it had":    creates(serviceOf("paris", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.77.77" })),
	"a new Service of any port":                  creates(serviceOf("paris", func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("http") })),
	"a name that two remotes can want":           creates(apiOf("eu-paris")),
	"the same of the other":                      creates(apiOf("paris")),
	"an unchanged Service":                       updates(serviceOf("paris"), serviceOf("paris")),
	"a Service from before the record":           updates(serviceOf("paris").with(unannotated(mirrorKey)), serviceOf("paris")),
	"a Service whose source was edited":          updates(serviceOf("paris").with(unannotated(sourceKey)), serviceOf("paris")),
	"a Service whose cluster was edited":         updates(serviceOf("paris").with(label(clusterKey, "berlin")), serviceOf("paris")),
	"a Service that got a selector":              updates(serviceOf("paris", selecting), serviceOf("paris")),
	"a Service that got externalIPs":             updates(serviceOf("paris", externalIPs), serviceOf("paris")),
	"a Service that was made a LoadBalancer":     updates(serviceOf("paris", balanced, sourceRanges, selecting), serviceOf("paris")),
	"a Service that was made a NodePort":         updates(serviceOf("paris", onNodes), serviceOf("paris")),
	"a Service that was made an ExternalName":    updates(serviceOf("paris", external), serviceOf("paris")),
	"a Service that a user gave a finalizer":     updates(serviceOf("paris").with(finalized), serviceOf("paris").with(finalized)),
	"the deletion of a Service":                  deletes(serviceOf("paris")),
	"the deletion of one that is headless":       deletes(serviceOf("paris", headless)),
	"the deletion of one from before":            deletes(serviceOf("paris").with(unannotated(mirrorKey))),
	"the deletion of a removed remote's":         deletes(serviceOf("ghost")),
	"the deletion of one whose label was edited": deletes(serviceOf("paris").with(label(clusterKey, "berlin"))),

	"new Endpoints":                          creates(endpointsOf("paris")),
	"new Endpoints without an address":       creates(endpointsOf("paris", func(e *corev1.Endpoints) { e.Subsets = nil })),
	"unchanged Endpoints":                    updates(endpointsOf("paris"), endpointsOf("paris")),
	"refreshed Endpoints":                    updates(endpointsOf("paris"), endpointsOf("paris").with(annotation("service-mirror.io/refresh", "1"))),
	"Endpoints that are not to be mirrored":  updates(endpointsOf("paris"), endpointsOf("paris").with(label(discoveryv1.LabelSkipMirror, "true"))),
	"Endpoints from before the record":       updates(endpointsOf("paris").with(unannotated(mirrorKey)), endpointsOf("paris")),
	"Endpoints whose cluster was edited":     updates(endpointsOf("paris").with(label(clusterKey, "berlin")), endpointsOf("paris")),
	"the same, from before the record":       updates(endpointsOf("paris").with(label(clusterKey, "berlin"), unannotated(mirrorKey)), endpointsOf("paris")),
	"the deletion of Endpoints":              deletes(endpointsOf("paris")),
	"the deletion of Endpoints from before":  deletes(endpointsOf("paris").with(unannotated(mirrorKey))),
	"the deletion of a removed remote's too": deletes(endpointsOf("ghost")),

	"a new slice":                              creates(ipv4Of("paris")),
	"a new slice of the other family":          creates(sliceOf("paris", discoveryv1.AddressTypeIPv6)),
	"an unchanged slice":                       updates(ipv4Of("paris"), ipv4Of("paris")),
	"a slice from before the record":           updates(ipv4Of("paris").with(unannotated(mirrorKey)), ipv4Of("paris")),
	"a slice whose Service was edited":         updates(ipv4Of("paris", serves("db")), ipv4Of("paris")),
	"a slice for failover":                     creates(besideOf("paris"), usersOf(true)),
	"a slice for failover that serves":         updates(besideOf("paris"), besideOf("paris", serving)).and(usersOf(true)),
	"one whose Service was edited":             updates(besideOf("paris", serves("db")), besideOf("paris")).and(usersOf(true)),
	"one of a removed remote, switched off":    updates(besideOf("ghost", serving), besideOf("ghost")).and(usersOf(true)),
	"the deletion of one":                      deletes(besideOf("paris")),
	"the deletion of a removed remote's one":   deletes(besideOf("ghost", serving)),
	"the deletion of a slice":                  deletes(ipv4Of("paris")),
	"the deletion of a removed remote's slice": deletes(sliceOf("ghost", discoveryv1.AddressTypeIPv6)),
	"the deletion of a leftover":               deletes(ipv4Of("paris", managed(bySelector), aside)),

	"its Lease": creates(lease(ours)),
	"an Event":  creates(event(ours)),
}
