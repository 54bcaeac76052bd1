package chart

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

const remotes = `
daemon:
  flags: ["--name-template={cluster}-{service}", --allow-names]
  serviceAccount: {annotations: {remote.service-mirror.io/rome: "name={service};", a: b}}
remotes:
  rome: {keys: ["name={service}"]}
  berlin: {}
  paris:
    keys: [gateway=ingress/gateway, "name={service}", "namespace=a:b", "namespaces=a,c", gateway=ingress/other, "namespace=c:d"]
    kubeconfig: |
      clusters:
      - cluster: {server: "https://api.paris.example.com:7443/k8s"}
      - cluster: {server: "https://[2001:db8::1]:8443"}
      - cluster: {server: "https://api.paris.example.com"}
networkPolicy: {apiServerPorts: [16443], gatewayPorts: [80, 8443], egress: [{ports: [{port: 3128}]}]}
`

// A remote in the values has its permission with the names that its mirrors have, a Secret with its kubeconfig and its
// keys, and its API server's port. Of a remote whose Secret is the user's own, the chart has only the permission.
func TestRemotes(t *testing.T) {
	all := rendered(t, "elsewhere", remotes)
	container := get[appsv1.Deployment](t, all, "Deployment elsewhere/service-mirror").Spec.Template.Spec.Containers[0]
	if len(container.Args) > 0 || !slices.Contains(container.Command, "--remotes-from=elsewhere") {
		t.Errorf("the command is %q, the arguments are %q", container.Command, container.Args)
	}
	annotations := get[corev1.ServiceAccount](t, all, "ServiceAccount elsewhere/service-mirror").Annotations
	if want := map[string]string{
		"remote.service-mirror.io/berlin": "name={cluster}-{service},allow-names",
		"remote.service-mirror.io/paris":  "name={service},namespace=a:b,namespace=c:d,allow-names",
		"remote.service-mirror.io/rome":   "name={service};",
		"a":                               "b",
	}; !reflect.DeepEqual(annotations, want) {
		t.Errorf("the annotations are %q, want %q", annotations, want)
	}
	secret := get[corev1.Secret](t, all, "Secret elsewhere/service-mirror-remote-paris")
	if secret.Labels["service-mirror.io/remote"] != "paris" || !strings.Contains(string(secret.Data["kubeconfig"]), "api.paris.example.com:7443") {
		t.Errorf("the Secret is %v, with %q", secret.ObjectMeta, secret.Data)
	}
	delete(secret.Data, "kubeconfig")
	if want := map[string][]byte{
		"gateway": []byte("ingress/gateway\ningress/other"), "name": []byte("{service}"), "namespace": []byte("a:b\nc:d"), "namespaces": []byte("a,c"),
	}; !reflect.DeepEqual(secret.Data, want) {
		t.Errorf("the Secret has the keys %q, want %q", secret.Data, want)
	}
	for key := range all {
		if strings.HasPrefix(key, "Secret ") && key != "Secret elsewhere/service-mirror-remote-paris" {
			t.Errorf("there is a %s", key)
		}
	}
	egress := get[networkingv1.NetworkPolicy](t, all, "NetworkPolicy elsewhere/service-mirror").Spec.Egress
	var ports []string
	for _, rule := range egress {
		for _, port := range rule.Ports {
			ports = append(ports, port.Port.String())
		}
	}
	if want := []string{"53", "53", "3128", "16443", "80", "8443", "7443", "443"}; !slices.Equal(ports, want) {
		t.Errorf("the ports are %v, want %v", ports, want)
	}
}

// A flag counts in each form in which the daemon accepts it, and the last one counts.
func TestRulesOfFlags(t *testing.T) {
	for flags, want := range map[string]string{
		`[]`:                                   "",
		`["--name-template={service}"]`:        "name={service}",
		`[--name-template, "{service}"]`:       "name={service}",
		`[--name-template, "{service}", -v=2]`: "name={service}",
		`["--name-template={service}", --name-template, "{cluster}.{service}"]`: "name={cluster}.{service}",
		`[--name-template, "{cluster}.{service}", "--name-template={service}"]`: "name={service}",
		`[--allow-names]`:                       "allow-names",
		`[--allow-names=1]`:                     "allow-names",
		`[--allow-names=TRUE]`:                  "allow-names",
		`[--allow-names=false]`:                 "",
		`[--allow-names, --allow-names=false]`:  "",
		`[--allow-names=0, --allow-names=true]`: "allow-names",
	} {
		all := rendered(t, ours, "remotes: {paris: {}}\ndaemon: {flags: "+flags+"}")
		annotations := get[corev1.ServiceAccount](t, all, "ServiceAccount "+ours+"/service-mirror").Annotations
		if got, found := annotations["remote.service-mirror.io/paris"]; got != want || !found {
			t.Errorf("%s: the annotations are %q, want the rule %q", flags, annotations, want)
		}
	}
}

