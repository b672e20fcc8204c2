# The verbs of this repository. A CI job is one verb; .ci/run runs them all.

export GOTOOLCHAIN := local
export GOFLAGS     += -mod=readonly
# One setting for binaries and tests, so that they share the build cache. The race detector needs cgo.
export CGO_ENABLED := 0

TOOLS  := $(CURDIR)/.tools
RACE   ?= ./pkg/...
COUNT  ?= 1
BENCH  ?= .
PKG    ?= ./pkg/...
FUZZ   ?= 10s

# Versions of what is installed into .tools; go.mod pins the rest.
GOLANGCI_LINT := v2.15.0
VERSITYGW     := v1.8.0
PROTOC_GO     := v1.36.12
PROTOC_GRPC   := v1.6.2
PROTOC_VT     := v0.6.1-0.20240319094008-0393e58bdf10
# The components of the collector are pinned by development/otelcol/go.mod.
OTELCOL       := v0.155.0
# So is etcd, by development/etcd/go.mod.
ETCD          := v3.6.14
AMTOOL        := v0.34.2
GOVULNCHECK   := v1.9.0
# What the chart and the jsonnet library are tested with; make helm-tools installs them.
HELM          := v3.22.0
JSONNET       := v0.22.0
# Of the API server, which development/apiserver/go.mod pins.
APISERVER     := v1.36.3
# Of later versions some dependencies cannot be had from the public module proxy.
NFPM          := v2.44.1
# Prometheus carries its module version: 3.15 is v0.315.0.
PROMETHEUS    := $(shell awk '$$1 == "github.com/prometheus/prometheus" {print $$2}' go.mod)

BUILD    := github.com/amphora-metrics/amphora/pkg/telemetry
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null)
REVISION ?= $(shell git rev-parse --verify -q HEAD)
# Of packages, which must begin with a number; before the first tag it says the commit.
PACKAGED := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' | grep . || echo 0.0.0-g$$(git rev-parse --short HEAD))
LDFLAGS  := -s -w $(if $(VERSION),-X $(BUILD).version=$(VERSION)) $(if $(REVISION),-X $(BUILD).revision=$(REVISION))

.DEFAULT_GOAL := help
.PHONY: walk console console-modules console-check console-test help run build test race lint lint-tool bench bench-write bench-query bench-tenants bench-sign fuzz sim race-integration vuln vuln-tool faults soak tenants clocks mixed cluster docs proto images clean tools

help: ## Say what each verb does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {sub(/:.*/, "", $$1); printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Build and start one process with development/single/amphora.yaml (127.0.0.1:8080, data in ./data).
	bin/amphora -config.file=development/single/amphora.yaml

build: ## Build bin/amphora.
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

test: ## Vet, and run every test, those of pkg also under the race detector; installs the servers they need. PKG= narrows it.
ifeq ($(origin PKG),command line)
	go vet $(PKG)
	go test -count=$(COUNT) $(PKG)
else
	@$(MAKE) --no-print-directory tools || echo '!!!!!!!! servers not installed: the tests that need them skip'
	go vet ./...
	go test -count=$(COUNT) ./pkg/... ./cmd/... ./tools/... ./development/...
	@$(MAKE) --no-print-directory race
	go test -count=$(COUNT) -p 1 -timeout 40m ./integration/...
endif

race: ## Run the tests of RACE (./pkg/...) under the race detector.
	COUNT=$(COUNT) tools/race.sh $(RACE)

lint: lint-tool ## Run golangci-lint.
	$(TOOLS)/golangci-lint-$(GOLANGCI_LINT) run ./...

lint-tool: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT)

bench: ## Run the benchmarks that match BENCH in PKG; COUNT=10 for benchstat.
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count=$(COUNT) $(PKG)

bench-write: tools ## Compare what a write costs with a Prometheus that receives the same; SHORT=1 takes a minute.
	go run ./tools/benchwrite $(if $(SHORT),-short)

bench-query: tools ## Compare what queries cost with a Prometheus that holds the same samples; SERIES=20000 takes two minutes.
	go run ./tools/querybench -series $(or $(SERIES),200000) $(FLAGS)

bench-tenants: ## Measure what tenants cost: memory, goroutines, files, idle time, restart. TENANTS=1000 SERIES=100.
	go run ./tools/benchtenants -tenants $(or $(TENANTS),1000) -series $(or $(SERIES),100)

bench-sign: ## Measure what a signature, or a password, adds to a push: processor time, p50 and p99.
	go run ./tools/benchsign

fuzz: ## Fuzz every decoder for FUZZ (10s) each.
	tools/fuzz.sh $(FUZZ)

