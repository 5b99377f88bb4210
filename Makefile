# kbuild: `make image` builds a bootable v1.19.12 node, `make vm` boots it,
# `make test` checks everything that runs without booting. `make help` lists all.

VERSION ?= v1.19.12
OUT     ?= out/$(VERSION)
LANE    ?= container
SCENARIO ?= .
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)
export CGO_ENABLED := 0

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what building an image needs (mmdebstrap)
	@command -v mmdebstrap >/dev/null || { echo "installing mmdebstrap"; $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends mmdebstrap; }

deps-test: deps ## install what the scenarios need besides
	@command -v systemd-nspawn >/dev/null || { echo "installing systemd-container"; $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends systemd-container iproute2; }

build: ## compile kbuild and kbuild-firstboot into out/bin
	@mkdir -p out/bin
	go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -o out/bin/ ./builder/cmd/kbuild ./firstboot/cmd/kbuild-firstboot

image: deps build ## build the bootable image in out/VERSION
	out/bin/kbuild image --version $(VERSION) --out $(OUT) --force

.PHONY: help deps deps-test build image
