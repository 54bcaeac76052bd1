# Everything is built into .build; nothing is installed but what a test needs.
#
#   make demo          see it work: a request between two real clusters, and then each step; KEEP=1 leaves clusters up to
#                      play with; KUBEBUILDER_ASSETS and REQUEST=no compile less: testdata/demo.sh
#   make test          everything: unit, race, fuzz seeds, end to end, traffic, manifests, links, publisher, chart, quick start, page, release
#   make unit          the unit tests alone
#   make compat        end to end, publisher and manifests with the oldest supported Kubernetes; traffic through more gateways
#   make soak          long random walks: three seeds of 10,000 steps; SEEDS="1 2", STEPS=500
#   make bench         speed, memory and cost beside what the API server allows; deploy/performance
#   make release       archives for each platform, lists of what is in them, image, chart and checksums, in .build/release
#   make image         the container image, in .build/service-mirror-image.tar; IMAGE=registry.example.com/service-mirror pushes
#                      it there, and writes manifests and Helm values for it into .build/deploy

BUILD := $(CURDIR)/.build
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Tests that wait overlap; more at once than this only slow one another down.
PARALLEL ?= 8

.PHONY: build race demo test unit vet cluster e2e publisher traffic manifests links releases chart quickstart page tools compat other-gateways soak release image clean

build:
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(BUILD)/service-mirror .

demo:
	BUILD=$(BUILD) VERSION=$(VERSION) KEEP=$(KEEP) REQUEST=$(REQUEST) testdata/demo.sh

# The last stages wait more than they work, so three of them run at a time, the longest first, and each prints when it
# ends. What they share is built before, so that none waits for it, and what they install installed, because apt fails
# where another one runs.
test: vet unit e2e
	testdata/traffic/setup.sh $(BUILD)
	testdata/deploy/setup.sh $(BUILD)
	testdata/browser/setup.sh
	testdata/quickstart/setup.sh $(BUILD)
	$(MAKE) --jobs 3 --output-sync=target $(addprefix --old-file=,tools race build cluster) traffic manifests links quickstart publisher releases page chart

vet:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./...
	cd testdata && go vet ./... && go vet -tags compat,bench ./traffic
	cd testdata/cluster && go vet ./e2e
	cd testdata/browser && go vet ./...
	cd testdata/publish && go vet ./...
	cd testdata/chart && go vet ./...
	cd testdata/release && go vet ./...

# The tests' own harness, too.
unit: tools
	go test -race -count=1 ./...
	cd testdata && go test -race -count=1 ./harness

race: tools
	go build -race -buildvcs=false -o $(BUILD)/service-mirror-race .

# Memory is measured without the race detector.
e2e: race build cluster
	cd testdata/gatewayapi && go mod download
	cd testdata/cluster && CLUSTER_BIN=$(BUILD)/cluster go test -count=1 ./e2e
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) go test -count=1 -parallel $(PARALLEL) -timeout 40m ./e2e

# Paris's half against real API servers.
publisher: race cluster
	cd testdata/publish && SERVICE_MIRROR_BUILD=$(BUILD) go test -count=1 -timeout 10m .

# Network namespaces, so root and Linux; what it installs, setup.sh says. Verbose, for
# it counts the requests that fail while things change.
traffic: race cluster
	testdata/traffic/setup.sh $(BUILD)
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) go test -count=1 -v -timeout 20m ./traffic

# What is in deploy/, applied to real API servers by kustomize; the image, without a registry.
manifests: race cluster
	testdata/deploy/setup.sh $(BUILD)
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) go test -skip '$(LINKS)' -count=1 -timeout 20m ./deploy

# The rest of its tests: link and verify, in clusters of their own.
LINKS := ^Test(Link|Verify)
links: race cluster
	testdata/deploy/setup.sh $(BUILD)
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) go test -run '$(LINKS)' -count=1 -timeout 20m ./deploy

# A release for one platform: its archive, list, chart and checksums.
releases:
	testdata/deploy/setup.sh $(BUILD)
	cd testdata/release && go test -count=1 -timeout 10m ./...