sim: ## Try schedules of chance against the models of every core for SIM (1m) each; SEED=n repeats one, RUN= narrows it.
	@set -e; for d in $$(git grep --untracked -lF 'seeds.Run(t, ' -- 'pkg/*_test.go' | xargs -n1 dirname | sort -u | grep -v pkg/seeds); do \
	  AMPHORA_TEST_SIMULATE=$(or $(SIM),1m) AMPHORA_TEST_SEED=$(SEED) go test -count=1 -timeout 3h -run '$(or $(RUN),AtAnySchedule)' "./$$d"; \
	done

race-integration: tools ## Run the tests of the whole that match RUN with a binary that has the race detector.
	AMPHORA_TEST_RACE=1 go test -count=$(COUNT) -p 1 -timeout 2h -v -run '$(or $(RUN),TestClusterLosesNothing|TestEveryProcessRestartsUnderLoad|TestZonesAndIngestersFail|TestAPairOfPrometheusIsOne|TestKilledRulersLeaveNoGapInWhatIsRecorded|TestAlertmanagersDieAndReturn|TestNothingIsLeftBehind)' ./integration

vuln: vuln-tool ## Look for known vulnerabilities in what is called; needs the network of vuln.go.dev.
	$(TOOLS)/govulncheck-$(GOVULNCHECK) ./...

vuln-tool: $(TOOLS)/govulncheck-$(GOVULNCHECK)

faults: tools ## Repeat what kills, cuts and freezes ROUNDS (20) times.
	AMPHORA_TEST_ROUNDS=$(or $(ROUNDS),20) go test -count=1 -v -timeout 2h -run 'TestAPowerCut|TestZonesDie' ./integration

tenants: ## Hold what TENANTS (10000) tenants cost one process against its bounds, and kill it.
	AMPHORA_TEST_TENANTS=$(or $(TENANTS),10000) go test -count=1 -v -timeout 1h -run TestManyTenantsCostLittle ./integration

clocks: tools ## Set the clocks of processes under load; builds everything anew with a clock that can be set.
	AMPHORA_TEST_CLOCKS=1 go test -count=1 -v -timeout 1h -run TestClocksJump ./integration

mixed: tools ## Go from the version OLD (a commit; the one before) to this one, back and forth under load.
	rm -rf bin/old && mkdir -p bin/old && git archive $(or $(OLD),HEAD^) | tar -x -C bin/old
	cd bin/old && go build -o ../amphora-old ./cmd/amphora
	rm -rf bin/old
	AMPHORA_TEST_OLD=$(CURDIR)/bin/amphora-old go test -count=1 -v -timeout 1h -run TestVersionsMix ./integration

soak: tools ## Let an accident happen every EVERY (20s) to a cluster at LOAD (70% of what it takes, or samples a second) for SOAK (60m), SEED=n as an earlier run.
	AMPHORA_TEST_SOAK=$(or $(SOAK),60m) AMPHORA_TEST_LOAD=$(or $(LOAD),70%) AMPHORA_TEST_EVERY=$(or $(EVERY),20s) AMPHORA_TEST_SEED=$(SEED) go test -count=1 -v -timeout 3h -run TestAccidentsAtRandomLoseNothing ./integration

cluster: build tools ## Start a cluster with an S3 server on loopback, and a page to break it from.
	go run ./development/cluster

walk: ## Do on a fresh clone of what is committed what the README begins with: make run, its commands, make cluster.
	.ci/walk

docs: ## Write docs/reference from the tables in the code.
	go run ./tools/docs

# npm installs exactly what the lock file says, and runs no scripts of packages.
console/node_modules/.package-lock.json: console/package-lock.json
	cd console && npm ci --ignore-scripts --silent
	@touch $@

console-modules: console/node_modules/.package-lock.json ## Install what the console is built and tested with; needs npm.

console: console/node_modules/.package-lock.json ## Build the console in the browser from console/ into pkg/console/dist; needs npm.
	cd console && npm run --silent build -- --logLevel warn

console-check: console/node_modules/.package-lock.json ## Prove that pkg/console/dist is what console/ builds; needs npm.
	@rm -rf console/dist-check
	cd console && CONSOLE_OUT=dist-check npm run --silent build -- --logLevel warn
	diff -r console/dist-check pkg/console/dist || { echo 'pkg/console/dist is not what console/ builds: make console'; exit 1; }
	@rm -rf console/dist-check

console-test: console/node_modules/.package-lock.json ## Walk the console in Chromium against the built binary; needs npm and chromium.
	go test -count=1 -v -run 'TestTheConsole' ./integration

