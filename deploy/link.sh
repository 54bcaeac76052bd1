#!/bin/sh
# Links a remote cluster to the daemon in this one: see usage.
set -eu

usage() {
	cat <<END
usage: $0 NAME [KEY=VALUE]... [OPTION]...

Links the remote cluster NAME, say paris, to the cluster where service-mirror runs, say
london:
  1. in paris, creates a ServiceAccount that can read what is exported (deploy/remote);
  2. makes a kubeconfig of its token, paris's CA and server URL, and tries it;
  3. in london, stores that in the Secret service-mirror-remotes as NAME.kubeconfig; the
     keys of other remotes do not change;
  4. in london, names it in an annotation of the daemon's ServiceAccount, with the rule for
     the names of its mirrors, so that these may be written (deploy/local/policy.yaml);
  5. in london, adds --remote=NAME=... to the arguments of the Deployment service-mirror;
  6. waits for its rollout and sends requests to the mirrors of NAME, from the daemon's pod.
     The exit code is not 0 if one does not arrive. If no request can be sent, say because
     nothing is exported yet, it is 0, and how to verify later is printed.
Each step is printed. Run it again after a change of paris's token, CA or address, of
deploy/, or of a KEY. Nothing is deleted in paris.

NAME is a DNS label and ends the names of the mirrors, unless name= says otherwise: bar-paris.

KEY=VALUE is as in --remote, see deploy/guides/flags.md; repeatable as there:
  gateway=NS/NAME  gateway-port=NAME|NUMBER  default-gateway-port=NAME|NUMBER
  address=IP|HOSTNAME  cluster-domain=DOMAIN  uid=UID
  max-services=NUMBER  max-bytes=SIZE  name=TEMPLATE  namespace=REMOTE:LOCAL
  gateway=gateway-api:NS/NAME
                   also grants read access to this Gateway in paris, and to ListenerSets
  tcp-services=NS/NAME, udp-services=NS/NAME
                   also grants read access to these ConfigMaps in paris
  records=NS       also grants read access to the ConfigMaps in this namespace of paris, which is
                   that of service-mirror publish
  namespaces=NS,NS...
                   grants read access to Services in these namespaces of paris alone
Without any, those in the Deployment stay.

  --context NAME            london's, in your kubeconfig (default: the current one)
  --kubeconfig PATH         your kubeconfig for london (default: as kubectl does)
  --remote-context NAME     paris's (default: NAME; with --remote-kubeconfig its current one)
  --remote-kubeconfig PATH  for paris (default: the same as for london)
  --server URL              of paris's API server as pods in london reach it
                            (default: as in your kubeconfig)
  --ca FILE                 that server's CA, PEM (default: as in your kubeconfig)
  --wait DURATION           for the rollout: 90s, 5m (default: 2m; 0: send no requests)
  --undo                    removes NAME from london; its mirrors stay
  --help

KUBECTL is the kubectl to use if it is not in the path.
END
}

die() {
	echo "link.sh: $*" >&2
	exit 1
}
wrong() { # in the command line
	echo "link.sh: $*; see --help" >&2
	exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
kubectl=${KUBECTL:-kubectl}
namespace=service-mirror deployment=service-mirror secret=service-mirror-remotes
reader=service-mirror-reader
mount=/etc/service-mirror/remotes

# The command line.

name='' keys='' undo=''
context='' kubeconfig='' remote_context='' remote_kubeconfig='' server='' ca='' wait=2m
while [ $# -gt 0 ]; do
	option=$1
	case $option in
	--help | -h)
		usage
		exit 0
		;;
	--undo) undo=yes ;;
	--*=*)
		value=${option#*=} option=${option%%=*}
		shift
		set -- "$option" "$value" "$@"
		continue
		;;
	--context | --kubeconfig | --remote-context | --remote-kubeconfig | --server | --ca | --wait)
		[ -n "${2-}" ] || wrong "$option needs a value"
		shift
		case $option in
		--context) context=$1 ;;
		--kubeconfig) kubeconfig=$1 ;;
		--remote-context) remote_context=$1 ;;
		--remote-kubeconfig) remote_kubeconfig=$1 ;;
		--server) server=$1 ;;
		--ca) ca=$1 ;;
		--wait) wait=$1 ;;
		esac
		;;
	-*) wrong "$option is not known" ;;
	*=*) keys="$keys,$option" ;;
	*)
		[ -z "$name" ] || wrong "two names are given, $name and $option"
		name=$option
		;;
	esac
	shift
