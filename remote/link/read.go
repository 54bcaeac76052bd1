package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/gatewayapi"
)

// readLocal reads the local cluster.
func (l *Linker) readLocal(ctx context.Context, name string) (local Local, err error) {
	c := l.Local
	if local.UID, err = c.uid(ctx); err != nil {
		return local, fmt.Errorf("the local cluster cannot be reached in context %s: %w: select another context with --context", c.Name, err)
	}
	if local.Daemon, err = l.readDaemon(ctx); err != nil {
		return local, err
	}
	if err := l.readSecrets(ctx, name, &local); err != nil {
		return local, err
	}
	account, err := c.get(ctx, serviceAccounts, l.Namespace, local.Daemon.Account)
	if err != nil {
		return local, err
	}
	if account != nil {
		if noted, found := account.GetAnnotations()[annotation(name)]; found {
			local.Permitted = &noted
		}
	}
	policies, err := c.list(ctx, networkPolicies, l.Namespace, metav1.ListOptions{})
	if err != nil {
		return local, err
	}
	for _, object := range policies {
		var policy networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &policy); err != nil {
			return local, err
		}
		local.Policies = append(local.Policies, policy)
		local.HasEgress = local.HasEgress || policy.Name == egressName(name)
	}
	return local, nil
}

// readSecrets reads what links the remote already.
func (l *Linker) readSecrets(ctx context.Context, name string, local *Local) error {
	d := local.Daemon
	if namespace := d.remotesFrom(); namespace != "" {
		list, err := l.Local.list(ctx, secrets, namespace, metav1.ListOptions{LabelSelector: remoteLabel + "=" + name})
		if err != nil {
			return err
		}
		var all []corev1.Secret
		for _, object := range list {
			var secret corev1.Secret
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &secret); err != nil {
				return err
			}
			all = append(all, secret)
		}
		local.Secret = oldest(all)
		for _, one := range all {
			if one.Name != local.Secret.Name {
				local.Others = append(local.Others, one.Name)
			}
		}
	}
	if d.Earlier == "" {
		return nil
	}
	var earlier corev1.Secret
	_, err := l.Local.read(ctx, secrets, d.Namespace, d.Earlier, &earlier)
	local.Earlier = len(earlier.Data[fileOf(name)]) > 0
	return err
}

// errNoDaemon says that the local cluster has no Deployment.
var errNoDaemon = errors.New("install the daemon first (deploy/guides/installation.md), or select it with --namespace and --deployment")

// readDaemon reads the Deployment.
func (l *Linker) readDaemon(ctx context.Context) (Daemon, error) {
	var deployment appsv1.Deployment
	found, err := l.Local.read(ctx, deployments, l.Namespace, l.Deployment, &deployment)
	if err != nil {
		return Daemon{}, err
	}
	if !found {
		return Daemon{}, fmt.Errorf("context %s has no Deployment %s/%s: %w", l.Local.Name, l.Namespace, l.Deployment, errNoDaemon)
	}
	return readDaemon(&deployment)
}

// changeDaemon changes the Deployment as it is now: others may have changed it meanwhile.
func (l *Linker) changeDaemon(ctx context.Context, d Daemon, args func(Daemon) []string) error {
	for {
		patch := d.patch(args(d))
		if patch == nil {
			return nil
		}
		patch["metadata"] = map[string]any{"resourceVersion": d.version}
		object, err := l.Local.strategicPatch(ctx, deployments, d.Namespace, d.Name, patch)
		if err == nil {
			l.changed(l.Local, object, configured)
			return nil
		}
		if !apierrors.IsConflict(err) || ctx.Err() != nil {
			return fmt.Errorf("%s: Deployment %s/%s cannot be changed: %w", l.Local.Name, d.Namespace, d.Name, err)
		}
		if d, err = l.readDaemon(ctx); err != nil {
			return err
		}
	}
}

