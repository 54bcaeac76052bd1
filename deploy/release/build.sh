#!/bin/sh
# Builds a release. The same source, Go, CA certificates and VERSION give the same bytes, wherever they are built.
set -eu

usage() {
	cat <<END
usage: $0 [-o DIRECTORY] [-t VERSION] [-p 'OS/ARCH...'] [-i IMAGE]

  -o DIRECTORY     of the release, which is replaced (default .build/release)
  -t VERSION       what --version says (default: of git)
  -p 'OS/ARCH...'  platforms (default 'linux/amd64 linux/arm64 darwin/amd64 darwin/arm64')
  -i IMAGE         the image of the manifests and the chart: registry.example.com/service-mirror

It has, for each platform, an archive of the program, the README and deploy/, and a list of what is in the program in
SPDX format; the image for amd64 and arm64 as an archive of an OCI layout, for skopeo and podman load; the Helm chart;
and SHA256SUMS of all of these. Installs what deploy/image/build.sh needs.
END
}

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
out=$source/.build/release version='' image=''
platforms='linux/amd64 linux/arm64 darwin/amd64 darwin/arm64'
[ "${1-}" != --help ] || set -- -h
while getopts o:t:p:i:h option; do
	case $option in
	o) out=$OPTARG ;;
	t) version=$OPTARG ;;
	p) platforms=$OPTARG ;;
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
[ -n "$version" ] || version=$(git -C "$source" describe --tags --always --dirty 2>/dev/null || echo dev)
# The time of the last commit.
: "${SOURCE_DATE_EPOCH:=$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# archive writes a directory as a tar archive without the user and the time.
archive() {
	directory=$1
	shift
	tar --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -C "$directory" -c "$@"
}

mkdir "$work/release"
(cd "$source/testdata/release" && GOWORK=off GOFLAGS='' go build -buildvcs=false -o "$work/sbom" ./sbom)
for platform in $platforms; do
	os=${platform%/*} arch=${platform#*/}
	name=service-mirror-$version-$os-$arch
	echo "building $name" >&2
	mkdir "$work/$name"
	(cd "$source" && GOWORK=off GOFLAGS='' CGO_ENABLED=0 GOOS=$os GOARCH=$arch GOAMD64=v1 GOARM64=v8.0 \
		go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$work/$name/service-mirror" .)
	cp "$source/README.md" "$source/LICENSE" "$work/$name/"
	cp -r "$source/deploy" "$work/$name/"
	[ -z "$image" ] || for side in local publish; do
		sed -i -e "s|^  newName: .*|  newName: $image|" -e "s|^  newTag: .*|  newTag: \"$version\"|" "$work/$name/deploy/$side/kustomization.yaml"
	done
	archive "$work" "$name" | gzip -n >"$work/release/$name.tar.gz"
	"$work/sbom" --name "$name" --version "$version" "$work/$name/service-mirror" >"$work/release/$name.spdx.json"
	rm -r "${work:?}/$name"
done

echo "building the image" >&2
"$source/deploy/image/build.sh" -o "$work/image.tar" -t "$version" >"$work/digest"
# The archive must not contain the times at which buildah wrote its files, to be reproducible.
mkdir "$work/image"
tar -C "$work/image" -x -f "$work/image.tar"
(cd "$work/image" && archive . -- *) >"$work/release/service-mirror-$version-image.tar"

"$source/deploy/chart/package.sh" -o "$work/release" -t "$version" ${image:+-i "$image"} >"$work/chart"

(cd "$work/release" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
rm -rf "$out"
mkdir -p "$(dirname "$out")"
mv "$work/release" "$out"
chmod 755 "$out"
echo "the image's digest is $(cat "$work/digest")" >&2
cat "$out/SHA256SUMS"