# The same by real Helm.
chart: race cluster
	cd testdata/chart && SERVICE_MIRROR_BUILD=$(BUILD) go test -count=1 -timeout 10m ./...

# The README's quick start, command by command; the same on kind, as far as it goes without Docker; the demo.
quickstart: build cluster
	testdata/quickstart/setup.sh $(BUILD)
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) go test -count=1 -timeout 30m ./quickstart

# The status page in a real browser.
page:
	testdata/browser/setup.sh
	cd testdata/browser && go test -count=1 -timeout 10m ./...

# Skipper and Envoy Gateway, which take too long to build for make test.
other-gateways: race cluster
	testdata/traffic/setup.sh $(BUILD) others
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) go test -tags compat -run TestOtherControllers -count=1 -v -timeout 20m ./traffic

# Kubernetes 1.31, here as the local cluster and there as the remote ones; then for the publisher and the manifests. As the local one
# it has no ServiceCIDRs and IPAddresses, which came with 1.33: what is left out is about these.
NO_SERVICECIDRS := TestRefusedAddresses|TestUnresolvedHostnameKeepsNoLostAddress|TestLocalRangesChange|TestRefusedFlags|TestGatewayAllow|TestExternalIPs|TestDeletedMirrorKeepsBothClusterIPs|TestTypeChangeKeepsBothClusterIPs|TestTakenClusterIPIsReported
compat: other-gateways
	testdata/cluster/build.sh $(BUILD)/oldest/cluster oldest
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) SERVICE_MIRROR_OLDEST=london,lisbon go test -skip '$(NO_SERVICECIDRS)' -count=1 -parallel $(PARALLEL) -timeout 40m ./e2e
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) SERVICE_MIRROR_OLDEST=paris,berlin go test -count=1 -parallel $(PARALLEL) -timeout 40m ./e2e
	cd testdata/publish && SERVICE_MIRROR_BUILD=$(BUILD) SERVICE_MIRROR_OLDEST=paris go test -count=1 -timeout 10m .
	cd testdata && SERVICE_MIRROR_BUILD=$(BUILD) SERVICE_MIRROR_OLDEST=london,paris go test -skip '$(LINKS)' -count=1 -timeout 20m ./deploy

# The walks, one of them with merged mirrors, wait more than they work: three at once. One that fails is taken again with its
# seed and as many steps.
SEEDS ?= 1 2 3
STEPS ?= 10000
soak: race cluster
	cd testdata/e2e && go test -c -o $(BUILD)/soak.test . && printf '%s\n' $(SEEDS) | xargs -P 3 -I {} bash -o pipefail -c ' \
		SERVICE_MIRROR_BUILD=$(BUILD) SOAK_SEED={} SOAK_STEPS=$(STEPS) $(BUILD)/soak.test -test.v -test.run "^TestRandomWalk" -test.timeout 3h 2>&1 | \
		sed -u "s/^/seed {}: /"'

# What the daemon does in the time that the API server needs anyway, and what requests take over each gateway: an
# hour or two, on a quiet machine. ONLY=cold,delay measures some rows again; what the table has of the others stays.
bench: build cluster
	testdata/traffic/setup.sh $(BUILD)
	cd testdata && go mod download -C gatewayapi && go test -c -tags bench -o $(BUILD)/traffic.test ./traffic
	cd testdata/bench && go build -o $(BUILD)/bench . && $(BUILD)/bench -build $(BUILD) $(if $(ONLY),-rows $(ONLY))

cluster:
	testdata/cluster/build.sh $(BUILD)/cluster

# The same bytes for the same version, wherever they are built. IMAGE is where the chart has the image from.
release:
	deploy/release/build.sh -o $(BUILD)/release -t $(VERSION) $(if $(IMAGE),-i $(IMAGE))

# Installs what it needs from Debian: needs root.
image:
	deploy/image/build.sh -o $(BUILD)/service-mirror-image.tar -t $(VERSION) $(if $(IMAGE),-p $(IMAGE):$(VERSION))

# The race detector needs a C compiler.
tools:
	@command -v gcc >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends gcc libc6-dev; }

clean:
	rm -rf $(BUILD)