// readRemote reads the remote cluster.
func (l *Linker) readRemote(ctx context.Context, keys Keys, d Daemon, request Request) (r Remote, err error) {
	c := l.Remote
	if r.UID, err = c.uid(ctx); err != nil {
		return r, fmt.Errorf("the remote cluster cannot be reached in context %s: %w: select another context with --remote-context", c.Name, err)
	}
	spec, err := keys.spec(request.Name)
	if err != nil {
		return r, err
	}
	r.Endpoint = c.Endpoint
	for _, one := range gatewaysOf(spec, d) {
		if port, err := strconv.ParseUint(one.Port, 10, 16); err == nil {
			r.Ports = append(r.Ports, int32(port))
		}
		if one.Service == (cache.ObjectName{}) {
			r.Possible = c.possibleGateways(ctx)
			continue
		}
		ports, found, err := c.gatewayPorts(ctx, one)
		switch {
		case err != nil:
			r.PortsUnknown = true
			r.Notes = append(r.Notes, fmt.Sprintf("gateway %s cannot be read, so its ports are not known: %v", one.Name(), err))
		case !found:
			r.Notes = append(r.Notes, fmt.Sprintf("gateway %s does not exist yet, so mirrors will have no endpoints: create it and run link again", one.Name()))
		}
		r.Ports = append(r.Ports, ports...)
	}
	if request.Server == "" {
		if host, _, err := parseServer(r.Endpoint.Server); err == nil && ownHost(host) {
			r.Servers = c.servers(ctx)
		}
	}
	var binding rbacv1.ClusterRoleBinding
	_, err = c.read(ctx, clusterBindings, "", reader, &binding)
	r.ReadsAll = err == nil && slices.Contains(binding.Subjects, subject(request.Reader))
	return r, nil
}

// uid is that of the cluster, by which it is known.
func (c *Cluster) uid(ctx context.Context) (types.UID, error) {
	object, err := c.client.Resource(namespaces).Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if object.GetUID() == "" || object.GetKind() != "Namespace" {
		return "", errors.New("the answer is not from a Kubernetes API server")
	}
	return object.GetUID(), nil
}

// gatewayPorts are the TCP ports of a gateway, with those of ListenerSets.
func (c *Cluster) gatewayPorts(ctx context.Context, config gateway.Config) (ports []int32, found bool, err error) {
	if !config.API {
		var service corev1.Service
		found, err = c.read(ctx, services, config.Service.Namespace, config.Service.Name, &service)
		for _, port := range service.Spec.Ports {
			if port.Protocol == corev1.ProtocolTCP {
				ports = append(ports, port.Port)
			}
		}
		return ports, found, err
	}
	own := rest.CopyConfig(c.Config)
	own.Timeout = requestTime
	client, err := remote.NewClient(own)
	if err != nil {
		return nil, false, err
	}
	gw, err := remote.ReadGateway(ctx, client, config.Service)
	if apierrors.IsNotFound(err) { // no Gateway API yet
		return nil, false, nil
	}
	if err != nil || gw == nil {
		return nil, false, err
	}
	for _, listener := range gw.Listeners {
		if listener.Protocol != "UDP" && !slices.Contains(ports, listener.Port) {
			ports = append(ports, listener.Port)
		}
	}
	return ports, true, nil
}

// possibleGateways says which gateways the remote has, for who names none.
func (c *Cluster) possibleGateways(ctx context.Context) string {
	all, err := c.list(ctx, services, "", metav1.ListOptions{})
	if err != nil {
		return fmt.Sprintf("Existing gateways cannot be listed: %v", err)
	}
	var names []string
	for _, object := range all {
		if kind, _, _ := unstructured.NestedString(object.Object, "spec", "type"); kind == string(corev1.ServiceTypeLoadBalancer) {
			names = append(names, object.GetNamespace()+"/"+object.GetName())
		}
	}
	kind := schema.GroupVersionResource{Group: gatewayapi.Group, Version: "v1", Resource: "gateways"}
	if all, err = c.list(ctx, kind, "", metav1.ListOptions{}); err == nil { // not every cluster has these
		for _, object := range all {
			names = append(names, gateway.APIPrefix+object.GetNamespace()+"/"+object.GetName())
		}
	}
	return "Existing gateways: " + cmp.Or(strings.Join(names, ", "), "none")
}

// servers are where else the cluster says that its API server is: the URL for nodes that join, and the addresses
// behind the Service kubernetes.
func (c *Cluster) servers(ctx context.Context) (urls []string) {
	add := func(url string) {
		if host, _, err := parseServer(url); err == nil && !ownHost(host) && !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	var info corev1.ConfigMap
	if found, err := c.read(ctx, configMaps, metav1.NamespacePublic, "cluster-info", &info); err == nil && found {
		if config, err := clientcmd.Load([]byte(info.Data["kubeconfig"])); err == nil {
			for _, cluster := range config.Clusters {
				add(cluster.Server)
			}
		}
	}
	slicesOf, err := c.list(ctx, endpointSlices, metav1.NamespaceDefault, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	if err != nil {
		return urls
	}
	for _, object := range slicesOf {
		var slice discoveryv1.EndpointSlice
		if runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &slice) != nil {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			for _, port := range slice.Ports {
				if port.Port != nil && len(endpoint.Addresses) > 0 {
					add("https://" + net.JoinHostPort(endpoint.Addresses[0], fmt.Sprint(*port.Port)))
				}
			}
		}
	}
	return urls
}