// What a Pod of either side has besides comes from the values.
func TestPods(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for side, name := range map[string]string{"daemon": "service-mirror", "publisher": "service-mirror-publish"} {
		all := rendered(t, ours, "image: {repository: registry.example.com/service-mirror, tag: ignored, pullPolicy: Always, digest: "+digest+"}\n"+side+":\n"+map[string]string{"publisher": "  names: [paris]\n  to: [names]\n"}[side]+`  enabled: true
  flags: [-v=2]
  replicas: 1
  serviceAccount: {name: somebody}
  resources: {limits: {memory: 1Gi}}
  env: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]
  podAnnotations: {a: b}
  pod: {nodeSelector: {disk: ssd}, imagePullSecrets: [{name: registry}]}
`)
		deployment := get[appsv1.Deployment](t, all, "Deployment "+ours+"/"+name)
		spec, container := deployment.Spec.Template.Spec, deployment.Spec.Template.Spec.Containers[0]
		for what, is := range map[string]bool{
			"image":       container.Image == "registry.example.com/service-mirror@"+digest,
			"pull policy": container.ImagePullPolicy == corev1.PullAlways,
			"flag":        slices.Contains(append(container.Command, container.Args...), "-v=2"),
			"replicas":    *deployment.Spec.Replicas == 1,
			"account":     spec.ServiceAccountName == "somebody",
			"resources":   container.Resources.Limits.Memory().String() == "1Gi",
			"environment": slices.ContainsFunc(container.Env, func(v corev1.EnvVar) bool { return v.Name == "HTTPS_PROXY" }),
			"pod's name":  slices.ContainsFunc(container.Env, func(v corev1.EnvVar) bool { return v.Name == "POD_NAME" }),
			"annotation":  deployment.Spec.Template.Annotations["a"] == "b" && deployment.Spec.Template.Annotations["prometheus.io/port"] == "8080",
			"node":        spec.NodeSelector["disk"] == "ssd" && len(spec.ImagePullSecrets) == 1,
			"probes":      container.ReadinessProbe != nil && container.LivenessProbe != nil,
		} {
			if !is {
				t.Errorf("%s: the %s is not that of the values: %+v", side, what, deployment.Spec)
			}
		}
	}
	args := get[appsv1.Deployment](t, rendered(t, ours, "publisher: {enabled: true, names: [a, b], to: [ingress], ingressClass: public, clusterDomain: example.com}"),
		"Deployment "+ours+"/service-mirror-publish").Spec.Template.Spec.Containers[0].Args
	want := []string{"--name=a", "--name=b", "--to=ingress", "--ingress-class=$(INGRESS_CLASS)", "--cluster-domain=example.com"}
	if !slices.Equal(args, want) {
		t.Errorf("the publisher's arguments are %q, want %q", args, want)
	}
}

// Values that would install something else than what was meant are refused, and the message says what to set.
func TestRefusedValues(t *testing.T) {
	for values, message := range map[string]string{
		"deamon: {enabled: false}":                                                       "deamon",
		"daemon: {replica: 1}":                                                           "replica",
		"remotes: {Paris: {}}":                                                           "Paris",
		"remotes: {paris: {gateway: ingress/gateway}}":                                   "gateway",
		"remotes: {paris: {keys: [gateway=ingress/gateway]}}":                            "remotes.paris.keys: gateway=ingress.gateway would have no effect without kubeconfig",
		"publisher: {enabled: true, to: [ingress]}":                                      "publisher.names: set the name",
		"publisher: {enabled: true, names: [paris]}":                                     "publisher.to: set",
		"publisher: {enabled: true, names: [paris], to: [gatewayapi]}":                   "publisher.to.0",
		"publisher: {enabled: true, names: [paris], to: [gateway-api]}":                  "publisher.gateway: set",
		"publisher: {enabled: true, names: [paris], to: [ingress]}":                      "publisher.ingressClass: set",
		"publisher: {enabled: true, names: [paris], to: [ingress], listeners: true}":     "publisher.gateway: set",
		"publisher: {enabled: true, names: [paris], to: [gateway-api], gateway: public}": "publisher.gateway",
		"networkPolicy: {apiServerPorts: [0]}":                                           "apiServerPorts",
	} {
		_, err := render(ours, values)
		// The schema's messages have paths of either form.
		if err == nil || !strings.Contains(strings.NewReplacer("/", ".", "'", "").Replace(err.Error()), message) {
			t.Errorf("%s: want it refused because of %s, got %v", values, message, err)
		}
	}
}

const monitored = `
publisher: {enabled: true, names: [paris], to: [ingress], ingressClass: public}
monitoring:
  labels: {release: prometheus}
  podMonitor: {enabled: true, interval: 10s}
  serviceMonitor: {enabled: true, interval: 20s}
  prometheusRule: {enabled: true, runbook: "https://wiki.example.com/service-mirror"}
`

// The objects of Prometheus' operator are of its types, and select what the chart has.
func TestMonitors(t *testing.T) {
	all := rendered(t, "elsewhere", monitored)
	pods := get[monitoringv1.PodMonitor](t, all, "PodMonitor elsewhere/service-mirror")
	services := get[monitoringv1.ServiceMonitor](t, all, "ServiceMonitor elsewhere/service-mirror")
	if pods.Labels["release"] != "prometheus" || services.Labels["release"] != "prometheus" {
		t.Errorf("the labels are %v and %v", pods.Labels, services.Labels)
	}
	if pods.Spec.PodMetricsEndpoints[0].Interval != "10s" || services.Spec.Endpoints[0].Interval != "20s" {
		t.Errorf("the intervals are %v and %v", pods.Spec.PodMetricsEndpoints[0].Interval, services.Spec.Endpoints[0].Interval)
	}
	for _, name := range []string{"service-mirror", "service-mirror-publish"} {
		pod := get[appsv1.Deployment](t, all, "Deployment elsewhere/"+name).Spec.Template
		service := get[corev1.Service](t, all, "Service elsewhere/"+name+"-metrics")
		port := pod.Spec.Containers[0].Ports[0].Name
		if *pods.Spec.PodMetricsEndpoints[0].Port != port || service.Spec.Ports[0].TargetPort.String() != port || services.Spec.Endpoints[0].Port != service.Spec.Ports[0].Name {
			t.Errorf("%s: the Pod's port %s is not scraped: %v, %v", name, port, pods.Spec, service.Spec)
		}
		selects(t, &pods.Spec.Selector, pod.Labels)
		selects(t, &services.Spec.Selector, service.Labels)
		selects(t, &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, pod.Labels)
	}
}

func selects(t *testing.T, selector *metav1.LabelSelector, set map[string]string) {
	t.Helper()
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	must(t, err)
	if parsed.Empty() || !parsed.Matches(labels.Set(set)) {
		t.Errorf("%v does not select %v", selector, set)
	}
}

// The rule has the alerts of deploy/monitoring, templates included, and each names its section of the page that is set.
func TestPrometheusRule(t *testing.T) {
	rule := get[monitoringv1.PrometheusRule](t, rendered(t, "elsewhere", monitored), "PrometheusRule elsewhere/service-mirror")
	var want monitoringv1.PrometheusRuleSpec
	must(t, yaml.UnmarshalStrict(contents(t, "monitoring/alerts.yaml"), &want))
	alerts := want.Groups[0].Rules
	if len(want.Groups) != 1 || len(alerts) == 0 {
		t.Fatalf("alerts.yaml has %d groups, the first with %d alerts", len(want.Groups), len(alerts))
	}
	base := regexp.MustCompile(`^https://[^#]+/operations\.md#`)
	for i := range alerts {
		annotations := alerts[i].Annotations
		url := annotations["runbook_url"]
		if !base.MatchString(url) || !strings.HasSuffix(url, "#"+strings.ToLower(alerts[i].Alert)) {
			t.Errorf("%s has the runbook_url %q, want its section of operations.md", alerts[i].Alert, url)
		}
		annotations["runbook_url"] = base.ReplaceAllString(url, "https://wiki.example.com/service-mirror#")
	}
	got, _ := json.Marshal(rule.Spec)
	expected, _ := json.Marshal(want)
	if string(got) != string(expected) {
		t.Errorf("the rule has\n%s\nwant\n%s", got, expected)
	}
}

// The notes say what an uninstall leaves, and what is missing.
func TestNotes(t *testing.T) {
	for values, want := range map[string][]string{
		"": {"no remotes yet", "WARNING: image.repository", "does not delete mirrors", "prune each\nremote first"},
		"remotes: {paris: {}}\nimage: {repository: registry.example.com/a}": {"remotes export: paris.", "a Secret in namespace elsewhere\nwith the label service-mirror.io/remote: paris"},
		"daemon: {enabled: false}\nreader: {enabled: true}":                 {"Secret elsewhere/service-mirror-reader", "removes everything"},
		"publisher: {enabled: true, names: [paris], to: [names]}":           {"does not delete what was published", "publish --prune first"},
	} {
		files, err := render("elsewhere", values)
		must(t, err)
		notes := files["service-mirror/templates/NOTES.txt"]
		for _, part := range want {
			if !strings.Contains(notes, part) {
				t.Errorf("%q: the notes do not have %q:\n%s", values, part, notes)
			}
		}
		if strings.Contains(values, "registry.example.com") && strings.Contains(notes, "WARNING") {
			t.Errorf("%q: the notes warn of it:\n%s", values, notes)
		}
	}
}
