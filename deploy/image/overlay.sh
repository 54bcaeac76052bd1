#!/bin/sh
# Writes kustomizations of deploy/local and deploy/publish, and Helm values for deploy/chart, that use your image.
set -eu

usage() {
	cat <<END
usage: $0 [-o DIRECTORY] IMAGE:TAG

  -o DIRECTORY  where to write kustomization.yaml and values.yaml, in local/ for a cluster that has mirrors and in
                publish/ for one that exports (default .build/deploy)

You can edit these files: if they exist, only the image in them is changed.
END
}

here=$(cd "$(dirname "$0")" && pwd)
deploy=$(dirname "$here")
out=$deploy/../.build/deploy
[ "${1-}" != --help ] || set -- -h
while getopts o:h option; do
	case $option in
	o) out=$OPTARG ;;
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
image=${1-}
name=${image%:*} tag=${image##*:}
# What comes after the last colon is a port, and no tag, if a slash follows.
case $image in *[!-A-Za-z0-9._/:]* | :* | *:) tag='' ;; *:*) ;; *) tag='' ;; esac
case $tag in */*) tag='' ;; esac
if [ $# -ne 1 ] || [ -z "$tag" ]; then
	usage >&2
	exit 2
fi

# relative is the path of a directory as seen from another one: kustomize takes no absolute ones.
relative() { # directory, seen from
	common=$2 up=''
	while [ "${1#"$common"/}" = "$1" ]; do
		common=$(dirname "$common") up=../$up
		[ "$common" != / ] || common=''
	done
	echo "$up${1#"$common"/}"
}

kustomization() { # side
	cat <<END
# deploy/$1 with your image. Add patches and components here.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- $(relative "$(cd "$deploy/$1" && pwd -P)" "$(cd "$out/$1" && pwd -P)")
images:
- name: service-mirror
  newName: $name
  newTag: "$tag"
END
}

values() { # side
	cat <<END
# Helm values for deploy/chart with your image. deploy/chart/values.yaml explains all values.
image:
  repository: $name
  tag: "$tag"
END
	[ "$1" != publish ] || cat <<END
daemon:
  enabled: false
publisher:
  enabled: true
  names: [paris]  # the name that other clusters have for this one
  to: [gateway-api]
  gateway: ingress/public
END
}

for side in local publish; do
	mkdir -p "$out/$side"
	for file in kustomization values; do
		path=$out/$side/$file.yaml
		if [ -e "$path" ]; then
			# Only in this image's entry: up to the next line that has no indentation and is no comment.
			sed -e "/^- name: service-mirror$/,/^[^ #]/{ s|^  newName: .*|  newName: $name|; s|^  newTag: .*|  newTag: \"$tag\"|; }" \
				-e "/^image:/,/^[^ #]/{ s|^  repository: .*|  repository: $name|; s|^  tag: .*|  tag: \"$tag\"|; }" "$path" >"$path.new"
		else
			"$file" "$side" >"$path.new"
		fi
		mv "$path.new" "$path"
	done
done
echo "wrote $(cd "$out" && pwd)/local and publish, with $image" >&2
