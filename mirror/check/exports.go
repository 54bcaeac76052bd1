package check

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// identity finds out whether the daemon accepts the cluster as the one that it should be.
func (r *Report) identity(ctx context.Context, local *target, spec remote.Spec) {
	system, err := r.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	var uid types.UID
	switch {
	case apierrors.IsForbidden(err): // it may be accepted nevertheless
	case err != nil:
		r.Unread("the UID of namespace kube-system", err)
		return
	case system.UID == "":
		r.Fail("malformed answer: namespace kube-system has no UID: check the server in the kubeconfig")
		return
	default:
		uid = system.UID
	}
	refusal := spec.Accept(uid, local.uid(), slices.Values(local.mirrored(spec.Name)))
	switch {
	case refusal != nil:
		r.Fail("%v", refusal)
	case err == nil:
		r.OK("cluster UID is %s", uid)
	case spec.UID == remote.Unverified:
		r.OK("the cluster UID cannot be read, which uid=unverified accepts")
	default:
		r.Unread("the UID of namespace kube-system", err)
	}
}

// gateways looks at those that the flags list.
func (r *Report) gateways(ctx context.Context, spec remote.Spec, options gateway.Options) remote.Gateways {
	known := map[cache.ObjectName]*gateway.Gateway{}
	reserved := r.reserved(ctx, spec.Gateways[0])
	for i, config := range spec.Gateways {
		gw := r.gateway(ctx, config, options)
		gw.Reserved = reserved
		if i == 0 {
			known[cache.ObjectName{}] = gw
		}
		known[config.Service] = gw
	}
	return remote.Gateways{Known: known}
}

// gateway looks for a gateway Service and tries to connect to its addresses. What
// cannot be read of it has no ports.
func (r *Report) gateway(ctx context.Context, config gateway.Config, options gateway.Options) *gateway.Gateway {
	name := "gateway"
	if config.ReadsService() {
		name += " " + config.Name()
	}
	entrance, err, unread := r.entrance(ctx, config, options.Filter)
	if unread != nil {
		r.Fail("%s cannot be read: %s", name, remote.Cause(unread))
		return &gateway.Gateway{Static: true}
	}
	if err != nil {
		r.Fail("%s: %s", name, oneLine(err))
	}
	found, complete := []netip.Addr(nil), true
	for _, host := range entrance.Hostnames {
		addrs, err := options.Resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
		if err != nil {
			complete = false
			r.Fail("%s: hostname %s: %s", name, host, remote.Cause(err))
			continue
		}
		found = append(found, addrs...)
	}
	gw, err := entrance.Gateway(found, complete, options.Filter)
	if err != nil {
		r.Warn("%s: %s", name, oneLine(err))
	}
	if len(gw.Addresses) == 0 {
		return gw // said before
	}
	port, err := options.Probe.Target(gw)
	if err != nil {
		r.Warn("%s: %v", name, err)
		return gw
	}
	for _, address := range gw.Addresses {
		target := netip.AddrPortFrom(address.Addr, port).String()
		conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", target)
		if err != nil {
			r.Warn("%s does not answer at %s: %s. Pods may reach it even if this machine cannot", name, target, remote.Cause(err))
			continue
		}
		conn.Close()
		r.OK("%s answers at %s", name, target)
	}
	return gw
}

// entrance reads a gateway Service, or a Gateway, and what is wrong with it. unread is why that cannot be read.
func (r *Report) entrance(ctx context.Context, config gateway.Config, filter gateway.Filter) (_ gateway.Entrance, err, unread error) {
	named := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, config.Service.Name).String()}
	switch {
	case !config.ReadsService():
	case config.API:
		obj, unread := remote.ReadGateway(ctx, r.client, config.Service)
		if unread != nil {
			return gateway.Entrance{}, nil, unread
		}
		entrance, err := config.ReadAPI(obj, filter)
		return entrance, err, nil
	default:
		list, unread := r.client.CoreV1().Services(config.Service.Namespace).List(ctx, named)
		if unread != nil {
			return gateway.Entrance{}, nil, unread
		}
		if len(list.Items) > 0 {
			entrance, err := config.Read(&list.Items[0], filter)
			return entrance, err, nil
		}
	}
	entrance, err := config.Read(nil, filter)
	return entrance, err, nil
}

