package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// publishing runs service-mirror publish in paris, as the ServiceAccount that it ships with and limited by its policies. No
// other test does: a cluster has one publisher.
func (r *remote) publishing() *harness.Process {
	r.env.Helper()
	kubeconfig := filepath.Join(r.env.TempDir(), "publish.kubeconfig")
	r.env.must(r.InstallPublisher(r.env.ctx, harness.Publisher{From: "../../deploy/publish", Gateway: r.env.id + "/gateway", Edit: harness.ExportByAnyValue}, kubeconfig))
	p, err := harness.Start(exec.Command(program("service-mirror-race"), "publish", "--kubeconfig", kubeconfig, "--name", r.name, "--to", "gateway-api",
		"--gateway", r.env.id+"/gateway", "--export-selector", exportLabel+"="+r.env.id))
	r.env.must(err)
	r.env.Cleanup(func() {
		if err := p.Stop(15 * time.Second); err != nil {
			r.env.Errorf("the publisher was stopped: %v", err)
		}
		if p.Log.Count("DATA RACE") > 0 || r.env.Failed() {
			r.env.Errorf("log of the publisher:\n%s", p.Log)
		}
	})
	return p
}

// With a publisher in paris, and a Gateway without a Service, exporting a Service is one label, whatever its ports speak:
// london has each of them by its record.
func TestPublished(t *testing.T) {
	e := newEnv(t)
	e.must(gatewayAPI())
	r := e.remote(paris)
	publisher := harness.PublisherAccount.Namespace
	r.prefix, r.keys = "gateway-api:", ",records="+publisher
	r.allow("gateway", rbacv1.PolicyRule{APIGroups: []string{gatewayGroup}, Resources: []string{"gateways"}, ResourceNames: []string{"gateway"}, Verbs: []string{"list", "watch"}})
	r.object("gateways", "Gateway", "gateway", map[string]any{"gatewayClassName": "tested", "listeners": []listener{{"web", 80, "HTTP"}, {"tcp-0", 15000, "TCP"}, {"tcp-1", 15001, "TCP"}}})
	r.addresses(true, "203.0.113.7")
	r.publishing()
	r.allowIn(publisher, "records", recordsRule)
	d := e.daemon([]*remote{r})
	begin := time.Now()
	r.export("bar", func(svc *corev1.Service) {
		svc.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "grpc", Port: 50051}, {Name: "postgres", Port: 5432}}
	})
	const at = "203.0.113.7 "
	e.soon("each by its record", r.leads("bar", at+"grpc:15000", at+"http:80", at+"postgres:15001"))
	t.Logf("served after %v", time.Since(begin).Round(time.Millisecond))
	e.logs(d, e.id+"/bar", "NoReadyEndpoint")
	r.postgres("late")
	e.logs(d, e.id+"/late", "PortNotServed", "the remote's publisher has no route to it")
	e.soon("there is none left", r.leads("late"))
	r.patch("gateways", "gateway", map[string]any{"spec": map[string]any{"listeners": []listener{{"web", 80, "HTTP"}, {"tcp-0", 15000, "TCP"}, {"tcp-1", 15001, "TCP"}, {"tcp-2", 15002, "TCP"}}}})
	e.soon("there is one more", r.leads("late", to("pg:15002", "203.0.113.7")...))
	begin = time.Now()
	e.change(paris, "bar", e.unlabel)
	e.soon("it is closed", r.gone("bar"))
	t.Logf("closed after %v", time.Since(begin).Round(time.Millisecond))
	e.must(r.leads("late", to("pg:15002", "203.0.113.7")...)())
}
