#!/bin/sh
# Builds the image for amd64 and arm64 into one OCI archive, without a daemon and without
# a registry. The same source, Go, CA certificates and VERSION give the same digest.
set -eu

usage() {
	cat <<END
usage: $0 [-o FILE] [-t VERSION] [-p IMAGE]

  -o FILE     the OCI archive to write (default .build/service-mirror-image.tar)
  -t VERSION  what --version says (default: of git)
  -p IMAGE    push it there too, as registry.example.com/service-mirror:1.0; log in
              with 'buildah login' first. Writes .build/deploy to install it: see overlay.sh

Installs Debian's buildah and ca-certificates where they are missing. Prints the digest.
END
}

here=$(cd "$(dirname "$0")" && pwd)
source=$here/../..
out='' version='' image=''
[ "${1-}" != --help ] || set -- -h
while getopts o:t:p:h option; do
	case $option in
	o) out=$OPTARG ;;
	t) version=$OPTARG ;;
	p) image=$OPTARG ;;
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
case ${image##*/} in
*:?*) ;;
*)
	if [ -n "$image" ]; then
		echo "$0: $image has no tag" >&2
		exit 2
	fi
	;;
esac
[ -n "$out" ] || out=$source/.build/service-mirror-image.tar
[ -n "$version" ] || version=$(git -C "$source" describe --tags --always --dirty 2>/dev/null || echo dev)
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")

certificates=/etc/ssl/certs/ca-certificates.crt
missing=
command -v buildah >/dev/null || missing="$missing buildah"
[ -s $certificates ] || missing="$missing ca-certificates"
if [ -n "$missing" ]; then
	if [ "$(id -u)" -ne 0 ]; then
		echo "$0: not root, and these packages are missing:$missing" >&2
		exit 1
	fi
	apt-get update -q >&2
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing >&2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mkdir "$work/context"
cp "$here/Dockerfile" "$here/passwd" "$here/group" $certificates "$work/context"
# Copied files keep their mode, which must not depend on the umask.
chmod 644 "$work"/context/*
for arch in amd64 arm64; do
	echo "compiling for $arch" >&2
	mkdir -m 755 "$work/context/$arch"
	(cd "$source" && GOWORK=off GOFLAGS='' CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOAMD64=v1 GOARM64=v8.0 \
		go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$work/context/$arch/service-mirror" .)
	chmod 755 "$work/context/$arch/service-mirror"
done

# A separate store of plain directories, which needs no overlay mount and is removed afterwards.
buildah() {
	command buildah --storage-driver vfs --root "$work/store" --runroot "$work/run" "$@"
}
# Sequentially, because the order in the index would otherwise depend on which build finishes first.
for arch in amd64 arm64; do
	buildah build --quiet --isolation chroot --platform linux/$arch --timestamp 0 \
		--build-arg "VERSION=$version" --manifest service-mirror "$work/context" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		exit 1
	}
done
rm -f "$out"
buildah manifest push --quiet --all --digestfile "$work/digest" service-mirror "oci-archive:$out:docker.io/library/service-mirror:$version" >&2
if [ -n "$image" ]; then
	buildah manifest push --quiet --all service-mirror "docker://$image" >&2
	echo "pushed $image" >&2
	"$here/overlay.sh" "$image"
fi
echo "wrote $out, version $version" >&2
cat "$work/digest"
echo
