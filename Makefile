# Herald's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The directory of builds that checkouts share: the cluster's binaries, cargo-deny, cargo-mutants and others.
CACHE ?= $(or $(HERALD_LAB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/herald-lab)
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_MUTANTS_VERSION := 27.1.0
CARGO_MUTANTS := $(CACHE)/tools/cargo-mutants-$(CARGO_MUTANTS_VERSION)/bin/cargo-mutants
CARGO_SBOM_VERSION := 0.10.0
CARGO_SBOM := $(CACHE)/tools/cargo-sbom-$(CARGO_SBOM_VERSION)/bin/cargo-sbom
MDBOOK_VERSION := 0.5.4
MDBOOK_MERMAID_VERSION := 0.17.1
MDBOOK := $(CACHE)/tools/mdbook-$(MDBOOK_VERSION)-$(MDBOOK_MERMAID_VERSION)/bin
RICH_VERSION := 15.0.0
RICH := $(CACHE)/tools/rich-$(RICH_VERSION)
# Only commands that create network namespaces need root.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E env PATH="$$PATH")
LAB := $(SUDO) target/herald/herald-lab

# Tests that `--all-targets` leaves out because they need root, or a minute.
BY_NAME := --test laboratory --test scenarios --test mutations

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: setup cluster ## A real cluster on this machine: EXTERNAL-IP, its announcing node, a client, a killed speaker, a node without power (KEEP=1 leaves it up)
	$(LAB) demo $(if $(KEEP),--keep)

.PHONY: test
test: ## Everything: format, lints, licences, unit, property, doc and CRD tests, the simulation, then the scenarios on a cluster
	+@e2e/steps.sh setup fmt lint links deny unit doc sim mutations lab cluster release-dry-run e2e

.PHONY: check
check: fmt lint unit ## The inner loop: format, lints, unit tests; no root, no cluster

.PHONY: fmt
fmt: ## Check the format
	cargo fmt --all --check

.PHONY: lint
lint: ## Lints, warnings are errors
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace $(BY_NAME) --locked -- -D warnings

.PHONY: unit
unit: ## Unit and property tests, and the drift test of the CRDs
	cargo test --workspace --all-targets --locked

.PHONY: doc
doc: ## Documentation builds without warnings, and its examples run
	cargo test --workspace --doc --locked
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

.PHONY: links
links: ## Links and anchors of every page, pages that comments cite, marks of command blocks
	structure/documents_test.py
	structure/documents.py source

# mdbook-mermaid brings the script that draws diagrams in the browser. It writes it, and an edit of book.toml, beside the
# book.toml that it is given: a copy.
.PHONY: book
book: links $(MDBOOK)/mdbook-mermaid ## The documentation as a book, in target/book
	@mkdir -p target/book-assets
	@cp book.toml target/book-assets
	RUST_LOG=warn $(MDBOOK)/mdbook-mermaid install target/book-assets
	PATH="$(MDBOOK):$$PATH" mdbook build
	structure/documents.py book target/book

# Both share the builds of their dependencies.
$(MDBOOK)/mdbook-mermaid:
	@echo "building mdbook $(MDBOOK_VERSION) and mdbook-mermaid $(MDBOOK_MERMAID_VERSION), once"
	export CARGO_PROFILE_DEV_DEBUG=false CARGO_TARGET_DIR=target/mdbook; \
	cargo install --debug mdbook --version $(MDBOOK_VERSION) --no-default-features --features search --locked --root $(dir $(MDBOOK)); \
	cargo install --debug mdbook-mermaid --version $(MDBOOK_MERMAID_VERSION) --locked --root $(dir $(MDBOOK))
	rm -rf target/mdbook

.PHONY: deny
deny: $(CARGO_DENY) ## Licences, banned crates and sources of the dependencies
	$(CARGO_DENY) --locked check licenses bans sources

.PHONY: advisories
advisories: $(CARGO_DENY) ## Known vulnerabilities of the dependencies (fetches the RustSec database)
	$(CARGO_DENY) --locked check advisories

$(CARGO_DENY):
	@echo "building cargo-deny $(CARGO_DENY_VERSION), once (about a minute and a half)"
	CARGO_PROFILE_DEV_DEBUG=false cargo install --debug cargo-deny --version $(CARGO_DENY_VERSION) --locked --root $(dir $(patsubst %/,%,$(dir $@)))

# The selection of packages equals that of `unit`, so that both share their builds: cargo chooses the features of
# dependencies by it. The build includes the herald-lab that the tests start.
SCENARIOS := cargo test --workspace --test laboratory --test scenarios --locked

.PHONY: cluster
cluster: lab ## Build the programs of a cluster (etcd, kube-apiserver, kubelet, ...), once, into the cache
	target/herald/herald-lab build

.PHONY: helm
helm: lab ## Build Helm, by which the chart is tried, once, into the cache
	target/herald/herald-lab build-helm

.PHONY: e2e
e2e: setup cluster helm ## The scenarios, each once, on a real cluster (ONLY=word runs those whose name contains it)
	$(SCENARIOS) $(if $(SUDO),--config "target.'cfg(all())'.runner='$(SUDO)'") -- $(ONLY)

.PHONY: vm-kernel
vm-kernel: lab ## Build user-mode Linux from Debian's kernel source, once, into the cache (JOBS=n; 15 minutes on two processors)
	@e2e/setup.sh vm-kernel
	target/herald/herald-lab vm-kernel $(call option,JOBS,jobs)

.PHONY: vm-test
vm-test: setup cluster vm-kernel ## Bonds, VLANs, VRFs, IPVS, cgroup v2, and ordinary scenarios, in user-mode Linux (ONLY='name name' runs these)
	$(LAB) vm-test $(ONLY)

.PHONY: stock-kernel-test
stock-kernel-test: setup cluster ## Before a release: one node on Debian's stock kernel below systemd, in an emulated machine (an hour at most)
	@e2e/setup.sh stock-kernel
	$(SUDO) lab/vm/stock-kernel.sh

# Expands to an option of a command, if the variable is set.
option = $(if $($(1)),--$(2) $($(1)))

.PHONY: bench
bench: setup cluster ## The figures of docs/benchmarks.md: apply to EXTERNAL-IP, create to ingress, ingress to announcement, memory
	$(LAB) bench

.PHONY: bench-install
bench-install: setup cluster helm ## Installation to EXTERNAL-IP by each way: the one file, kustomize, Helm (REPEAT=n runs of each, default 3)
	$(LAB) bench-install $(call option,REPEAT,repeat)

.PHONY: bench-failover
bench-failover: setup cluster ## The effect of faults on clients, over many runs (REPEAT=n runs of each, default 10; ONLY=word those whose name contains it; PLACE=three|iptables|two-segments|two|one)
	$(LAB) bench-failover $(call option,REPEAT,repeat) $(call option,ONLY,only) $(call option,PLACE,place)

.PHONY: bench-scale
bench-scale: setup cluster ## Many Services at once: times, writes of Herald, CPU, memory, a restart (SERVICES=n; DUAL=1 for two families each)
	$(LAB) --id scale bench-scale $(call option,SERVICES,services) $(if $(DUAL),--dual-stack)

.PHONY: recordings
recordings: setup cluster $(RICH)/installed ## Write docs/pictures, the terminal pictures of the README, from a demo that is run for it (not part of CI)
	$(RICH)/bin/python e2e/recordings/record.py $(LAB)

$(RICH)/installed:
	@e2e/setup.sh recordings
	python3 -m venv --clear $(RICH)
	$(RICH)/bin/pip install --quiet --disable-pip-version-check rich==$(RICH_VERSION)
	touch $@

.PHONY: bench-cost
bench-cost: setup cluster ## Answering times beside the kernel and a minimal responder, CPU, memory, API requests; at rest and under floods (ADDRESSES=1,1000,10000 FLOODS=0,20000,100000)
	$(LAB) --id cost bench-cost --clients 2 $(call option,ADDRESSES,addresses) $(call option,FLOODS,floods)

.PHONY: sim
sim: ## Histories of faults on simulated segments (SEEDS=n NODES=n ADDRESSES=n; SEED=s replays one; LOSS=share measures fail-over)
	cargo run -q --profile simulation -p herald-sim --locked -- --json target/bench/sim.json $(call option,SEEDS,seeds) $(call option,NODES,nodes) $(call option,ADDRESSES,addresses) $(call option,SEED,seed) $(call option,LOSS,measure)

.PHONY: mutations
mutations: ## Break each rule of the segment protocol: an invariant of the simulation must detect it
	cargo test --profile simulation -p herald-sim --test mutations --locked

.PHONY: mutants
mutants: $(CARGO_MUTANTS) ## Change the code that decides, one place at a time: a unit test must fail (SAMPLE=n or SHARD=k/n of the places; a day and more without)
	structure/mutants.sh $(CARGO_MUTANTS) $(call option,SAMPLE,sample) $(call option,SHARD,shard)

$(CARGO_MUTANTS):
	@echo "building cargo-mutants $(CARGO_MUTANTS_VERSION), once (about a minute and a half)"
	CARGO_PROFILE_DEV_DEBUG=false cargo install --debug cargo-mutants --version $(CARGO_MUTANTS_VERSION) --locked --root $(dir $(patsubst %/,%,$(dir $@)))

.PHONY: manifests
manifests: cluster ## Write deploy/*.yaml, one file for each way to install, from the directories there
	target/herald/herald-lab manifests

.PHONY: golden
golden: helm ## Write deploy/helm/golden, what the Helm chart makes of some values, after a change of the chart
	target/herald/herald-lab golden

.PHONY: crds
crds: ## Generate deploy/crds from the types in crds/
	cargo run -q -p herald-crds --example generate -- deploy/crds

# The program is built in the laboratory's module of Kubernetes, whose version determines the costs.
.PHONY: cel-cost
cel-cost: ## The API server's estimate of the costs of the validation rules of deploy/crds, as in docs/benchmarks.md (needs Go >= 1.26)
	cd lab/binaries/kubernetes && GOFLAGS= GOWORK=off CGO_ENABLED=0 go run -mod=readonly $(CURDIR)/e2e/cel-cost/main.go $(filter-out %/kustomization.yaml,$(wildcard $(CURDIR)/deploy/crds/*.yaml))

.PHONY: reasons
reasons: ## Generate docs/reasons.md from the types in controller/
	cargo run -q -p herald-controller --example reasons -- docs/reasons.md

.PHONY: crd-reference
crd-reference: ## Generate docs/crds.md from the types in crds/
	cargo run -q -p herald-crds --example reference -- docs/crds.md

.PHONY: image
image: setup lab ## Build Herald's image with buildah, as an OCI archive in target/image
	@mkdir -p $(CACHE)
	$(LAB) image

# What the scripts of a release need besides the programs.
RELEASE = SUDO="$(SUDO)" CARGO_SBOM="$(CARGO_SBOM)" HELM="$$(target/herald/herald-lab build-helm)"

.PHONY: release-dry-run
release-dry-run: setup lab cargo-sbom ## What a release consists of, into target/release-dry-run, as far as it needs no registry and no key
	$(RELEASE) deploy/release/dry-run.sh

.PHONY: release-bundle
release-bundle: lab cargo-sbom ## What the release's workflow publishes besides the image (VERSION=1.2.3 DIGEST=sha256:... DIRECTORY=path)
	$(RELEASE) deploy/release/bundle.sh "$(VERSION)" "$(DIGEST)" "$(DIRECTORY)"

.PHONY: cargo-sbom
cargo-sbom: $(CARGO_SBOM)

$(CARGO_SBOM):
	@echo "building cargo-sbom $(CARGO_SBOM_VERSION), once"
	CARGO_PROFILE_DEV_DEBUG=false cargo install --debug cargo-sbom --version $(CARGO_SBOM_VERSION) --locked --root $(dir $(patsubst %/,%,$(dir $@)))

.PHONY: setup
setup: ## Install the Debian packages the lab needs, if any is missing (prints them first)
	@e2e/setup.sh

.PHONY: lab
lab: ## Build herald-lab, and Herald's programs with it (target/herald)
	e2e/programs.sh

.PHONY: lab-down
lab-down: lab ## Tear down every lab on this machine
	$(LAB) down --all

.PHONY: clean
clean: ## Remove the build output of this checkout (not the cache of cluster binaries)
	cargo clean