// exports finds out what would be mirrored, and what is in its way.
func (r *Report) exports(ctx context.Context, local *target, options Options, spec remote.Spec, gateways remote.Gateways) {
	namespaces := spec.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var exported []*corev1.Service
	for _, namespace := range namespaces {
		services, err := spec.ListServices(ctx, r.client, namespace, metav1.ListOptions{LabelSelector: options.Remote.Selector}, options.Policy.TrimExported)
		if err != nil {
			r.Unread("exported Services"+inNamespace(namespace), err)
			return
		}
		exported = append(exported, services...)
	}
	view := remote.ListedView(exported, gateways) // those to other clusters claim gateway ports, too
	view.Namespaces = spec.Namespaces
	exported = slices.DeleteFunc(exported, func(svc *corev1.Service) bool { return !options.Policy.Concerns(svc) })
	if len(exported) == 0 {
		r.NoExports(options.Remote.Selector)
		r.failoverTo(local, options, spec.Name, view)
		return
	}
	view.Records = r.records(ctx, spec)
	var candidates []plan.Candidate
	for _, svc := range exported {
		candidates = append(candidates, candidate(spec.Name, view, svc))
	}
	if options.Policy.Merges() {
		r.exported = candidates
	} else {
		r.Exports(local.tally(options.Policy, spec.Name, candidates))
	}
	r.failoverTo(local, options, spec.Name, view)
}

// candidate is an exported Service of a remote.
func candidate(cluster string, view remote.View, svc *corev1.Service) plan.Candidate {
	c := plan.Candidate{Cluster: cluster, Watched: true, Service: svc, Assigned: view.Assigned(svc)}
	c.Gateway, c.NoGateway = view.Gateways.For(svc)
	return c
}

// tally is what will become of a remote's exported Services. Of those whose mirrors would have one name, one gets it.
func (t *target) tally(policy plan.Policy, cluster string, candidates []plan.Candidate) Tally {
	tally, naming := Tally{Done: "mirrored"}, policy.Names.Of(cluster)
	rivals := map[cache.ObjectName][]plan.Candidate{}
	for _, c := range candidates {
		key := naming.Key(c.Service)
		rivals[key] = append(rivals[key], c)
	}
	problems := map[cache.ObjectName][]plan.Problem{} // by exported Service
	for key, all := range rivals {
		slices.SortFunc(all, func(a, b plan.Candidate) int {
			return plan.CompareKeys(cache.MetaObjectToName(a.Service), cache.MetaObjectToName(b.Service))
		})
		found := policy.Decide(t.snapshot(key, all)).Problems
		for _, c := range all {
			source := cache.MetaObjectToName(c.Service)
			for _, problem := range found {
				if problem.Source == source || problem.Source == (cache.ObjectName{}) {
					problems[source] = append(problems[source], problem)
				}
			}
		}
	}
	for _, c := range candidates {
		source := cache.MetaObjectToName(c.Service)
		tally.Add(source, problems[source])
	}
	return tally
}

// records reads what the remote's publisher says of its exports; nil: the configuration names no namespace of records.
func (r *Report) records(ctx context.Context, spec remote.Spec) *remote.Records {
	if spec.Records == "" {
		return nil
	}
	list, err := spec.ListRecords(ctx, r.client)
	switch {
	case err != nil:
		r.Unread("records in namespace "+spec.Records, err)
	case len(list) == 0:
		r.Warn("namespace %s has no records: check that records= is the namespace of service-mirror publish in the remote, and that it runs", spec.Records)
	default:
		r.OK("namespace %s has the records of %d exported Services", spec.Records, len(list))
	}
	return remote.ListedRecords(spec.Records, list, err == nil)
}

