{{- define "service-mirror.daemon.account" -}}
{{ .Values.daemon.serviceAccount.name | default "service-mirror" }}
{{- end }}

{{- define "service-mirror.publisher.account" -}}
{{ .Values.publisher.serviceAccount.name | default "service-mirror-publish" }}
{{- end }}

{{- define "service-mirror.reader.account" -}}
{{ .Values.reader.serviceAccount.name | default "service-mirror-reader" }}
{{- end }}

{{- define "service-mirror.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /*
The data of a remote's Secret: the kubeconfig, and each key of --remote, with a line for each of its values.
*/}}
{{- define "service-mirror.remote" -}}
{{- $data := dict "kubeconfig" .kubeconfig }}
{{- range .keys }}
{{- $key := regexReplaceAll "=.*" . "" }}
{{- $value := trimPrefix (printf "%s=" $key) . }}
{{- if hasKey $data $key }}{{ $value = printf "%s\n%s" (get $data $key) $value }}{{ end }}
{{- $_ := set $data $key $value }}
{{- end }}
{{- range $key, $value := $data }}
{{ $key }}: {{ $value | b64enc }}
{{- end }}
{{- end }}

{{- /*
The annotations of the daemon's ServiceAccount: the remotes that are configured, each with the keys that say how its
mirrors are named, which the policies check.
*/}}
{{- define "service-mirror.daemon.annotations" -}}
{{- $annotations := deepCopy .Values.daemon.serviceAccount.annotations }}
{{- $template := "" }}
{{- $free := false }}
{{- $before := "" }}
{{- range .Values.daemon.flags }}
{{- if hasPrefix "--name-template=" . }}{{ $template = printf "name=%s" (trimPrefix "--name-template=" .) }}{{ end }}
{{- if eq $before "--name-template" }}{{ $template = printf "name=%s" . }}{{ end }}
{{- if regexMatch "^--allow-names(=|$)" . }}{{ $free = regexMatch "^--allow-names(=(1|t|T|true|True|TRUE))?$" . }}{{ end }}
{{- $before = . }}
{{- end }}
{{- range $name, $remote := .Values.remotes }}
{{- $rule := list }}
{{- $own := false }}
{{- range $remote.keys }}
{{- if hasPrefix "name=" . }}{{ $own = true }}{{ end }}
{{- if or (hasPrefix "name=" .) (hasPrefix "namespace=" .) }}{{ $rule = append $rule . }}{{ end }}
{{- end }}
{{- if and $template (not $own) }}{{ $rule = append $rule $template }}{{ end }}
{{- if $free }}{{ $rule = append $rule "allow-names" }}{{ end }}
{{- $key := printf "remote.service-mirror.io/%s" $name }}
{{- if not (hasKey $annotations $key) }}{{ $_ := set $annotations $key (join "," $rule) }}{{ end }}
{{- end }}
{{- if $annotations }}{{ toYaml $annotations }}{{ end }}
{{- end }}

{{- /*
Ports of a NetworkPolicy, each once: some, and those of this cluster's API servers, which are behind Service
default/kubernetes. Without a cluster, as helm template is, they are not known.
*/}}
{{- define "service-mirror.ports" -}}
{{- $ports := list }}
{{- range . }}{{ $ports = append $ports (int .) }}{{ end }}
{{- range (lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes").ports }}{{ $ports = append $ports (int .port) }}{{ end }}
{{- $rule := list }}
{{- range uniq $ports }}{{ $rule = append $rule (printf "{port: %d}" .) }}{{ end -}}
[{{ join ", " $rule }}]
{{- end }}

{{- /* The daemon's: of the values, and of the servers in the remotes' kubeconfigs. */}}
{{- define "service-mirror.daemon.ports" -}}
{{- $ports := concat .Values.networkPolicy.apiServerPorts .Values.networkPolicy.gatewayPorts }}
{{- range $name, $remote := .Values.remotes }}
{{- range (fromYaml ($remote.kubeconfig | default "")).clusters }}
{{- $ports = append $ports (regexFind ":[0-9]+$" (urlParse .cluster.server).host | trimPrefix ":" | default "443") }}
{{- end }}
{{- end }}
{{- include "service-mirror.ports" $ports }}
{{- end }}