done

# is PATTERN VALUE succeeds if the whole value matches a regular expression.
is() { printf '%s\n' "$2" | grep -Eqx -- "$1"; }
label='[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?'

[ -n "$name" ] || wrong "no name of a remote cluster is given"
is "$label" "$name" || wrong "the name $name is not a DNS label"
[ -z "$undo" ] || [ -z "$keys" ] || wrong "--undo takes no KEY=VALUE"
[ -z "$server" ] || is 'https://[^/[:space:]"\\]+(/[^[:space:]"\\]*)?' "$server" || wrong "--server $server is not https://HOST:PORT"
[ -z "$ca" ] || grep -q 'BEGIN CERTIFICATE' "$ca" || wrong "--ca $ca: there is no certificate in it"

is '0|[1-9][0-9]*[smh]' "$wait" || wrong "--wait $wait is not a duration such as 90s or 5m, or 0"

# fields are the KEY=VALUE of --remote, one a line; namespaces=a,b is one.
fields() {
	printf '%s\n' "${1#,}" | awk '
		{ n = split($0, parts, ",") }
		END {
			for (i = 1; i <= n; i++)
				if (parts[i] !~ /=/ && field ~ /^namespaces=/) field = field "," parts[i]
				else { if (i > 1) print field; field = parts[i] }
			if (field != "") print field
		}'
}
# values are those of one key.
values() { fields "$keys" | sed -n "s/^$1=//p"; }

check_keys() {
	fields "$keys" | while IFS='=' read -r key value; do
		case $key in
		'') continue ;;
		gateway) form="(gateway-api:)?$label/$label(\\.$label)*" ;;
		tcp-services | udp-services) form="$label/$label(\\.$label)*" ;;
		records) form="$label" ;;
		name) form='[-a-z0-9{}]+' ;;
		namespace) form="$label:$label" ;;
		namespaces) form="$label(,$label)*" ;;
		gateway-port | default-gateway-port | address | cluster-domain | uid | max-services | max-bytes) form='[-A-Za-z0-9._:]+' ;;
		context) wrong "context= cannot be used here: the kubeconfig that is made has one context" ;;
		*) wrong "$key= is not known" ;;
		esac
		is "$form" "$value" || wrong "$key=$value is malformed"
	done
}
check_keys

# The clusters.

command -v "$kubectl" >/dev/null || die "$kubectl does not exist: install kubectl, or set KUBECTL=/path/to/it"

london() { "$kubectl" ${kubeconfig:+--kubeconfig "$kubeconfig"} ${context:+--context "$context"} "$@"; }
if [ -n "$remote_kubeconfig" ]; then
	: "${remote_context:=$("$kubectl" --kubeconfig "$remote_kubeconfig" config current-context)}"
else
	: "${remote_context:=$name}" "${remote_kubeconfig:=$kubeconfig}"
fi
paris() { "$kubectl" ${remote_kubeconfig:+--kubeconfig "$remote_kubeconfig"} --context "$remote_context" "$@"; }
# uid_of prints the UID of the cluster that answers one of these functions. Raw: kubectl makes no other request then.
uid_of() {
	system=$("$1" get --raw /api/v1/namespaces/kube-system --request-timeout=15s) || return
	printf '%s\n' "$system" | sed -n 's/.*"uid": *"\([^"]*\)".*/\1/p'
}

step() { printf '%s\n' "$*"; }
indent() { sed 's/^/    /'; }
note() { printf '    %s\n' "$*"; }
# quietly runs a command, indents its output, and fails if the command does.
quietly() {
	if said=$("$@" 2>&1); then
		[ -z "$said" ] || printf '%s\n' "$said" | indent
	else
		printf '%s\n' "$said" | indent >&2
		die "the step above failed: fix its cause and run this again"
	fi
}

london_uid=$(uid_of london) || die "the local cluster does not answer${context:+ in context $context}"
: "${context:=$(london config current-context)}"
found=$(london get deployment $deployment --namespace $namespace --ignore-not-found -o name) || die "cannot read the Deployment in $context"
[ -n "$found" ] || die "context $context has no Deployment $namespace/$deployment: apply it first, with
    kubectl --context $context apply -k $here/local"