proto: $(TOOLS)/protoc-gen-go-$(PROTOC_GO) $(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GRPC) $(TOOLS)/protoc-gen-go-vtproto-$(PROTOC_VT) ## Generate code from pkg/wire/*/*.proto.
	@set -e; for f in pkg/wire/*/*.proto; do \
	  protoc -I "$$(dirname $$f)" -I pkg/wire/ingesterpb \
	    --plugin=protoc-gen-go=$(word 1,$^) --go_out=paths=source_relative:"$$(dirname $$f)" \
	    --plugin=protoc-gen-go-grpc=$(word 2,$^) --go-grpc_out=paths=source_relative:"$$(dirname $$f)" \
	    --plugin=protoc-gen-go-vtproto=$(word 3,$^) --go-vtproto_out=paths=source_relative:"$$(dirname $$f)" \
	    --go-vtproto_opt=features=size+marshal+unmarshal "$$(basename $$f)"; \
	done

# What is packed bears the time of the commit: the same commit is the same bytes, whoever packs it and when.
PACKED_AT = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: cross sbom packages release
cross: ## Build the programs for Linux on amd64 and arm64 into bin/linux-<arch>.
	@set -e; for arch in amd64 arm64; do \
	  GOOS=linux GOARCH=$$arch go build -trimpath -ldflags '$(LDFLAGS)' -o bin/linux-$$arch/ ./cmd/...; \
	done

sbom: cross ## Write what the programs are made of to bin/linux-<arch>/*.cdx.json (CycloneDX).
	@set -e; for arch in amd64 arm64; do \
	  go run ./tools/sbom -out bin/linux-$$arch bin/linux-$$arch/amphora bin/linux-$$arch/amphoratool; \
	done

packages: sbom $(TOOLS)/nfpm-$(NFPM) ## Make deb and rpm packages for amd64 and arm64 in bin.
	@rm -f bin/*.deb bin/*.rpm
	@set -e; for arch in amd64 arm64; do for kind in deb rpm; do \
	  SOURCE_DATE_EPOCH=$(PACKED_AT) ARCH=$$arch VERSION=$(PACKAGED) $(TOOLS)/nfpm-$(NFPM) package -f operations/packages/nfpm.yaml -p $$kind -t bin/; \
	done; done

release: packages ## Collect in bin/release what a release consists of: archives, packages, bills of materials, checksums.
	@rm -rf bin/release && mkdir bin/release
	@set -e; for arch in amd64 arm64; do \
	  tar -C bin/linux-$$arch --mtime=@$(PACKED_AT) --mode=0755 --owner=0 --group=0 --numeric-owner -cf - amphora amphoratool | \
	    gzip -n > bin/release/amphora-$(VERSION)-linux-$$arch.tar.gz; \
	  for program in amphora amphoratool; do cp bin/linux-$$arch/$$program.cdx.json bin/release/$$program-$(VERSION)-linux-$$arch.cdx.json; done; \
	done
	@cp bin/*.deb bin/*.rpm bin/release/
	@cd bin/release && sha256sum -- * > sha256sums.txt && cat sha256sums.txt

images: ## Build the container image amphora:dev.
	docker build -f operations/docker/Dockerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) -t amphora:dev .

tools: $(TOOLS)/versitygw-$(VERSITYGW) $(TOOLS)/prometheus-$(PROMETHEUS) $(TOOLS)/promtool-$(PROMETHEUS) $(TOOLS)/otelcol-$(OTELCOL) $(TOOLS)/etcd-$(ETCD) $(TOOLS)/amtool-$(AMTOOL) ## Install what tests and development run: an S3 server, Prometheus, promtool, an OpenTelemetry collector, etcd, amtool.
	@for t in $(notdir $^); do ln -sf $$t $(TOOLS)/$${t%%-*}; done

clean: ## Remove bin and .tools; data stays.
	rm -rf bin .tools

# The module of the server of Google's storage has dashes in its name, which the links of the tools end at.
FAKEGCS       := v1.56.1
tools: $(TOOLS)/fakegcs-$(FAKEGCS)
$(TOOLS)/fakegcs-$(FAKEGCS):
	@mkdir -p $(TOOLS)/tmp
	GOFLAGS= GOBIN=$(TOOLS)/tmp go install github.com/fsouza/fake-gcs-server@$(FAKEGCS)
	@mv $(TOOLS)/tmp/fake-gcs-server $@

# install,<name>,<package>,<version>: a tool keeps its version in its file name, so a new version is a new file.
define install
$(TOOLS)/$(1)-$(3):
	@mkdir -p $(TOOLS)/tmp
	GOFLAGS= GOBIN=$(TOOLS)/tmp go install $(2)@$(3)
	@mv $(TOOLS)/tmp/$(1) $$@
endef
$(eval $(call install,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_LINT)))
$(eval $(call install,govulncheck,golang.org/x/vuln/cmd/govulncheck,$(GOVULNCHECK)))
$(eval $(call install,versitygw,github.com/versity/versitygw/cmd/versitygw,$(VERSITYGW)))
$(eval $(call install,helm,helm.sh/helm/v3/cmd/helm,$(HELM)))
$(eval $(call install,jsonnet,github.com/google/go-jsonnet/cmd/jsonnet,$(JSONNET)))
$(eval $(call install,nfpm,github.com/goreleaser/nfpm/v2/cmd/nfpm,$(NFPM)))
$(eval $(call install,amtool,github.com/prometheus/alertmanager/cmd/amtool,$(AMTOOL)))
$(eval $(call install,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go,$(PROTOC_GO)))
$(eval $(call install,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc,$(PROTOC_GRPC)))
$(eval $(call install,protoc-gen-go-vtproto,github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto,$(PROTOC_VT)))

# Prometheus has replace directives, which go install refuses; it is built in its own module instead.
$(TOOLS)/prom%-$(PROMETHEUS):
	@mkdir -p $(TOOLS)
	cd "$$(GOFLAGS= go mod download -json github.com/prometheus/prometheus@$(PROMETHEUS) | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')" && \
	  GOWORK=off GOFLAGS=-buildvcs=false go build -tags remove_all_sd -o $@ ./cmd/prom$*

# The collector, etcd and Kubernetes's API server are modules of their own, so that their dependencies are not ours.
$(TOOLS)/otelcol-$(OTELCOL) $(TOOLS)/etcd-$(ETCD) $(TOOLS)/apiserver-$(APISERVER): $(TOOLS)/%:
	@mkdir -p $(TOOLS)
	cd development/$(firstword $(subst -, ,$*)) && GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' go build -trimpath -ldflags '-s -w $(KUBEVERSION)' -o $@ .
# The API server says its version, which charts ask for.
$(TOOLS)/apiserver-$(APISERVER): KUBEVERSION = $(patsubst %,-X k8s.io/component-base/version.%,gitVersion=$(APISERVER) gitMajor=1 gitMinor=$(word 2,$(subst ., ,$(APISERVER))))

# The chart and the jsonnet library are tested in a module of their own, as Kubernetes's types are no dependency of ours.
.PHONY: helm-tools helm-test helm-install mixin
helm-tools: $(TOOLS)/helm-$(HELM) $(TOOLS)/jsonnet-$(JSONNET)
	@for t in $(notdir $^); do ln -sf $$t $(TOOLS)/$${t%%-*}; done
	cd operations/helm/check && GOWORK=off go list -test -deps ./... > /dev/null

helm-test: build helm-tools ## Render the Helm chart and the jsonnet library, decode them strictly, and check every command line with the binary.
	cd operations/helm/check && GOWORK=off go vet ./... && GOWORK=off go test -count=1 -timeout 30m ./...

helm-install: helm-tools $(TOOLS)/apiserver-$(APISERVER) $(TOOLS)/etcd-$(ETCD) ## Install the chart into an API server of Kubernetes, which is built at first (many minutes), upgrade it and remove it; every object is made and read back.
	cd operations/helm/check && APISERVER=$(TOOLS)/apiserver-$(APISERVER) ETCD=$(TOOLS)/etcd-$(ETCD) GOWORK=off go test -count=1 -timeout 15m -v -run 'TestAnAPIServer|TestTheChartIsInstalled|TestALargerPreset' ./...

mixin: ## Write dashboards, alerts, recording rules and runbooks from the tables in tools/mixin.
	go run ./tools/mixin

# So is the operator: Kubernetes's libraries are no dependency of ours.
.PHONY: operator operator-crds operator-check operator-test
operator: ## Build the Kubernetes operator, bin/amphora-operator.
	cd operations/operator && GOWORK=off go build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/amphora-operator .

operator-crds: ## Write what is generated from the operator's types: deep copies and CRDs.
	cd operations/operator && GOWORK=off go tool controller-gen object crd paths=./api/... output:crd:dir=deploy/crds

operator-check: ## Vet and test the operator, and prove that its CRDs are those of its types.
	cd operations/operator && GOWORK=off go vet ./... && GOWORK=off go test -count=1 ./...
	@rm -rf bin/crds
	cd operations/operator && GOWORK=off go tool controller-gen crd paths=./api/... output:crd:dir=$(CURDIR)/bin/crds
	diff -r bin/crds operations/operator/deploy/crds || { echo 'the CRDs are not those of the types: make operator-crds'; exit 1; }

operator-test: build $(TOOLS)/apiserver-$(APISERVER) $(TOOLS)/etcd-$(ETCD) ## Test the operator with an API server of Kubernetes, which is built at first (many minutes), and the built binary.
	cd operations/operator && APISERVER=$(TOOLS)/apiserver-$(APISERVER) ETCD=$(TOOLS)/etcd-$(ETCD) AMPHORA=$(CURDIR)/bin/amphora GOWORK=off go test -count=1 -timeout 15m -v -run 'TestWithAnAPIServer' .
