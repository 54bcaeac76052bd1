package deploy

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// gatewayFiles is what a folder of deploy/gateways renders to.
type gatewayFiles struct {
	service    corev1.Service
	deployment appsv1.Deployment
	configMaps map[string]corev1.ConfigMap
}

// renderGateway renders deploy/gateways/KIND with these components, and has an API server accept it.
func (e *env) renderGateway(kind string, components ...string) (files gatewayFiles) {
	e.Helper()
	dir := e.TempDir()
	e.must(os.CopyFS(dir, os.DirFS(shipped(filepath.Join("gateways", kind)))))
	if len(components) > 0 {
		path := filepath.Join(dir, "kustomization.yaml")
		text, err := os.ReadFile(path)
		e.must(err)
		for _, component := range components {
			if !strings.Contains(string(text), "\n# components: ["+component+"]") {
				e.Fatalf("%s: kustomization.yaml does not offer the component %s", kind, component)
			}
		}
		e.must(os.WriteFile(path, append(text, "components: ["+strings.Join(components, ", ")+"]\n"...), 0o644))
	}
	e.kubectl(london, "apply", "--dry-run=server", "-k", dir)
	files.configMaps = map[string]corev1.ConfigMap{}
	for _, object := range strings.Split(e.kubectl(london, "kustomize", dir), "\n---\n") {
		var kind struct{ Kind string }
		e.must(yaml.Unmarshal([]byte(object), &kind))
		switch kind.Kind {
		case "Service":
			e.must(yaml.UnmarshalStrict([]byte(object), &files.service))
		case "Deployment":
			e.must(yaml.UnmarshalStrict([]byte(object), &files.deployment))
		case "ConfigMap":
			var config corev1.ConfigMap
			e.must(yaml.UnmarshalStrict([]byte(object), &config))
			name, _, _ := strings.Cut(config.Name, "-")
			files.configMaps[name] = config
		}
	}
	return files
}

// listening are the ways in which the configurations of nginx, HAProxy, Envoy and Caddy have a port.
var listening = regexp.MustCompile(`(?m)\blisten (?:\[::\]:)?(\d+)|\bbind :(\d+)|address: "::", port_value: (\d+)|^:(\d+) \{`)

// listens are the ports at which the gateway listens.
func (g gatewayFiles) listens() []int {
	texts := slices.Collect(maps.Values(g.configMaps["gateway"].Data))
	for _, variable := range g.deployment.Spec.Template.Spec.Containers[0].Env {
		texts = append(texts, variable.Value)
	}
	found := map[int]bool{}
	for _, match := range listening.FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
		number, err := strconv.Atoi(strings.Join(match[1:], ""))
		found[number] = err == nil
	}
	return slices.Sorted(maps.Keys(found))
}

// targets are the pod's ports that the Service routes to, and that of the probes.
func (g gatewayFiles) targets() []int {
	container := g.deployment.Spec.Template.Spec.Containers[0]
	wanted := []intstr.IntOrString{container.ReadinessProbe.HTTPGet.Port}
	for _, port := range g.service.Spec.Ports {
		wanted = append(wanted, port.TargetPort)
	}
	var numbers []int
	for _, target := range wanted {
		number := target.IntValue()
		for _, port := range container.Ports {
			if target == intstr.FromString(port.Name) {
				number = int(port.ContainerPort)
			}
		}
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// ports are those of the Service, as NUMBER/PROTOCOL.
func (g gatewayFiles) ports() []string {
	var ports []string
	for _, port := range g.service.Spec.Ports {
		protocol := port.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		ports = append(ports, fmt.Sprintf("%d/%s", port.Port, protocol))
	}
	slices.Sort(ports)
	return ports
}

// TestGatewaysAreClosed: as they ship, the gateways have no port that is one Service's, reach nothing that is not
// exported, and listen where their Service routes to and nowhere else. Each reserved port of the example is in all of
// the places where it must be, and mtls closes it.
func TestGatewaysAreClosed(t *testing.T) {
	e := newEnv(t)
	e.namespace("gateway", london)
	byName := []string{"443/TCP", "80/TCP", "9443/TCP", "9444/TCP"} // routed by Host or SNI
	for kind, test := range map[string]struct{ ports, reserved []string }{
		"nginx":   {append([]string{"50051/TCP"}, byName...), []string{"15432/TCP", "15353/UDP"}},
		"haproxy": {append([]string{"50051/TCP"}, byName...), []string{"15432/TCP"}},
		"envoy":   {byName, []string{"15432/TCP", "15353/UDP"}},
		"caddy":   {[]string{"443/TCP", "50051/TCP", "80/TCP", "9444/TCP"}, nil},
	} {
		t.Run(kind, func(t *testing.T) {
			e := newEnv(t)
			shipped := e.renderGateway(kind)
			e.inStep(shipped, test.ports)
			if len(shipped.configMaps) != 1 {
				t.Errorf("there are %d ConfigMaps, want the gateway's alone", len(shipped.configMaps))
			}
			e.reachesExportedAlone(shipped)
			if test.reserved == nil {
				return
			}
			reserved := e.renderGateway(kind, "reserved-ports")
			e.inStep(reserved, slices.Concat(test.ports, test.reserved))
			for number, service := range reserved.configMaps["tcp"].Data {
				if !slices.Contains(reserved.ports(), number+"/TCP") {
					t.Errorf("tcp-services has %s for %s, the Service has %v", number, service, reserved.ports())
				}
			}
			if closed := e.renderGateway(kind, "reserved-ports", "mtls"); !slices.Equal(closed.ports(), []string{"443/TCP", "9444/TCP"}) {
				t.Errorf("with mtls the Service has %v", closed.ports())
			}
		})
	}
}

// inStep checks the ports of a gateway's Service, and that it listens to those alone.
func (e *env) inStep(g gatewayFiles, want []string) {
	e.Helper()
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(g.ports(), want) {
		e.Errorf("the Service has the ports %v, want %v", g.ports(), want)
	}
	if !slices.Equal(g.listens(), g.targets()) {
		e.Errorf("it listens at %v, its Service and probes use %v", g.listens(), g.targets())
	}
}

// reachesExportedAlone checks the setting that opens every Service: each gateway has one of these.
func (e *env) reachesExportedAlone(g gatewayFiles) {
	e.Helper()
	config := g.configMaps["gateway"].Data
	settings := 0
	for _, variable := range g.deployment.Spec.Template.Spec.Containers[0].Env {
		if variable.Name == "REACHABLE" {
			settings++
			if variable.Value != "exported" {
				e.Errorf("REACHABLE is %q", variable.Value)
			}
		}
	}
	if text, ok := config["reachable.conf"]; ok {
		settings++
		if !strings.Contains(text, "{ default exported; }") {
			e.Errorf("reachable.conf has\n%s", text)
		}
	}
	if text, ok := config["exported"]; ok {
		settings++
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				e.Errorf("exported lists %s", line)
			}
		}
		if !strings.HasSuffix(config["exported-tls.yaml"], "permissions:\n          - not_rule: {any: true}\n") {
			e.Errorf("exported-tls.yaml has\n%s", config["exported-tls.yaml"])
		}
	}
	if settings != 1 {
		e.Errorf("%d settings say what is reached, want one", settings)
	}
}
