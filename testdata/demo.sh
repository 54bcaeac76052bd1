#!/usr/bin/env bash
# Shows service-mirror at work between two real clusters on this machine, and then,
# where it runs as root on Linux, a request on its way between two others that have
# nodes. Called by `make demo`, which builds what it runs. KEEP=1 leaves the first
# two running.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../.build}
keep=${KEEP:-}
dir=$(mktemp -d "${TMPDIR:-/tmp}/service-mirror-demo.XXXXXX")
declare -A pid=()

cleanup() {
	status=$?
	trap - EXIT
	if [ -n "$keep" ] && [ $status -eq 0 ]; then
		return
	fi
	if [ $status -ne 0 ]; then
		echo
		echo "The demo failed. The daemon's log:"
		cat "$dir/service-mirror.log" 2>/dev/null || true
	fi
	for process in "${!pid[@]}"; do
		kill "${pid[$process]}" 2>/dev/null || true
	done
	wait 2>/dev/null || true
	rm -rf "$dir"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

export KUBECONFIG=$dir/london/kubeconfig:$dir/paris/kubeconfig

bold='' plain=''
if [ -t 1 ]; then
	bold=$(tput bold 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# kubectl is the one that was built with the clusters. v1 Endpoints is what this
# is about: its deprecation warning would stand between every two lines.
kubectl() { "$build/kubectl" "$@" 2> >(grep -v '^Warning: v1 Endpoints' >&2); }

# show runs a kubectl command as the reader would.
show() {
	local arg line='$ kubectl'
	for arg in "$@"; do
		case $arg in
		*[{[]*) line+=" '$arg'" ;;
		*) line+=" $arg" ;;
		esac
	done
	echo "$line"
	kubectl "$@" | sed 's/^/    /'
}

# await waits until a kubectl query answers what is expected.
await() {
	local want=$1 got=
	shift
	for _ in $(seq 100); do
		got=$(kubectl "$@" 2>/dev/null || true)
		if [ "$got" = "$want" ]; then
			return
		fi
		sleep 0.1
	done
	echo "expected '$want' from: kubectl $*, got '$got'" >&2
	exit 1
}

start_cluster() { # its name
	local name=$1
	setsid "$build/cluster" --name "$name" --dir "$dir/$name" ${keep:+--outlive-parent} >"$dir/$name.ready" 2>>"$dir/$name.progress" &
	pid[$name]=$!
}

await_cluster() {
	local name=$1
	until [ -s "$dir/$name.ready" ]; do
		if ! kill -0 "${pid[$name]}" 2>/dev/null; then
			cat "$dir/$name.progress" >&2
			exit 1
		fi
		sleep 0.1
	done
}

mirror=(--context london get service,endpoints bar-paris)
address='jsonpath={.subsets[*].addresses[*].ip}:{.subsets[*].ports[*].port}'

traffic=
if [ "$(uname)" = Linux ] && [ "$(id -u)" -eq 0 ]; then
	traffic=yes
	step "For the last step: CoreDNS, nginx and what makes networks (installed and built once)"
	"$here/traffic/setup.sh" "$build" >"$dir/setup.log" 2>&1 || { cat "$dir/setup.log" >&2; exit 1; }
	echo "    ready"
fi

step "Two clusters, London and Paris: real control planes, no nodes"
start_cluster london
start_cluster paris
await_cluster london
await_cluster paris
show --context london version
sed 's/^/    /' "$dir/london.progress" | tail -n 1
sed 's/^/    /' "$dir/paris.progress" | tail -n 1

step "Paris has a gateway: a LoadBalancer Service before any ingress controller"
kubectl --context paris create namespace ingress >/dev/null
show --context paris --namespace ingress create service loadbalancer gateway --tcp=8080
show --context paris --namespace ingress patch service gateway --subresource status --type merge \
	--patch '{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]}}}'

step "Paris has a Service bar, and exports it with a label"
show --context paris create service clusterip bar --tcp=80
show --context paris label service bar service-mirror.io/exported=true

step "The daemon runs in London, with a kubeconfig for Paris"
daemon=("$build/service-mirror" --kubeconfig "$dir/london/kubeconfig"
	--remote "paris=$dir/paris/kubeconfig" --gateway ingress/gateway)
echo "\$ service-mirror --kubeconfig london/kubeconfig --remote paris=paris/kubeconfig --gateway ingress/gateway"
setsid "${daemon[@]}" >"$dir/service-mirror.log" 2>&1 &
pid[daemon]=$!

step "London has bar-paris, and it routes to Paris's gateway"
await 203.0.113.1:8080 --context london get endpoints bar-paris -o "$address"
show "${mirror[@]}"
ip=$(kubectl --context london get service bar-paris -o 'jsonpath={.spec.clusterIP}')

step "bar moves to port 81: bar-paris follows"
show --context paris patch service bar --type json --patch '[{"op":"replace","path":"/spec/ports/0/port","value":81}]'
await 81 --context london get service bar-paris -o 'jsonpath={.spec.ports[*].port}'
show "${mirror[@]}"

step "The gateway gets another address, and a second one: bar-paris follows"
show --context paris --namespace ingress patch service gateway --subresource status --type merge \
	--patch '{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.7"},{"ip":"203.0.113.8"}]}}}'
await '203.0.113.7 203.0.113.8:8080' --context london get endpoints bar-paris -o "$address"
show "${mirror[@]}"

step "Paris's control plane goes away: updates stop, bar-paris stays"
kill "${pid[paris]}"
wait "${pid[paris]}" || true
for _ in $(seq 100); do
	grep -q 'mirrors are kept unchanged' "$dir/service-mirror.log" && break
	sleep 0.1
done
echo "    $(grep 'mirrors are kept unchanged' "$dir/service-mirror.log" | tail -n 1 | cut -c1-150)…"
show "${mirror[@]}"

step "Somebody deletes bar-paris by hand: it is recreated, with the same ClusterIP"
show --context london delete service bar-paris
await "$ip" --context london get service bar-paris -o 'jsonpath={.spec.clusterIP}'
await '203.0.113.7 203.0.113.8:8080' --context london get endpoints bar-paris -o "$address"
show "${mirror[@]}"

step "Paris comes back and no longer exports bar: bar-paris goes"
: >"$dir/paris.ready"
start_cluster paris
await_cluster paris
show --context paris label service bar service-mirror.io/exported-
await '' --context london get service,endpoints bar-paris --ignore-not-found -o name
show --context london get service,endpoints bar-paris --ignore-not-found
echo "    (nothing)"

step "What the daemon said meanwhile"
sed -E 's/^/    /; s/ +[0-9]+ [a-z]+\.go:[0-9]+\]//' "$dir/service-mirror.log" | cut -c1-170

if [ -n "$traffic" ]; then
	step "The request itself, between two clusters with nodes, kube-proxy and CoreDNS"
	BUILD=$build "$here/traffic/demo.sh"
else
	step "As root on Linux this would end with the request itself, from a pod in London to bar"
fi

if [ -z "$keep" ]; then
	step "Done; cleaning up. (KEEP=1 leaves the clusters running.)"
	exit 0
fi
kubectl --context paris label service bar service-mirror.io/exported=true >/dev/null
await "203.0.113.7 203.0.113.8:8080" --context london get endpoints bar-paris -o "$address"
step "Both clusters and the daemon are left running. To play with them:"
cat <<END
    export KUBECONFIG=$KUBECONFIG
    alias kubectl=$build/kubectl
    kubectl --context london get service,endpoints --show-labels
    kubectl --context paris create service clusterip baz --tcp=8080
    kubectl --context paris label service baz service-mirror.io/exported=true
    kubectl --context london get service baz-paris
    tail -f $dir/service-mirror.log
To stop them:
    kill ${pid[daemon]} ${pid[london]} ${pid[paris]}; rm -rf $dir
END