# container prints a part of the Deployment's container, a line for each item.
container() {
	london get deployment $deployment --namespace $namespace \
		-o "jsonpath={range .spec.template.spec.containers[0].$1[*]}{@}{\"\\n\"}{end}"
}
# argument finds this remote among the lines of container: its index, and the value of --remote.
argument() {
	awk -v name="$name=" '
		index($0, "--remote=" name) == 1 { print NR - 1, substr($0, 10) }
		before == "--remote" && index($0, name) == 1 { print NR - 1, $0 }
		{ before = $0 }'
}
# change_arguments applies one operation to the arguments, if they are still as they were read.
change_arguments() {
	london patch deployment $deployment --namespace $namespace --type json --patch "[
		{\"op\": \"test\", \"path\": \"/metadata/resourceVersion\", \"value\": \"$version\"},
		{\"op\": \"test\", \"path\": \"/spec/template/spec/containers/0/name\", \"value\": \"$deployment\"},
		$1]"
}
args=/spec/template/spec/containers/0/args
version=$(london get deployment $deployment --namespace $namespace -o 'jsonpath={.metadata.resourceVersion}')
commands=$(container command) arguments=$(container args)
in_command=$(printf '%s\n' "$commands" | argument) in_args=$(printf '%s\n' "$arguments" | argument)
index=${in_args%% *} existing=${in_args#* }
[ -z "$in_command" ] || existing=${in_command#* }
# It may be one argument or two.
form=--remote=
! printf '%s\n' "$arguments" | grep -Fqx -- "$existing" || form=

account=$(london get deployment $deployment --namespace $namespace -o 'jsonpath={.spec.template.spec.serviceAccountName}')
account=${account:-default}
policy="service-mirror-to-$name" annotation="remote.service-mirror.io/$name"
# secret_key is this remote's key in the Secret, in base64.
secret_key() { london get secret $secret --namespace $namespace --ignore-not-found -o "jsonpath={.data['$name\\.kubeconfig']}"; }

# Undo.

if [ -n "$undo" ]; then
	[ -z "$in_command" ] || die "--remote $name is in the Deployment's command, not in its args: remove it from your manifests"
	step "$context: removing $name from the Deployment's arguments"
	if [ -z "$in_args" ]; then
		note "it is not there"
	else
		remove="{\"op\": \"remove\", \"path\": \"$args/$index\"}"
		[ "$form" = --remote= ] || remove="$remove, {\"op\": \"remove\", \"path\": \"$args/$((index - 1))\"}"
		quietly change_arguments "$remove"
	fi
	step "$context: removing $name.kubeconfig from the Secret $namespace/$secret"
	if [ -n "$(secret_key)" ]; then
		quietly london patch secret $secret --namespace $namespace --type json --patch "[{\"op\": \"remove\", \"path\": \"/data/$name.kubeconfig\"}]"
	else
		note "it is not there"
	fi
	quietly london delete networkpolicy "$policy" --namespace $namespace --ignore-not-found
	step "$context: removing the annotation $annotation from the ServiceAccount $namespace/$account"
	quietly london annotate serviceaccount "$account" --namespace $namespace "$annotation-"
	cat <<END

The mirrors of $name stay as they are. To remove them:
    service-mirror${kubeconfig:+ --kubeconfig $kubeconfig} --context $context --prune $name
Its token stays valid until you delete the account in $name. If no other cluster uses it:
    kubectl --context $remote_context --namespace $namespace delete serviceaccount $reader
END
	exit 0
fi

# Link.

paris_uid=$(uid_of paris) || die "the remote cluster does not answer in context $remote_context: use --remote-context if it has another"
[ "$london_uid" != "$paris_uid" ] || die "contexts $context and $remote_context are one cluster: use --context or --remote-context"

if [ -z "$keys" ] && [ -n "$existing" ]; then
	case $existing in *,*) keys=,${existing#*,} ;; esac
	keys=$(printf '%s\n' "$keys" | sed 's/,context=[^,]*//')
	check_keys
fi
wanted="$name=$mount/$name.kubeconfig$keys"
[ -z "$in_command" ] || [ "$existing" = "$wanted" ] ||
	die "--remote $existing is in the Deployment's command, not in its args: change it in your manifests to
    --remote $wanted"

# rule says how this remote's mirrors are called, for the policy: by its own keys, else by the flags for all remotes.
rule=$(
	fields "$keys" | grep -e '^name=' -e '^namespace=' || true
	[ -n "$(values name)" ] || printf '%s\n' "$commands" "$arguments" | awk '
		before == "--name-template" { print "name=" $0 }
		sub(/^--name-template=/, "name=")
		{ before = $0 }'
	printf '%s\n' "$commands" "$arguments" | grep -qx -e --allow-names -e --allow-names=true && echo allow-names || true
)
rule=$(printf '%s' "$rule" | tr '\n' ',')
# permitted is that rule and, while mirrors move to it from another one, that one, too.
noted=$(london get serviceaccount "$account" --namespace $namespace --ignore-not-found -o go-template="{{range \$key, \$value := .metadata.annotations}}{{if eq \$key \"$annotation\"}}={{\$value}}{{end}}{{end}}")
permitted=$rule before_rule=${noted#=}
[ -z "$noted" ] || [ "${before_rule%%;*}" = "$rule" ] || permitted="$rule;${before_rule%%;*}"

if [ -z "$(values gateway)" ] && { [ -z "$(values address)" ] || [ -z "$(values gateway-port)" ]; } &&
	! printf '%s\n%s\n' "$commands" "$arguments" | grep -Eq -- '^--gateway(=|$)'; then
	candidates=$(paris get services -A -o 'jsonpath={range .items[?(@.spec.type=="LoadBalancer")]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}')
	die "no gateway is given: add gateway=NAMESPACE/NAME of a LoadBalancer Service in $name. There is ${candidates:-none yet}"
fi
for one in $(values gateway); do
	kind=service what=Service
	case $one in gateway-api:*) kind=gateways.gateway.networking.k8s.io what=Gateway one=${one#gateway-api:} ;; esac
	[ -n "$(paris get $kind "${one#*/}" --namespace "${one%/*}" --ignore-not-found -o name)" ] ||
		step "$name: $what $one does not exist yet: until it does, mirrors have no endpoints"
done

# of_config is a field of paris's cluster in your kubeconfig.
of_config() { paris config view --raw --flatten --minify -o "jsonpath={.clusters[0].cluster.$1}"; }
given=$server
[ -n "$server" ] || server=$(of_config server)
host=${server#*://} host=${host%%/*}
port=443
case $host in
\[*\]:*) port=${host##*:} host=${host%:*} ;;
\[*\]) ;;
*:*) port=${host##*:} host=${host%:*} ;;
esac
is '[0-9]+' "$port" || die "the server URL $server has no valid port number"
case $host in
localhost | 127.* | 0.0.0.0 | '[::1]')
	[ -n "$given" ] || die "your kubeconfig has $server for $name. Pods in $context cannot reach that: use --server https://HOST:PORT"
	;;
esac

# permit applies one of the kustomizations that are for one namespace. The third argument,
# if there is one, replaces the example name in it.
permit() {
	rendered=$("$kubectl" kustomize "$here/remote/$1")
	example=${4:-}
	[ -z "$example" ] || rendered=$(printf '%s\n' "$rendered" | sed "s/\\([: ]\\)$example\$/\\1$3/")
	printf '%s\n' "$rendered" | paris apply --namespace "$2" -f -
}

if [ -z "$(values namespaces)" ]; then
	step "$name: a ServiceAccount that can read Services ($here/remote)"
	quietly paris apply -k "$here/remote"
else
	step "$name: a ServiceAccount that can read Services in $(values namespaces | tr '\n' ' ')($here/remote)"
	quietly paris apply -k "$here/remote/account"
	quietly paris apply -k "$here/remote/identity"
	for one in $(values namespaces | tr ',' ' '); do
		quietly permit namespace "$one"
	done
	for one in $(values gateway); do
		case $one,$(values namespaces), in gateway-api:* | *,"${one%/*}",*) continue ;; esac
		quietly permit gateway "${one%/*}" "${one#*/}" gateway
	done
	if [ -n "$(paris get clusterrolebinding $reader --ignore-not-found -o name)" ]; then
		note "it can still read Services everywhere, until you delete what an earlier link created:"
		note "kubectl --context $remote_context delete clusterrolebinding,clusterrole $reader"
	fi
fi
# gateways are those of the keys, else that of the Deployment's --gateway.
gateways() {
	[ -n "$(values gateway)" ] || printf '%s\n' "$commands" "$arguments" | sed -n 's/^--gateway=//p'
	values gateway
}
for one in $(gateways | sed -n 's/^gateway-api://p'); do
	quietly permit gateway-api "${one%/*}" "${one#*/}" public
done
for one in $(values records); do
	quietly permit records "$one"
done
for one in $(values tcp-services) $(values udp-services); do
	quietly permit configmap "${one%/*}" "${one#*/}" tcp-services
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
chmod 700 "$work"

authority=$(of_config certificate-authority-data) ca_from="the CA in your kubeconfig"
if [ -n "$ca" ]; then
	authority=$(base64 <"$ca" | tr -d '\n') ca_from="the CA in $ca"
fi
tls_name=$(of_config tls-server-name)
step "$name: a kubeconfig with the token of Secret $namespace/$reader, for $server"
tries=0 token=''
until token=$(paris get secret $reader --namespace $namespace -o 'jsonpath={.data.token}' | base64 -d) && [ -n "$token" ]; do
	tries=$((tries + 1))
	[ $tries -lt 30 ] || die "Secret $namespace/$reader in $name has no token after 30 s: does kube-controller-manager run there?"
	sleep 1
done
if [ -z "$authority" ] && [ "$(of_config insecure-skip-tls-verify)" = true ]; then
	# The daemon must check the certificate even if your kubeconfig does not.
	authority=$(paris get secret $reader --namespace $namespace -o 'jsonpath={.data.ca\.crt}') ca_from="the cluster's own CA"
fi
[ -n "$authority" ] || ca_from="public CAs: your kubeconfig has none"
note "its certificate is checked with $ca_from"

cat >"$work/kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: $name
contexts:
- name: $name
  context: {cluster: $name, user: $name}
clusters:
- name: $name
  cluster:
    server: $server
${authority:+    certificate-authority-data: $authority
}${tls_name:+    tls-server-name: $tls_name
}users:
- name: $name
  user:
    token: $token
END

# Permissions and tokens take a moment to take effect.
linked() { "$kubectl" --kubeconfig "$work/kubeconfig" "$@"; }
tries=0
until answer=$(uid_of linked 2>"$work/error"); do
	case $(cat "$work/error") in
	*Unauthorized* | *Forbidden* | *'must be logged in'*)
		tries=$((tries + 1))
		[ $tries -lt 15 ] || die "the API server at $server refuses the token: is it another cluster? $(cat "$work/error")"
		sleep 1
		;;
	*x509* | *certificate*) die "$server cannot be trusted with $ca_from: use --ca. $(tail -n 1 "$work/error")" ;;
	*)
		[ -n "$given" ] || die "the API server does not answer to the new kubeconfig: $(cat "$work/error")"
		note "not tried: this machine cannot reach it ($(tail -n 1 "$work/error"))"
		answer=$paris_uid
		break
		;;
	esac
done
[ "$answer" = "$paris_uid" ] || die "another cluster answers at $server than in context $remote_context"

step "$context: that kubeconfig as $name.kubeconfig in the Secret $namespace/$secret"
before=$(secret_key | base64 -d | sed -n 's/^ *server: //p')
[ "${before:-$server}" = "$server" ] || note "the server there was $before"
# With server-side apply each key has an owner of its own, so the others stay.
cat >"$work/secret" <<END
apiVersion: v1
kind: Secret
metadata:
  name: $secret
  namespace: $namespace
data:
  $name.kubeconfig: $(base64 <"$work/kubeconfig" | tr -d '\n')
END
quietly london apply --server-side --force-conflicts --field-manager "service-mirror-link-$name" -f "$work/secret"

# egress are the ports that the daemon needs for paris, and that its own policy does not allow: of the
# API server, and of the gateways, for requests that verify them.
egress() {
	{
		echo "$port"
		for one in $(values gateway); do
			paris get service "${one#*/}" --namespace "${one%/*}" --ignore-not-found -o 'jsonpath={range .spec.ports[*]}{.port}{"\n"}{end}'
		done
		values gateway-port
	} | awk '/^[0-9]+$/ && $0 != 443 && $0 != 6443 && !seen[$0]++'
}
if [ -n "$(london get networkpolicy service-mirror --namespace $namespace --ignore-not-found -o name)" ]; then
	ports=$(egress)
	if [ -z "$ports" ]; then
		quietly london delete networkpolicy "$policy" --namespace $namespace --ignore-not-found
	else
		step "$context: NetworkPolicy $namespace/$policy allows the daemon port $(printf '%s' "$ports" | tr '\n' ' ')"
		cat >"$work/policy" <<END
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: $policy
  namespace: $namespace
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/name: service-mirror}
  policyTypes: [Egress]
  egress:
  - ports:
