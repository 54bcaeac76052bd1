#!/bin/sh
# Puts prometheus and promtool into the directory given, out of Debian's package, which is not installed,
# and installs shellcheck. build.sh, which is tested, installs what it needs itself.
set -eu

if [ $# -ne 1 ]; then
	echo "usage: $0 DIRECTORY-FOR-THE-BINARIES" >&2
	exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
if [ -x "$out/prometheus" ] && [ -x "$out/promtool" ] && command -v shellcheck >/dev/null; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "$0: not root, and shellcheck, prometheus or promtool is missing" >&2
	exit 1
fi
apt-get update -q
command -v shellcheck >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends shellcheck
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$work" # apt downloads as a user of its own
(cd "$work" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb .)
cp "$work/usr/bin/prometheus" "$work/usr/bin/promtool" "$out"
