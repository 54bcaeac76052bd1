package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const publicGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: ingress, name: public}
spec:
  gatewayClassName: tested
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: web, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {namespace: shop, name: databases}
spec:
  parentRef: {namespace: ingress, name: public}
  listeners: [{name: pg, port: 15432, protocol: TCP}]
`

// publicGateway creates the Gateway ingress/public in paris, with a ListenerSet that it has accepted.
func (e *env) publicGateway(ip string) {
	e.Helper()
	e.must(paris.ApplyGatewayAPI(e.ctx, "../gatewayapi", "gateways", "listenersets"))
	file := filepath.Join(e.TempDir(), "gateway.yaml")
	e.must(os.WriteFile(file, []byte(publicGateway), 0o600))
	e.kubectl(paris, "apply", "-f", file)
	status := func(namespace, resource, name, content string) {
		e.kubectl(paris, "patch", resource, name, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch", `{"status": `+content+`}`)
	}
	status("ingress", "gateways.gateway.networking.k8s.io", "public", `{"addresses": [{"type": "IPAddress", "value": "`+ip+`"}]}`)
	status("shop", "listenersets.gateway.networking.k8s.io", "databases",
		`{"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}`)
}

// A gateway that has no Service, and the records of a publisher: a link grants what the daemon needs for them, and no more.
func TestLinkWithRecords(t *testing.T) {
	for _, telling := range tellings {
		t.Run(telling.name, func(t *testing.T) {
			e := newEnv(t)
			inParis := e.mark(paris)
			e.namespace("shop", london, paris)
			e.namespace("ingress", paris)
			e.publicGateway("203.0.113.1")
			e.apply(london, shipped("local"))
			e.cleanup(func(e *env) {
				e.kubectl(paris, "delete", "--ignore-not-found", "--namespace", "ingress", "-k", shipped("remote/gateway-api"))
			})
			says := e.link("gateway=gateway-api:ingress/public", "records=service-mirror")
			if strings.Contains(says, "does not exist yet") {
				t.Errorf("it does not find the Gateway:\n%s", says)
			}
			e.linked("gateway=gateway-api:ingress/public", "records=service-mirror")
			e.allowed("80", "15432") // of its listeners, those of the ListenerSet included
			for _, g := range e.grants(paris, reader) {
				if g.Namespace == "" && g.Resource == "configmaps" || g.Resource == "gateways" && (g.Namespace != "ingress" || g.Name != "public") {
					t.Errorf("%s may %v", reader, g)
				}
			}

			e.export("shop", "bar", 5432)
			bar, err := paris.CoreV1().Services("shop").Get(e.ctx, "bar", metav1.GetOptions{})
			e.must(err)
			record := &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "shop.bar", Labels: map[string]string{"service-mirror.io/record": "v1"}},
				Data: map[string]string{"record.json": fmt.Sprintf(
					`{"namespace": "shop", "name": "bar", "uid": %q, "ready": true, "ports": [{"port": 5432, "protocol": "TCP", "gateway": 15432, "class": "tcp"}]}`, bar.UID)},
			}
			_, err = paris.CoreV1().ConfigMaps(ours).Create(e.ctx, record, metav1.CreateOptions{})
			e.must(err)
			e.runPod(telling.environment...)
			e.mirrored("shop", "bar-paris", 5432, byKubernetes, "203.0.113.1:15432")
			e.permissions(paris, reader, inParis, telling.excused)
		})
	}
}
