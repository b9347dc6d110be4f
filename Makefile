# Tidemark's own commands. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
GOBUILD := CGO_ENABLED=0 go build -p 2 -trimpath -ldflags '$(LDFLAGS)'
TOOLS   := containerd-1.6 containerd-2 runc docker-registry cue cosign-v3 cosign-v2 staticcheck govulncheck client-node

.PHONY: help build test test-unified unit check lint vuln cross shell demo bench soak tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build/tidemark for this machine
	@mkdir -p build
	$(GOBUILD) -o build/tidemark ./cmd/tidemark

test: tools build check cross unit demo ## everything: checks, cross builds, all tests with -race, the demo

check: lint vuln ## gofmt, vet, staticcheck, govulncheck

lint:
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	go vet -p 2 ./...
	go vet -p 2 -tags bench ./internal/bench
	go vet -p 2 -tags soak ./internal/fault
	go vet -p 2 -tags unified ./internal/harness/unified
	go vet -p 2 -tags failpoint ./internal/failpoint
	$$(tools/get staticcheck) ./...

# The vulnerability database is on the Internet; where it cannot be reached
# there is nothing to check against, which is said and is no failure.
vuln:
	@out=$$($$(tools/get govulncheck) ./... 2>&1) && { echo "$$out" | tail -n 3; exit 0; }; \
	if grep -qE 'vuln\.go\.dev|no such host|dial tcp|fetching vulnerabilities' <<<"$$out"; \
	then echo "govulncheck: its database cannot be reached from here: not checked"; \
	else echo "$$out"; exit 1; fi

cross: ## build for every platform that is released, into build/
	@mkdir -p build
	GOOS=linux GOARCH=amd64 $(GOBUILD) -o build/tidemark-linux-amd64 ./cmd/tidemark
	GOOS=linux GOARCH=arm64 $(GOBUILD) -o build/tidemark-linux-arm64 ./cmd/tidemark
	GOOS=linux GOARCH=arm GOARM=7 $(GOBUILD) -o build/tidemark-linux-armv7 ./cmd/tidemark
	@ls -l build/tidemark-linux-* | awk '{ printf "%-32s %6.1f MB\n", $$9, $$5/1e6 }'

unit: tools ## all Go tests with -race, on real containerd, registries, Git and NATS
	go test -p 2 -race -timeout 15m ./...

test-unified: tools ## the runtime's tests under cgroup version 2 only: Debian's kernel in QEMU, slow; ONLY=<regexp> [ACCELERATOR=kvm]
	@command -v qemu-system-x86_64 >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends qemu-system-x86; } >&2
	go test -tags unified -count=1 -timeout 4h -run TestUnified ./internal/harness/unified -v \
	  -only '$(ONLY)' -accelerator $(or $(ACCELERATOR),tcg)

shell: build ## the stage of the quickstart, to play its story by hand
	examples/quickstart/shell

demo: build ## the quickstart's story, played and checked
	examples/quickstart/play

bench: build tools ## the table of figures; ONLY=<regexp> runs a part; MESSAGES=200000 queues fewer than a million
	@command -v mosquitto >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends mosquitto; } >&2
	@tools/get nats-server >/dev/null
	@go test -tags bench -count=1 -timeout 60m -run TestFigures ./internal/bench -only '$(ONLY)' -messages $(or $(MESSAGES),1000000) -v | grep -E '^(measured|\||FAIL|ok|panic)|bench/.*_test.go|\.go:[0-9]+'

soak: tools ## break devices at random: ROUNDS=n [SEED=n] [FS=ext4,xfs] [CONTAINERD=1.6,2] [FAULTS=regexp] [PARALLEL=2] [MESSAGES=false] [CHANGES=false] [WITHIN=10m] [OUT=build/soak.json]
	go test -tags soak -count=1 -timeout 96h -run TestSoak ./internal/fault -v -parallel $(or $(PARALLEL),2) \
	  -rounds $(or $(ROUNDS),100) -seed $(or $(SEED),0) -fs '$(FS)' -containerd '$(CONTAINERD)' \
	  -faults '$(FAULTS)' -messages=$(or $(MESSAGES),true) -changes=$(or $(CHANGES),true) -within $(or $(WITHIN),0) -out $(or $(OUT),build/soak.json)

tools: ## what the tests use, into a private cache; from Debian, what of it is missing
	@missing=; while read -r command package; do command -v $$command >/dev/null || missing+=" $$package"; done \
	<<<$$'ssh-keygen openssh-client\nsystemd-analyze systemd\nmkfs.ext4 e2fsprogs\nmkfs.xfs xfsprogs\nip iproute2\nnode nodejs\nnpm npm'; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; } >&2
	@tools/get $(TOOLS) >/dev/null

clean:
	rm -rf build
