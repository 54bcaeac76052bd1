#!/bin/sh
# Installs the Debian packages that the traffic test needs and builds CoreDNS and
# Caddy into the directory given. What is there already is left as it is; a server
# that Debian would start or enable after the installation is not.
set -eu

if [ $# -ne 1 ]; then
	echo "usage: $0 DIRECTORY-FOR-THE-BINARIES" >&2
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

export GOWORK=off
for program in coredns caddy; do
	echo "building $program"
	(cd $program && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$out/$program" .)
done
