#!/bin/sh
# Installs Chromium, Debian's, where there is none. What is there already is left as
# it is.
set -eu

if command -v "${CHROMIUM:-chromium}" >/dev/null; then
	exit 0
fi
if [ -n "${CHROMIUM:-}" ]; then
	echo "$0: CHROMIUM names $CHROMIUM, which is not there" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "$0: not root, and the package chromium is missing" >&2
	exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium
