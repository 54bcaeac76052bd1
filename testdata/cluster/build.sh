#!/bin/sh
# Builds the cluster binary into the path given, and a symlink kubectl beside it.
# Needs Go only. The first build compiles Kubernetes; later ones take seconds. With
# "oldest" it is the oldest Kubernetes that is supported, of oldest.mod.
set -eu

if [ $# -ne 1 ] && [ "$#:${2-}" != 2:oldest ]; then
	echo "usage: $0 PATH-OF-THE-BINARY [oldest]" >&2
	exit 2
fi
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")"
export GOWORK=off
if [ "${2-}" = oldest ]; then
	export GOFLAGS="${GOFLAGS-} -modfile=oldest.mod -tags=oldest"
fi

start=$(date +%s)
say() {
	echo "$(basename "$out"): $*" >&2
}
elapsed() {
	seconds=$(($(date +%s) - start))
	echo "$((seconds / 60))m$((seconds % 60))s"
}

# with_progress COMMAND... runs it and says every 30 s that it still runs.
with_progress() {
	"$@" &
	pid=$!
	trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
	waited=0
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		waited=$((waited + 1))
		if [ $((waited % 30)) -eq 0 ]; then
			say "still at it after $(elapsed)"
		fi
	done
	trap - INT TERM
	wait "$pid"
}

say "downloading the modules"
with_progress go mod download

# Without these, the servers say that they are version v0.0.0-master.
kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${kubernetes#v1.}
minor=${minor%%.*}
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	stamp="$stamp -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done

say "building the control planes (first time: about 15 minutes on 2 cores)…"
with_progress go build -buildvcs=false -ldflags "-s -w $stamp" -o "$out" .
ln -sf "$(basename "$out")" "$(dirname "$out")/kubectl"
say "built $out in $(elapsed)"
