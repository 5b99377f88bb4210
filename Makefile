# kbuild: `make image` builds a bootable v1.19.12 node, `make vm` boots it,
# `make test` runs the tests. `make help` lists everything.

VERSION  ?= v1.19.12
OUT      ?= out/$(VERSION)
LANE     ?= container
SCENARIO ?= .
FUZZTIME ?= 30s
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
GOBUILD  := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -buildid='
# A KVM device may exist and still not work: the programs probe for it.

.DEFAULT_GOAL := help
.PHONY: help deps deps-test build image vm vm-stop test check test-vm oracle golden fuzz repro bench bench-boot clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# $(1): a command that must be there, $(2): the Debian package that has it.
need = command -v $(1) >/dev/null || { echo "installing $(2)"; $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qqy --no-install-recommends $(2); }

deps: ## install what building needs: mmdebstrap
	@$(call need,mmdebstrap,mmdebstrap)

deps-test: deps ## install what the container lane needs besides: systemd-nspawn, ip
	@$(call need,systemd-nspawn,systemd-container)
	@$(call need,ip,iproute2)

build: ## compile kbuild and kbuild-firstboot into out/bin
	@mkdir -p out/bin
	$(GOBUILD) -o out/bin/ ./builder/cmd/kbuild ./firstboot/cmd/kbuild-firstboot

image: deps build ## build the bootable image of VERSION (default v1.19.12) in out/VERSION
	out/bin/kbuild image --version $(VERSION) --out $(OUT) --force
	@echo "To boot it:  make vm   (or write $(OUT)/disk.raw to a machine's disk: see README.md)"