$(printf '%s\n' "$ports" | sed 's/.*/    - {port: &, protocol: TCP}/')
END
		quietly london apply -f "$work/policy"
	fi
fi

step "$context: the annotation $annotation of the ServiceAccount $namespace/$account${rule:+: $rule}"
[ "$permitted" = "$rule" ] || note "until you run this again, the names of before are permitted, too: mirrors keep them until those with the new names are complete"
quietly london annotate serviceaccount "$account" --namespace $namespace --overwrite "$annotation=$permitted"

step "$context: the Deployment's argument --remote=$wanted"
if [ "$existing" = "$wanted" ]; then
	note "it is there already"
elif [ -n "$in_args" ]; then
	note "in place of $existing"
	quietly change_arguments "{\"op\": \"replace\", \"path\": \"$args/$index\", \"value\": \"$form$wanted\"}"
elif [ -n "$arguments" ]; then
	quietly change_arguments "{\"op\": \"add\", \"path\": \"$args/-\", \"value\": \"--remote=$wanted\"}"
else
	quietly change_arguments "{\"op\": \"add\", \"path\": \"$args\", \"value\": [\"--remote=$wanted\"]}"
fi

# Verify.

# The daemon's own command, with its flags. The image has no shell.
{ container command | grep . || echo $deployment; container args; } >"$work/command"
program=$(sed -n 1p "$work/command")
sed 1d "$work/command" >"$work/flags"
set -- verify --remote "$name"
while IFS= read -r word; do
	set -- "$@" "$word"
