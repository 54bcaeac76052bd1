#!/bin/sh
# Packages the chart reproducibly, which helm package does not: the same chart and VERSION give the same bytes.
set -eu

usage() {
	cat <<END
usage: $0 [-o DIRECTORY] [-t VERSION] [-i IMAGE]

  -o DIRECTORY  directory to which the archive is written (default .build)
  -t VERSION    the appVersion, which is the image's tag, and the chart's version. If VERSION is not a semantic version
                such as v1.2.3, the chart's version is 0.0.0-gVERSION (default: from git)
  -i IMAGE      image.repository in the values: registry.example.com/service-mirror

Prints the archive's path.
END
}

here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../.build version='' image=''
[ "${1-}" != --help ] || set -- -h
while getopts o:t:i:h option; do
	case $option in
	o) out=$OPTARG ;;
	t) version=$OPTARG ;;
	i) image=$OPTARG ;;
	h)
		usage
		exit 0
		;;
	*)
		usage >&2
		exit 2
		;;
	esac
done
shift $((OPTIND - 1))
if [ $# -gt 0 ]; then
	usage >&2
	exit 2
fi
[ -n "$version" ] || version=$(git -C "$here" describe --tags --always --dirty 2>/dev/null || echo dev)
case $image in
*[!-A-Za-z0-9._/:]*)
	echo "$0: $image is not the name of an image without a tag" >&2
	exit 2
	;;
esac
chart=${version#v}
printf '%s\n' "$chart" | grep -Eqx '(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}([-+][-+.0-9A-Za-z]+)?' || chart=0.0.0-g$version

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$out" "$work/service-mirror"
cp -r "$here/Chart.yaml" "$here/values.yaml" "$here/values.schema.json" "$here/templates" "$work/service-mirror"
cp "$here/../../LICENSE" "$work/service-mirror"
sed -i -e "s/^version: .*/version: \"$chart\"/" -e "s/^appVersion: .*/appVersion: \"$version\"/" -e '/^# make release sets/d' "$work/service-mirror/Chart.yaml"
[ -z "$image" ] || sed -i "s|^  repository: service-mirror .*|  repository: $image|" "$work/service-mirror/values.yaml"
archive=$(cd "$out" && pwd)/service-mirror-$chart.tgz
tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -C "$work" -c service-mirror | gzip -n >"$archive"
echo "$archive"
