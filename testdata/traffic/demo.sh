#!/bin/sh
# Shows one request from a pod in London to a Service in Paris, and its hops. Needs
# root, Linux, what setup.sh installs, and the programs in BUILD. Nothing is left.
set -eu
cd "$(dirname "$0")"
export SERVICE_MIRROR_BUILD="${BUILD:-$(cd ../.. && pwd)/.build}"
go build -buildvcs=false -o "$SERVICE_MIRROR_BUILD/traffic" .
exec "$SERVICE_MIRROR_BUILD/traffic" demo
