package main

// templates are all that the chart has of the kustomize files. What a component adds by its kustomization.yaml is in the
// edits of the Deployments.
var templates = concat(daemonTemplates, publisherTemplates, readerTemplates, []template{alerts})

func concat(all ...[]template) (joined []template) {
	for _, some := range all {
		joined = append(joined, some...)
	}
	return joined
}

const (
	ofDaemon    = ".Values.daemon.enabled"
	ofPublisher = ".Values.publisher.enabled"
	ofReader    = ".Values.reader.enabled"
	isolated    = " .Values.networkPolicy.enabled"
)

var daemonTemplates = []template{
	{from: "local/account.yaml", to: "daemon/account.yaml", when: ofDaemon, edits: []edit{
		{"  # The policies allow mirrors to be created", `  {{- with include "service-mirror.daemon.annotations" . }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
  # The policies allow mirrors to be created`},
	}},
	{from: "local/rbac.yaml", to: "daemon/rbac.yaml", when: ofDaemon},
	{from: "local/policy.yaml", to: "daemon/policy.yaml", when: ofDaemon, edits: []edit{
		{"#\n# The namespace and name of its ServiceAccount are in each policy: if you change them, change them here, too.\n", ""},
	}},
	{from: "local/own-ranges/rbac.yaml", to: "daemon/own-ranges.yaml", when: "and " + ofDaemon + " .Values.daemon.ownRanges"},
	{from: "local/create-namespaces/rbac.yaml", to: "daemon/create-namespaces.yaml", when: "and " + ofDaemon + " .Values.daemon.createNamespaces"},
	{from: "local/endpointslices/rbac.yaml", to: "daemon/endpointslices.yaml", when: "and " + ofDaemon + " .Values.daemon.endpointSlices"},
	{from: "local/disruption.yaml", to: "daemon/disruption.yaml", when: ofDaemon},
	{from: "local/network.yaml", to: "daemon/network.yaml", when: "and " + ofDaemon + isolated, edits: []edit{
		{apiServers, `  - ports: {{ include "service-mirror.daemon.ports" . }}`},
		{"  - ports: [{port: 53, protocol: UDP}, {port: 53}]\n", "  - ports: [{port: 53, protocol: UDP}, {port: 53}]\n" + moreEgress},
	}},
	{from: "local/deployment.yaml", to: "daemon/deployment.yaml", when: ofDaemon, edits: concatEdits(pods("daemon"), []edit{
		{`        command: [service-mirror, --leader-elect, "--listen=:8080", --remotes-from=service-mirror]
`, `        command:
        - service-mirror
        - --leader-elect
        - --listen=:8080
        - --remotes-from=` + namespace + `
        {{- if .Values.daemon.createNamespaces }}
        - --create-namespaces
        {{- end }}
        {{- if .Values.daemon.endpointSlices }}
        - --endpoints-api=endpointslices
        {{- end }}
        {{- range .Values.daemon.flags }}
        - {{ . | quote }}
        {{- end }}
`},
	})},
}

