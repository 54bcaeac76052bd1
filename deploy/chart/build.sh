#!/bin/sh
# Makes the templates that are made: of the kustomize files in ../local, ../publish and ../remote, and of the alerts in
# ../monitoring. Run it after a change of these, and commit what it writes. Needs Go.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../testdata/chart"
exec go run ./generate --deploy "$here/.."