done <"$work/flags"
london_flags="${kubeconfig:+--kubeconfig $kubeconfig }--context $context --namespace $namespace"
# by_hand prints the command that sends the requests, for a shell.
by_hand() {
	printf 'kubectl %s exec deployment/%s --container %s -- %s' "$london_flags" $deployment $deployment "$program"
	for word; do
		is '[-A-Za-z0-9_.:/=,@%+]+' "$word" || word="'$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")'"
		printf ' %s' "$word"
	done
	echo
}
command=$(by_hand "$@")
# unverified ends the link where no request could be sent.
unverified() {
	printf '\nLinked, NOT verified: %s\nTo export a Service, and to verify:\n' "$1"
	note "kubectl --context $remote_context label service SERVICE service-mirror.io/exported=true"
	note "$command"
	exit 0
}

[ "$wait" != 0 ] || unverified "no requests are sent, because of --wait 0."
[ "$(london get deployment $deployment --namespace $namespace -o 'jsonpath={.spec.replicas}')" != 0 ] ||
	unverified "the Deployment $namespace/$deployment is scaled to 0."
step "$context: the rollout of the Deployment $namespace/$deployment"
london rollout status deployment/$deployment --namespace $namespace --timeout "$wait" 2>&1 | tee "$work/rollout"
grep -q 'successfully rolled out' "$work/rollout" || unverified "the daemon's pods are not ready: kubectl $london_flags get pods"
step "$context: requests to the mirrors of $name, from the daemon's pod"
status=0
london exec deployment/$deployment --namespace $namespace --container $deployment --pod-running-timeout 10s -- \
	"$program" "$@" 2>"$work/error" || status=$?
grep -v -e '^I[0-9]* ' -e '^command terminated' "$work/error" >&2 || true # not the log's lines
case $status,$(tail -n 1 "$work/error") in
0,*) step "Linked and verified: requests to the mirrors of $name arrive." ;;
3,*'terminated with exit code 3') unverified "$name exports nothing yet." ;;
[12],*'terminated with exit code '*)
	printf '\nLinked, but not all requests arrive: see above. To verify again:\n' >&2
	note "$command" >&2
	exit $status
	;;
*) unverified "verify cannot be run in the daemon's pod: see above." ;;
esac