func inNamespace(namespace string) string {
	if namespace == metav1.NamespaceAll {
		return ""
	}
	return " in namespace " + namespace
}

// reserved reads which gateway ports the ConfigMaps reserve, for TCP and for UDP.
func (r *Report) reserved(ctx context.Context, config gateway.Config) gateway.Reserved {
	all := gateway.Reserved{}
	for _, source := range []struct {
		name     cache.ObjectName
		protocol corev1.Protocol
	}{{config.TCPServices, corev1.ProtocolTCP}, {config.UDPServices, corev1.ProtocolUDP}} {
		if source.name == (cache.ObjectName{}) {
			continue
		}
		list, err := r.client.CoreV1().ConfigMaps(source.name.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, source.name.Name).String(),
		})
		if err != nil {
			r.Unread("ConfigMap "+source.name.String(), err)
			continue
		}
		if len(list.Items) == 0 {
			r.Warn("ConfigMap %s does not exist, so no ports are reserved: create it", source.name)
			continue
		}
		some, err := gateway.ParseReserved(list.Items[0].Data, source.protocol)
		if err != nil {
			r.Warn("ConfigMap %s: %s", source.name, oneLine(err))
		}
		maps.Copy(all, some)
	}
	return all
}

// target is what exists in the local cluster, as far as it may be read.
type target struct {
	services   map[cache.ObjectName]*corev1.Service
	namespaces map[string]*corev1.Namespace // nil: not known
	parts      map[string][]types.UID       // of clusters, as the parts of merged mirrors record them, by remote
}

// look lists what a mirror may meet.
func (r *Report) look(ctx context.Context) *target {
	t := &target{services: map[cache.ObjectName]*corev1.Service{}}
	if list, err := r.client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{}); err != nil {
		r.Unread("Services", err)
	} else {
		for i := range list.Items {
			t.services[cache.MetaObjectToName(&list.Items[i])] = &list.Items[i]
		}
	}
	if list, err := r.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err != nil {
		r.Unread("Namespaces", err)
	} else {
		t.namespaces = map[string]*corev1.Namespace{}
		for i := range list.Items {
			t.namespaces[list.Items[i].Name] = &list.Items[i]
		}
	}
	return t
}

// uid is the UID by which the cluster is known; empty: it is not.
func (t *target) uid() types.UID {
	if t == nil || t.namespaces[metav1.NamespaceSystem] == nil {
		return ""
	}
	return t.namespaces[metav1.NamespaceSystem].UID
}

// mirrored are the UIDs of the clusters that a remote's mirrors are of, as far as they say.
func (t *target) mirrored(cluster string) (uids []types.UID) {
	if t == nil {
		return nil
	}
	for _, svc := range t.services {
		owner, ours := plan.Owner(svc)
		if uid := types.UID(svc.Annotations[plan.ClusterUIDAnnotation]); ours && owner == cluster && uid != "" {
			uids = append(uids, uid)
		}
	}
	uids = append(uids, t.parts[cluster]...)
	slices.Sort(uids)
	return slices.Compact(uids)
}

// snapshot is what the daemon would know of a mirror that does not exist yet.
func (t *target) snapshot(key cache.ObjectName, candidates []plan.Candidate) plan.Snapshot {
	s := plan.Snapshot{Key: key, Candidates: candidates}
	if t == nil {
		return s
	}
	s.Live.Service = t.services[s.Key]
	if t.namespaces != nil {
		switch namespace := t.namespaces[s.Key.Namespace]; {
		case namespace == nil:
			s.Namespace = plan.NamespaceAbsent
		case namespace.DeletionTimestamp != nil:
			s.Namespace = plan.NamespaceDeleting
		}
	}
	return s
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
