#!/bin/sh
# Installs the Debian packages that these tests need, and downloads the modules: they have no network to do it. Builds helm
# into the directory given.
set -eu

if [ $# -ne 1 ]; then
	echo "usage: $0 DIRECTORY-FOR-THE-BINARIES" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
export GOWORK=off

missing=
for need in buildah:buildah iproute2:ip curl:curl shellcheck:shellcheck; do
	command -v "${need#*:}" >/dev/null || missing="$missing ${need%:*}"
done
[ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
if [ -n "$missing" ]; then
	if [ "$(id -u)" -ne 0 ]; then
		echo "$0: not root, and these packages are missing:$missing" >&2
		exit 1
	fi
	apt-get update -q
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
fi

traffic/setup.sh "$out" demo
(cd gatewayapi && go mod download)
(cd cluster && go list -deps k8s.io/kubernetes/cmd/kube-apiserver go.etcd.io/etcd/server/v3 >/dev/null) # that the demo is given
(cd chart && ../progress.sh helm "$out/helm" helm.sh/helm/v3/cmd/helm -buildvcs=false -ldflags '-s -w')
