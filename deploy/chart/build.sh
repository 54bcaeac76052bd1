#!/bin/sh
# Generates most of the chart's templates from the kustomize files in ../local, ../publish and ../remote, and the
# PrometheusRules here and in ../monitoring from the alerts there. Run it after you change one of these, and commit what it
# writes. Needs Go.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../testdata/chart"
exec go run ./generate --deploy "$here/.."