var publisherTemplates = []template{
	{from: "publish/account.yaml", to: "publisher/account.yaml", when: ofPublisher, edits: []edit{
		{"service-mirror.io/gateway: ingress/public", "service-mirror.io/gateway: {{ .Values.publisher.gateway | quote }}"},
		{`service-mirror.io/ingress-class: ""`, "service-mirror.io/ingress-class: {{ .Values.publisher.ingressClass | quote }}"},
		{" Change them\n  # only here: kustomization.yaml copies them into the Deployment and the component listeners.", ""},
	}},
	{from: "publish/rbac.yaml", to: "publisher/rbac.yaml", when: ofPublisher},
	{from: "publish/policy.yaml", to: "publisher/policy.yaml", when: ofPublisher},
	{from: "publish/disruption.yaml", to: "publisher/disruption.yaml", when: ofPublisher},
	{from: "publish/network.yaml", to: "publisher/network.yaml", when: "and " + ofPublisher + isolated, edits: []edit{
		{apiServers, `  - ports: {{ include "service-mirror.ports" .Values.networkPolicy.apiServerPorts }}`},
		{"  - ports: [{port: 53, protocol: UDP}, {port: 53}]\n", "  - ports: [{port: 53, protocol: UDP}, {port: 53}]\n" + moreEgress},
	}},
	{from: "publish/deployment.yaml", to: "publisher/deployment.yaml", when: ofPublisher, edits: concatEdits(pods("publisher"), []edit{
		{"        args:  # change these: the name of this cluster in the --remote of other clusters, and what routes to its Services\n        - --name=paris\n" +
			"        - --to=gateway-api\n        - --gateway=$(GATEWAY)\n        # - --to=ingress\n        # - --ingress-class=$(INGRESS_CLASS)\n",
			`        args:
        {{- if not .Values.publisher.names }}{{ fail "publisher.names: set the name that other clusters' remotes have for this cluster" }}{{ end }}
        {{- if not .Values.publisher.to }}{{ fail "publisher.to: set gateway-api, ingress or names" }}{{ end }}
        {{- range .Values.publisher.names }}
        - --name={{ . }}
        {{- end }}
        {{- range .Values.publisher.to }}
        - --to={{ . }}
        {{- end }}
        {{- if and (has "gateway-api" .Values.publisher.to) (.Values.publisher.gateway | required "publisher.gateway: set NAMESPACE/NAME of the Gateway that routes attach to") }}
        - --gateway=$(GATEWAY)
        {{- end }}
        {{- if and (has "ingress" .Values.publisher.to) (.Values.publisher.ingressClass | required "publisher.ingressClass: set the IngressClass of the Ingresses") }}
        - --ingress-class=$(INGRESS_CLASS)
        {{- end }}
        {{- if ne .Values.publisher.clusterDomain "cluster.local" }}
        - --cluster-domain={{ .Values.publisher.clusterDomain }}
        {{- end }}
        {{- range .Values.publisher.flags }}
        - {{ . | quote }}
        {{- end }}
`},
		{`- {name: GATEWAY, value: ""}  # this and the next one are copied from account.yaml`, `- {name: GATEWAY, value: {{ .Values.publisher.gateway | quote }}}`},
		{`- {name: INGRESS_CLASS, value: ""}`, `- {name: INGRESS_CLASS, value: {{ .Values.publisher.ingressClass | quote }}}`},
	})},
	{from: "publish/listeners/role.yaml", to: "publisher/listeners.yaml", when: "and " + ofPublisher + " .Values.publisher.listeners", edits: []edit{
		{": kustomization.yaml has them from account.yaml.", ".\n{{- $gateway := splitList \"/\" (.Values.publisher.gateway | required \"publisher.gateway: set NAMESPACE/NAME of the Gateway that gets the listeners\") }}"},
		{"  namespace: ingress\n", "  namespace: {{ index $gateway 0 }}\n"},
		{"resourceNames: [public]", "resourceNames: [{{ index $gateway 1 }}]"},
	}},
	{from: "publish/names/namespace.yaml", to: "publisher/names-namespace.yaml", when: toNames},
	{from: "publish/names/role.yaml", to: "publisher/names-role.yaml", when: toNames},
	{from: "publish/names/policy.yaml", to: "publisher/names-policy.yaml", when: toNames, edits: []edit{
		{".svc.cluster.local'", ".svc.{{ .Values.publisher.clusterDomain }}'"},
		{"#\n# The namespace and name of the ServiceAccount are in the policy, and the DNS domain of this cluster, which is that of\n" +
			"# --cluster-domain: if you change them, change them here, too.\n", ""},
	}},
}

const toNames = `and ` + ofPublisher + ` (has "names" .Values.publisher.to)`

var readerTemplates = []template{
	{from: "remote/account/account.yaml", to: "reader/account.yaml", when: ofReader},
	{from: "remote/everywhere.yaml", to: "reader/everywhere.yaml", when: "and " + ofReader + " (not .Values.reader.namespaces)"},
	{from: "remote/identity/role.yaml", to: "reader/identity.yaml", when: "and " + ofReader + " .Values.reader.namespaces", edits: readerLabels},
	{from: "remote/namespace/role.yaml", to: "reader/namespaces.yaml", when: ofReader,
		edits: each(".Values.reader.namespaces", "service-mirror-reader", "", "")},
	{from: "remote/gateway/role.yaml", to: "reader/gateways.yaml", when: ofReader,
		edits: each(".Values.reader.gateways", "service-mirror-reader:service:", "gateway", "  # in gateway=ingress/gateway; the Role is named after it, too")},
	{from: "remote/gateway-api/role.yaml", to: "reader/gateway-api.yaml", when: ofReader,
		edits: each(".Values.reader.gatewayAPI", "service-mirror-reader:gateway:", "public", "  # in gateway=gateway-api:ingress/public; the Role is named after it, too")},
	{from: "remote/gateway-api/listenersets.yaml", to: "reader/listenersets.yaml", when: "and " + ofReader + " .Values.reader.gatewayAPI", edits: readerLabels},
	{from: "remote/configmap/role.yaml", to: "reader/configmaps.yaml", when: ofReader,
		edits: each(".Values.reader.configMaps", "service-mirror-reader:configmap:", "tcp-services", "  # in tcp-services=ingress/tcp-services; the Role is named after it, too")},
	{from: "remote/records/role.yaml", to: "reader/records.yaml", when: ofReader,
		edits: each(".Values.reader.records", "service-mirror-reader:records", "", "")},
}

