package quickstart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
	"service-mirror.io/service-mirror/testdata/harness/kubelet"
)

// node is the only one of its cluster. It does for Deployments what their controller, a scheduler and a kubelet do
// together: their template has a Pod, whatever the number of replicas, and the Pod of another template goes when that of
// the new one is ready. A container whose image is in the registry runs; that of any other image is just ready.
type node struct {
	*testing.T
	cluster  *harness.Cluster
	registry *registry

	kubelet *httptest.Server
	mu      sync.Mutex
	pods    map[string]*pod // by the Deployment's namespace/name
	last    error           // of the last round
	started int
}

// nodes counts, so that each has addresses of loopback of its own.
var nodes int

func newNode(t *testing.T, c *harness.Cluster, images *registry) *node {
	nodes++
	return &node{T: t, cluster: c, registry: images, pods: map[string]*pod{}, started: nodes * 100}
}

// start has the node work until the test ends.
func (n *node) start() {
	n.Helper()
	n.kubelet = httptest.NewTLSServer(http.HandlerFunc(n.serveExec))
	n.Cleanup(n.kubelet.Close)
	if err := n.cluster.RegisterNode(n.Context(), n.name(), n.kubelet.Listener.Addr().(*net.TCPAddr)); err != nil {
		n.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.Context())
	var work sync.WaitGroup
	work.Go(func() { n.work(ctx) })
	n.Cleanup(func() {
		cancel()
		work.Wait()
		for _, p := range n.pods {
			p.end()
		}
		if n.Failed() {
			n.Logf("the node of %s: %v", n.cluster.Name, n.last)
		}
	})
}

func (n *node) name() string { return "node-of-" + n.cluster.Name }

func (n *node) work(ctx context.Context) {
	for ctx.Err() == nil {
		if err := n.round(ctx); ctx.Err() == nil {
			n.last = err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// round brings each Deployment to what its spec says. What fails is tried in the next round.
func (n *node) round(ctx context.Context) error {
	list, err := n.cluster.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range list.Items {
		err = errors.Join(err, n.rollOut(ctx, &d))
	}
	return err
}

func (n *node) rollOut(ctx context.Context, d *appsv1.Deployment) error {
	key := d.Namespace + "/" + d.Name
	template, err := json.Marshal(d.Spec.Template)
	if err != nil {
		return err
	}
	old := n.of(key)
	if old == nil || old.template != string(template) {
		fresh, err := n.create(ctx, d)
		if err != nil {
			return fmt.Errorf("Deployment %s: %w", key, err)
		}
		fresh.template = string(template)
		n.mu.Lock()
		n.pods[key] = fresh
		n.mu.Unlock()
		if old != nil {
			if err := n.remove(ctx, old); err != nil {
				return err
			}
		}
	}
	return n.report(ctx, d)
}

func (n *node) of(key string) *pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pods[key]
}

// create has a Pod of the Deployment's template run until it is ready.
func (n *node) create(ctx context.Context, d *appsv1.Deployment) (p *pod, err error) {
	template := d.Spec.Template
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: d.Name + "-", Labels: template.Labels, Annotations: template.Annotations}, Spec: template.Spec,
	}
	object.Spec.NodeName = n.name()
	object, err = n.cluster.CoreV1().Pods(d.Namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	n.started++
	p = &pod{node: n, object: object, address: fmt.Sprintf("127.1.%d.%d", n.started/100, n.started%100)}
	if n.registry.has(object.Spec.Containers[0].Image) {
		err = p.run(ctx)
	}
	if err == nil {
		ip := fmt.Sprintf("10.1.%d.%d", n.started/100, n.started%100) // made up
		err = n.cluster.MarkReady(ctx, object.Namespace, object.Name, ip)
	}
	if err != nil {
		return nil, errors.Join(err, n.remove(ctx, p))
	}
	return p, nil
}

func (n *node) remove(ctx context.Context, p *pod) error {
	p.end()
	now := int64(0)
	err := n.cluster.CoreV1().Pods(p.object.Namespace).Delete(ctx, p.object.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// report has the Deployment say what its controller says when all replicas are ready.
func (n *node) report(ctx context.Context, d *appsv1.Deployment) error {
	replicas := int32(1)
	if d.Spec.Replicas != nil {
		replicas = *d.Spec.Replicas
	}
	if d.Status.ObservedGeneration == d.Generation && d.Status.AvailableReplicas == replicas {
		return nil
	}
	d.Status = appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation, Replicas: replicas, UpdatedReplicas: replicas, ReadyReplicas: replicas, AvailableReplicas: replicas,
		Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue},
			{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "NewReplicaSetAvailable"},
		},
	}
	_, err := n.cluster.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	return err
}

// find is the Pod of this name.
func (n *node) find(namespace, name string) *pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if p.object.Namespace == namespace && p.object.Name == name {
			return p
		}
	}
	return nil
}

// serveExec is the kubelet's part of kubectl exec.
func (n *node) serveExec(w http.ResponseWriter, r *http.Request) {
	words := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // exec/NAMESPACE/POD/CONTAINER
	var p *pod
	if len(words) == 4 && words[0] == "exec" {
		p = n.find(words[1], words[2])
	}
	if p == nil || p.process == nil {
		http.Error(w, "this kubelet does not serve "+r.URL.Path, http.StatusNotFound)
		return
	}
	kubelet.ServeExec(w, r, func(words []string) (*exec.Cmd, error) { return p.command(words), nil })
}
