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

# Without these, the servers say that they are version v0.0.0-master.
kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${kubernetes#v1.}
minor=${minor%%.*}
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	stamp="$stamp -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done

# The first time this is about 15 minutes on 2 cores.
../progress.sh "Kubernetes $kubernetes" "$out" . -buildvcs=false -ldflags "-s -w $stamp"
ln -sf "$(basename "$out")" "$(dirname "$out")/kubectl"