// readerLabels are those that the kustomizations add, to find all of them.
var readerLabels = []edit{{"metadata:\n", "metadata:\n  labels: {app.kubernetes.io/name: service-mirror-reader}\n"}}

// each repeats a file for each of some values: a namespace, or NAMESPACE/NAME of what the role is about, whose example
// name in the file is after the prefix.
func each(values, prefix, example, comment string) []edit {
	edits := concatEdits(readerLabels, []edit{
		{"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n", "{{- range " + values + " }}\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n"},
		{"  labels: {app", "  namespace: {{ splitList \"/\" . | first }}\n  labels: {app"},
		{reader, `{{ include "service-mirror.reader.account" $ }}`},
		{namespace, "{{ $.Release.Namespace }}"},
		{"name: " + `{{ include "service-mirror.reader.account" $ }}}` + "\n", "name: " + `{{ include "service-mirror.reader.account" $ }}}` + "\n{{- end }}\n"},
	})
	if example == "" {
		return edits
	}
	return concatEdits(edits, []edit{
		{"name: " + prefix + example, "name: " + prefix + `{{ splitList "/" . | last }}`},
		{"resourceNames: [" + example + "]" + comment, `resourceNames: [{{ splitList "/" . | last }}]`},
	})
}

const (
	apiServers = "  - ports: [{port: 443}, {port: 6443}]"
	moreEgress = "  {{- with .Values.networkPolicy.egress }}\n  {{- toYaml . | nindent 2 }}\n  {{- end }}\n"
)

// pods are the edits of both Deployments.
func pods(side string) []edit {
	values := ".Values." + side
	account := map[string]string{"daemon": daemon, "publisher": publisher}[side]
	memory := map[string]string{
		"daemon": "        resources:  # measured: 36 MB without mirrors, 46 with 2,000, 82 with 10,000 (117 while they are created); 0.1 % of a core at rest\n" +
			"          requests: {cpu: 20m, memory: 64Mi}\n          limits: {memory: 256Mi}\n",
		"publisher": "        resources:\n          requests: {cpu: 20m, memory: 64Mi}\n          limits: {memory: 256Mi}  # 10,000 exports need about 150 MB\n",
	}[side]
	return []edit{
		{"  replicas: 2 ", "  replicas: {{ " + values + ".replicas }} "},
		{"        image: service-mirror\n", "        image: {{ include \"service-mirror.image\" . | quote }}\n" +
			"        {{- with .Values.image.pullPolicy }}\n        imagePullPolicy: {{ . }}\n        {{- end }}\n"},
		{"        prometheus.io/port: \"8080\"\n", "        prometheus.io/port: \"8080\"\n        {{- with " + values + ".podAnnotations }}\n        {{- toYaml . | nindent 8 }}\n        {{- end }}\n"},
		{"      serviceAccountName: " + account + "\n", "      serviceAccountName: " + account + "\n" +
			"      {{- with " + values + ".pod }}\n      {{- toYaml . | nindent 6 }}\n      {{- end }}\n"},
		{memory, "        resources:\n          {{- toYaml " + values + ".resources | nindent 10 }}\n"},
		{"        ports:\n        - {name: http", "        {{- with " + values + ".env }}\n        {{- toYaml . | nindent 8 }}\n        {{- end }}\n        ports:\n        - {name: http"},
	}
}

func concatEdits(all ...[]edit) (joined []edit) {
	for _, some := range all {
		joined = append(joined, some...)
	}
	return joined
}

// alerts are those of deploy/monitoring as one object of Prometheus' operator.
var alerts = template{from: "monitoring/alerts.yaml", to: "monitoring/rule.yaml", when: ".Values.monitoring.prometheusRule.enabled", indent: "  ", edits: []edit{
	{"  groups:\n", `apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: service-mirror
  namespace: {{ .Release.Namespace }}
  {{- with .Values.monitoring.labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  groups:
`},
	{runbook, `{{ $.Values.monitoring.prometheusRule.runbook }}`},
}}

// runbook is the page that the alerts name, each with the section of its own.
const runbook = "https://service-mirror.io/deploy/guides/operations.md"
