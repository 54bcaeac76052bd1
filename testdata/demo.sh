#!/usr/bin/env bash
# Shows service-mirror at work: a request on its way between two real clusters with nodes on this machine, where it runs
# as root on Linux, and then step by step how a mirror follows an exported Service, between two real control planes.
# Called by `make demo`.
#
#   KEEP=1             leaves the control planes of the second part running
#   REQUEST=no         leaves the request out
#   KUBEBUILDER_ASSETS a directory with kube-apiserver, etcd and kubectl, as setup-envtest installs them: the second part
#                      runs these, and comes first, while Kubernetes is compiled for the request
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../.build}
keep=${KEEP:-}
assets=${KUBEBUILDER_ASSETS:-}
version=${VERSION:-$(git -C "$here" describe --tags --always --dirty 2>/dev/null || echo dev)}
mkdir -p "$build"
build=$(cd "$build" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/service-mirror-demo.XXXXXX")
declare -A pid=() builds=()
printed=0 # lines of what the builds say

request=
if [ "${REQUEST:-}" != no ] && [ "$(uname)" = Linux ] && [ "$(id -u)" -eq 0 ]; then
	request=yes
fi
if [ -n "$assets" ] && ! { [ -x "$assets/kube-apiserver" ] && [ -x "$assets/etcd" ]; }; then
	echo "KUBEBUILDER_ASSETS=$assets has no kube-apiserver and etcd; Kubernetes is compiled instead." >&2
	assets=
fi

cleanup() {
	status=$?
	trap - EXIT
	if [ -n "$keep" ] && [ $status -eq 0 ]; then
		return
	fi
	if [ $status -ne 0 ] && [ $status -ne 130 ]; then
		echo
		echo "The demo failed."
		if [ -s "$dir/service-mirror.log" ]; then
			echo "The daemon's log:"
			cat "$dir/service-mirror.log"
		fi
	fi
	for process in "${!pid[@]}"; do
		kill "${pid[$process]}" 2>/dev/null || true
	done
	for name in "${!builds[@]}"; do
		kill -- "-${builds[$name]}" 2>/dev/null || true
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

# start_build starts the build of something, as a function of this script, in a process group of its own. await_builds
# waits for some, and prints meanwhile how far all of them are.
start_build() { # function
	touch "$dir/builds"
	set -m
	"$1" >>"$dir/builds" 2>&1 </dev/null &
	set +m
	builds[$1]=$!
}

await_builds() { # function...
	local name failed=
	sleep infinity & # tail ends, and has printed all, when this does
	pid[builds]=$!
	tail -n "+$((printed + 1))" -f --pid="${pid[builds]}" "$dir/builds" | sed -u 's/^/    /' &
	pid[tail]=$!
	for name in "$@"; do
		if ! wait "${builds[$name]}"; then
			failed=yes
			break
		fi
		unset "builds[$name]"
	done
	printed=$(wc -l <"$dir/builds")
	kill "${pid[builds]}"
	wait "${pid[builds]}" 2>/dev/null || true
	wait "${pid[tail]}"
	unset "pid[builds]" "pid[tail]"
	if [ -n "$failed" ]; then
		exit 1
	fi
	echo "    ready"
}

build_daemon() {
	cd "$here/.."
	CGO_ENABLED=0 testdata/progress.sh service-mirror "$build/service-mirror" . \
		-trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version"
}
build_control_planes() { "$here/cluster/build.sh" "$build/cluster"; }
build_starter() {
	cd "$here"
	GOWORK=off ./progress.sh "the starter" "$build/assets-cluster" ./assets -buildvcs=false
}
build_network() { "$here/traffic/setup.sh" "$build" demo; }
build_nodes() {
	cd "$here/traffic"
	GOWORK=off ../progress.sh "the nodes" "$build/traffic" . -buildvcs=false
}

# kubectl is the one of the clusters. v1 Endpoints is what this is about: its deprecation warning would be between every
# two lines.
kubectl() { command "$kubectl" "$@" 2> >(grep -v '^Warning: v1 Endpoints' >&2); }

# show runs a kubectl command as the reader would.
show() {
	local arg line='$ kubectl'
	for arg in "$@"; do
		case $arg in
		*['{[']*) line+=" '$arg'" ;;
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
	for _ in $(seq 600); do
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
	setsid "${control_plane[@]}" --name "$name" --dir "$dir/$name" ${keep:+--outlive-parent} >"$dir/$name.ready" 2>>"$dir/$name.progress" &
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

mirror=(--context london get "service,endpoints" bar-paris)
address='jsonpath={.subsets[*].addresses[*].ip}:{.subsets[*].ports[*].port}'

# show_request shows the request itself.
show_request() {
	step "A request from London to Paris: two real clusters, each with a node, kube-proxy and CoreDNS"
	BUILD=$build "$here/traffic/demo.sh"
}

# show_steps shows what the daemon does for it.
show_steps() {
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
	for _ in $(seq 600); do
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
}

declare -a needed=(build_daemon) later=()
if [ -z "$assets" ]; then
	control_plane=("$build/cluster") kubectl=$build/kubectl
	needed+=(build_control_planes)
	[ -z "$request" ] || needed+=(build_network build_nodes)
else
	control_plane=("$build/assets-cluster" --assets "$assets") kubectl=$assets/kubectl
	[ -x "$kubectl" ] || kubectl=$(command -v kubectl) || { echo "$assets has no kubectl, and there is none in PATH." >&2; exit 1; }
	needed+=(build_starter)
	[ -z "$request" ] || later=(build_control_planes build_network build_nodes)
fi

what="Kubernetes, CoreDNS and service-mirror, which takes 15 minutes on two cores"
[ -z "$assets" ] || what=service-mirror
[ -n "$request$assets" ] || what="Kubernetes and service-mirror, which takes 15 minutes on two cores"
step "Building what is shown. (The first time, this compiles $what.)"
for name in "${needed[@]}" "${later[@]}"; do
	start_build "$name"
done
await_builds "${needed[@]}"
if [ -n "$request" ] && [ -z "$assets" ]; then
	show_request
fi
show_steps
if [ -n "$request" ] && [ -n "$assets" ]; then
	step "Building the clusters with nodes for the request. (Ctrl-C ends the demo here.)"
	await_builds "${later[@]}"
	show_request
elif [ -z "$request" ]; then
	step "As root on Linux, and without REQUEST=no, there is also a request, from a pod in London to bar"
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
    alias kubectl=$kubectl
    kubectl --context london get service,endpoints --show-labels
    kubectl --context paris create service clusterip baz --tcp=8080
    kubectl --context paris label service baz service-mirror.io/exported=true
    kubectl --context london get service baz-paris
    tail -f $dir/service-mirror.log
To stop them:
    kill ${pid[daemon]} ${pid[london]} ${pid[paris]}; rm -rf $dir
END
