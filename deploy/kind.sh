#!/bin/sh
# The quick start on kind: the clusters London and Paris on this machine, and in London a mirror of Paris's Service bar.
#
# Not tested with Docker. The test uses the real kubectl, API servers and service-mirror, and stubs of kind and docker: kind
# itself, image pulls and a request from a pod are not tested.
set -eu

usage() {
	cat <<END
usage: $0 [--delete]

Creates two clusters with kind, installs a gateway and the publisher in Paris and the daemon in London, and links them.
Existing clusters are kept: run it again after a commit, or after a restart of Docker. --delete deletes both clusters.

Requires Docker, kind, kubectl and Go. Without buildah, the image is built in a container.
END
}

delete=
case $#:${1-} in
0:) ;;
1:--delete) delete=yes ;;
1:-h | 1:--help)
	usage
	exit 0
	;;
*)
	usage >&2
	exit 2
	;;
esac

deploy=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$deploy")
dir=$source/.build/kind
export KUBECONFIG="$dir/kubeconfig"

need() { # program, where it comes from
	command -v "$1" >/dev/null || {
		echo "$0: $1 is not installed: see $2" >&2
		exit 1
	}
}
[ -e "$source/main.go" ] || {
	echo "$0: $source has no source to build: run this script in a clone of the repository" >&2
	exit 1
}
need docker https://docs.docker.com/engine/install/
need kind https://kind.sigs.k8s.io/docs/user/quick-start/#installation
need kubectl https://kubernetes.io/docs/tasks/tools/
need go https://go.dev/doc/install
docker info >/dev/null 2>&1 || {
	echo "$0: docker cannot reach its daemon: start Docker, or see what 'docker info' says" >&2
	exit 1
}

# With a prefix: you may have other clusters named london or paris.
cluster() { echo "service-mirror-$1"; }

if [ -n "$delete" ]; then
	for name in london paris; do
		kind delete cluster --name "$(cluster $name)"
	done
	rm -rf "$dir"
	exit 0
fi

step() { printf '\n%s\n' "$*"; }
london() { kubectl --context london "$@"; }
paris() { kubectl --context paris "$@"; }

# The kubeconfig contains only the contexts london and paris.
create_clusters() {
	step "Clusters London and Paris"
	mkdir -p "$dir"
	rm -f "$KUBECONFIG"
	existing=$(kind get clusters 2>/dev/null)
	for name in london paris; do
		if printf '%s\n' "$existing" | grep -qxF "$(cluster $name)"; then
			kind export kubeconfig --name "$(cluster $name)" --kubeconfig "$KUBECONFIG"
		else
			kind create cluster --name "$(cluster $name)" --kubeconfig "$KUBECONFIG" --wait 3m
		fi
		kubectl config rename-context "kind-$(cluster $name)" "$name"
	done
	address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$(cluster paris)-control-plane")
	address=${address%% *}
}

# If buildah is missing and cannot be installed, the one of Debian is used in a container.
build_image() {
	step "The image, in both clusters"
	version=$(git -C "$source" describe --tags --always --dirty 2>/dev/null || echo dev)
	if command -v buildah >/dev/null || { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }; then
		"$deploy/image/build.sh" -o "$dir/image.tar" -t "$version"
	else
		docker run --rm --privileged --volume "$source:/service-mirror" golang:1.26-bookworm \
			/service-mirror/deploy/image/build.sh -o /service-mirror/.build/kind/image.tar -t "$version"
	fi
	for name in london paris; do
		kind load image-archive "$dir/image.tar" --name "$(cluster $name)"
	done
	"$deploy/image/overlay.sh" -o "$dir/deploy" "service-mirror:$version"
	(cd "$source" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$source/.build/service-mirror" .)
}

# The address of the LoadBalancer Service is that of the node, where kube-proxy routes it to the pods. nginx routes by
# aliases, without the Gateway API. No client uses HTTPS here, so any certificate works.
install_gateway() {
	step "Paris: nginx as the gateway, at $address"
	paris apply -k "$deploy/gateways/nginx"
	if ! paris -n gateway get secret gateway-tls >/dev/null 2>&1; then
		(cd "$dir" && go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" --ca --host '*.default.svc.cluster.local' 2>/dev/null)
		paris -n gateway create secret generic gateway-tls --from-file="tls.crt=$dir/cert.pem" --from-file="tls.key=$dir/key.pem" \
			--from-file="ca.crt=$dir/cert.pem"
	fi
	paris -n gateway patch service gateway --subresource=status --type=merge \
		--patch '{"status": {"loadBalancer": {"ingress": [{"ip": "'"$address"'"}]}}}'
}

install_publisher() {
	step "Paris: the publisher"
	mkdir -p "$dir/deploy/publish-names"
	cat >"$dir/deploy/publish-names/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../publish]
components: [../../../../deploy/publish/names]
patches:
- target: {kind: Deployment, name: service-mirror-publish}
  patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["--name=paris", "--to=names"]}]'
END
	paris apply -k "$dir/deploy/publish-names"
}

export_bar() {
	step "Paris: Service bar, exported"
	if ! paris get deployment bar >/dev/null 2>&1; then
		paris create deployment bar --image=nginx:1.30.4 -- \
			sh -c 'echo "This is bar, in Paris." >/usr/share/nginx/html/index.html && exec nginx -g "daemon off;"'
	fi
	paris get service bar >/dev/null 2>&1 || paris expose deployment bar --port=80
	paris label service bar --overwrite service-mirror.io/exported=true
}

# roll_out waits until Deployments are ready.
roll_out() { # london or paris, NAMESPACE/NAME...
	where=$1
	shift
	for deployment; do
		"$where" -n "${deployment%/*}" rollout status "deployment/${deployment#*/}" --timeout=5m
	done
}

# link exits with 3 if a request does not arrive, for example because Paris's DNS does not have the alias yet.
link_paris() {
	step "London: link Paris, and send a request to the mirror"
	tries=0
	until paris -n gateway-exports get service default--bar >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ $tries -ge 120 ]; then
			echo "$0: bar has no alias in namespace gateway-exports: see kubectl --context paris describe service bar" >&2
			exit 1
		fi
		sleep 1
	done
	tries=0
	# Not 127.0.0.1 as in the kubeconfig: London's pods reach Paris's node through Docker's network.
	until "$source/.build/service-mirror" link paris --context london --server "https://$address:6443" gateway=gateway/gateway records=service-mirror; do
		status=$?
		tries=$((tries + 1))
		if [ $status -ne 3 ] || [ $tries -ge 6 ]; then
			exit $status
		fi
		sleep 10
	done
}

create_clusters
build_image
install_gateway
install_publisher
export_bar
step "London: the daemon"
london apply -k "$dir/deploy/local"
step "Waiting for the pods"
roll_out paris gateway/gateway service-mirror/service-mirror-publish default/bar
roll_out london service-mirror/service-mirror
link_paris
cat <<END

To use both clusters, and call bar from a pod in London:

    export KUBECONFIG=$KUBECONFIG
    kubectl --context london run call --rm -i --restart=Never --image=curlimages/curl -- -sS http://bar-paris.default/

$0 --delete deletes them.
END
