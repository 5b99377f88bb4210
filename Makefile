# kbuild: `make image` builds a bootable v1.19.12 node, `make vm` boots it,
# `make test` runs the tests. `make help` lists everything.

VERSION  ?= v1.19.12
OUT      ?= out/$(VERSION)
LANE     ?= container
SCENARIO ?=
# The version that scenarios of upgrades move to.
OTHER    ?= v1.20.15
FUZZTIME ?= 30s
TIMEOUT  ?= 3h
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
# kbuild's own version, which its images name: the tag of this commit, or the
# commit. It depends on nothing else, so that who has it can build the same.
KBUILD_VERSION ?= $(shell git describe --tags --exact-match --dirty 2>/dev/null || git describe --always --exclude='*' --abbrev=12 --dirty 2>/dev/null | sed 's/^/devel-/')
GOBUILD  = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -buildid= -X github.com/kbuild/kbuild/builder.version=$(KBUILD_VERSION)'
GODIRS   := builder cli docs firstboot images templates test-vm
# Kubernetes versions whose real kubeadm judges ours.
ORACLES  := v1.19.12 v1.20.15 v1.37.2
# Where CI is set, real kubeadm, etcd and API server judge; elsewhere when they
# are there (make kubeadms programs).
TEST     := KBUILD_ORACLE=$(if $(CI)$(wildcard out/oracle/kubeadm-v1.37.2),$(CURDIR)/out/oracle) \
	KBUILD_TEST_BIN=$(if $(CI)$(wildcard out/test-bin/kubectl),$(CURDIR)/out/test-bin) go test -timeout 30m

.DEFAULT_GOAL := help
.PHONY: help deps deps-test modules build image vm vm-stop test check test-vm test-ignition oracle kubeadms programs golden fuzz repro bench bench-boot bench-join bench-upgrade boots march soak clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A command that is silent unless it fails: $(QUIETLY) LOG "WHAT IT DOES" COMMAND...
QUIETLY  := @.ci/quietly

# $(1): a program or file that must be there, $(2): the Debian packages that have it.
need = command -v $(1) >/dev/null || test -e $(1) || .ci/quietly apt "installing $(2)" \
	$(SUDO) sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends $(2)'

deps: ## install what building needs: mmdebstrap
	@$(call need,mmdebstrap,mmdebstrap)
	@test $$(id -u) = 0 || { $(call need,newuidmap,uidmap); }

deps-test: deps ## install what testing needs besides
	@$(call need,systemd-nspawn,systemd-container)
	@$(call need,ip,iproute2)
	@$(call need,cpio,cpio)
	@$(call need,genisoimage,genisoimage)
	@$(call need,containerd,containerd runc)
	@$(call need,sfdisk,fdisk)
	@$(call need,veritysetup,cryptsetup-bin)
	@$(call need,openssl,openssl)

build: ## compile kbuild and kbuild-firstboot into out/bin
	@mkdir -p out/bin
	$(QUIETLY) build "compiling kbuild and kbuild-firstboot" env $(GOBUILD) -o out/bin/ ./builder/cmd/kbuild ./firstboot/cmd/kbuild-firstboot

image: deps build ## build the bootable image of VERSION (v1.19.12) in out/VERSION
	out/bin/kbuild image --version $(VERSION) --out $(OUT) --force
	@echo "To boot it: make vm, or write $(OUT)/disk.raw to a disk (docs/user-data.md tells about user-data)."

vm: image ## boot the image in QEMU and wait for Ready; the disk is kept (FRESH=1: a new one)
	$(QUIETLY) vm "compiling the VM's commands" env $(GOBUILD) -o out/bin/vm ./test-vm/cmd/vm
	KBUILD_VM_TREE=$$(out/bin/kbuild tree vm) out/bin/vm up --image $(OUT) $(if $(FRESH),--fresh)

vm-stop: ## power the VM off; its disk stays
	out/bin/vm stop

test: deps-test modules $(if $(CI),kubeadms programs) check ## check, and run every test that needs no booted image
	$(TEST) ./...

modules:
	$(QUIETLY) modules "downloading Go modules" go mod download

check: ## format, vet, lint, tidy
	@test -z "$$(gofmt -l $(GODIRS))" || { echo "run gofmt -w on:"; gofmt -l $(GODIRS); exit 1; }
	$(QUIETLY) tidy "checking go.mod" go mod tidy -diff
	$(QUIETLY) vet "go vet" go vet ./...
	$(QUIETLY) tools "compiling staticcheck" go build -C .ci/tools -o ../../out/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	$(QUIETLY) staticcheck "staticcheck" out/bin/staticcheck ./...

# What a scenario boots, and moves to: Swap… takes signed updates.
SWAP   := $(findstring Swap,$(SCENARIO))
BOOTS  := $(CURDIR)/$(if $(SWAP),out/swap/$(VERSION),$(OUT))
MOVES  := $(if $(SWAP),$(CURDIR)/out/swap/$(OTHER),$(if $(findstring Upgrade,$(SCENARIO))$(findstring Fleet,$(SCENARIO)),$(CURDIR)/out/$(OTHER)))

test-vm: deps-test image $(if $(SWAP),swap-images) $(if $(findstring SecureBoot,$(SCENARIO)),secure-images) ## boot the image and run SCENARIO in LANE (container or vm); KEEP=1 leaves the machine
	$(if $(MOVES),$(if $(SWAP),,out/bin/kbuild image --version $(OTHER) --out out/$(OTHER) --force))
	KBUILD_IMAGE=$(BOOTS) KBUILD_OTHER_IMAGE=$(MOVES) KBUILD_SWAP_IMAGES=$(if $(SWAP),$(CURDIR)/out/swap) KBUILD=$(CURDIR)/out/bin/kbuild KBUILD_VM_TREE=$$(test $(LANE) != vm || out/bin/kbuild tree vm) \
		go test ./test-vm -count=1 -v -timeout $(TIMEOUT) -run '^TestScenario$(SCENARIO)' -lane $(LANE)

# Scenarios that build images themselves, one after another, and remove them.
MANY = KBUILD_IMAGES=$(CURDIR)/out/$@ KBUILD=$(CURDIR)/out/bin/kbuild go test ./test-vm -count=1 -v -timeout 48h -lane container

boots: deps-test build ## boot an image of each of VERSIONS ("v1.37.2 v1.36.3"; all: of every minor), and print a table
	VERSIONS="$(or $(VERSIONS),all)" $(MANY) -run '^TestScenarioBoots$$'

march: deps-test build ## take one cluster through every minor version, or FROM one (v1.34) TO another
	FROM=$(FROM) TO=$(TO) $(MANY) -run '^TestScenarioMarch$$'

soak: ## cut the power N (100) times at random instants of swaps, in a VM
	CUTS=$(or $(N),100) $(MAKE) test-vm LANE=vm SCENARIO=SwapCut TIMEOUT=48h

# $(1): version, $(2): name, $(3): what it differs in from an ordinary image.
swap-image = out/bin/kbuild image --version $(1) --sign-key out/swap/update.key --out out/swap/$(2) --force $(3)

.PHONY: swap-images
swap-images: build
	@$(call need,openssl,openssl)
	@mkdir -p out/swap && test -e out/swap/update.key || openssl genpkey -algorithm ed25519 -out out/swap/update.key
	$(call swap-image,$(VERSION),$(VERSION))
	$(call swap-image,$(OTHER),$(OTHER))
	$(call swap-image,$(OTHER),again,--check test-vm/testdata/check)
	$(call swap-image,$(OTHER),unhealthy,--trial-boots 1 --trial-limit 5m)
	$(call swap-image,$(OTHER),hasty,--trial-boots 1 --trial-limit 2m)
	$(call swap-image,$(OTHER),flag,--trial-boots 1 --trial-limit 2m --config test-vm/testdata/flag.yaml)
	$(call swap-image,$(OTHER),panic,--cmdline rdinit=/nonexistent)
	$(call swap-image,$(OTHER),initrd,--cmdline rd.systemd.unit=emergency.target)

# Signed for the firmware that Debian's package ovmf has for tests.
.PHONY: secure-images
secure-images: swap-images
	openssl rsa -passin pass:snakeoil -in "$$(out/bin/kbuild tree vm)/usr/share/ovmf/PkKek-1-snakeoil.key" -out out/swap/db.key
	cp "$$(out/bin/kbuild tree vm)/usr/share/ovmf/PkKek-1-snakeoil.pem" out/swap/db.crt
	$(call swap-image,$(VERSION),secure,--secure-boot-key out/swap/db.key --secure-boot-cert out/swap/db.crt)
	$(call swap-image,$(OTHER),secure-next,--secure-boot-key out/swap/db.key --secure-boot-cert out/swap/db.crt)

test-ignition: deps-test build ## in a VM, real Ignition makes a Debian a node of VERSION, from sysext and config
	@$(call need,gcc,gcc libc6-dev)
	@$(call need,/usr/include/blkid/blkid.h,libblkid-dev)
	out/bin/kbuild image --version $(VERSION) --format ignition --out out/ignition --force \
		--sysext-url http://10.0.2.100/ --butane test-vm/testdata/ignition/site.bu
	KBUILD_IGNITION=$(CURDIR)/out/ignition KBUILD_DEBIAN_TREE=$$(out/bin/kbuild tree debian) KBUILD_VM_TREE=$$(out/bin/kbuild tree vm) \
		go test ./test-vm -count=1 -v -timeout 60m -run '^TestScenarioIgnition$$'

kubeadms: ## compile real kubeadm of the versions that judge ours
	@mkdir -p out/oracle
	@for v in $(ORACLES); do ln -sfn "$$(go run ./builder/source/cmd/kubeadm $$v)" out/oracle/kubeadm-$$v || exit 1; done

programs: ## compile real etcd, API server, controller manager and containerd, which tests run
	go run ./builder/source/cmd/programs $(VERSION) out/test-bin

oracle: kubeadms ## compare with real kubeadm, live
	KBUILD_ORACLE=$(CURDIR)/out/oracle go test -count=1 -timeout 30m -run 'Oracle' ./images ./firstboot ./firstboot/config

golden: ## write the golden files anew; read the diff
	@files=$$(grep -rlE --include='*_test.go' '\<golden\.' .); \
	UPDATE_GOLDEN=1 go test -count=1 $$(dirname $$files | sort -u) \
		-run "^($$(grep -hoE '^func Test[A-Za-z0-9]+' $$files | cut -c6- | sort -u | paste -sd'|'))\$$"
	git diff --stat

fuzz: ## fuzz every parser of foreign bytes, FUZZTIME (30s) each
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z]*' $$p/*_test.go | cut -c6-); do \
			echo "$$p $$f"; go test $$p -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) || exit 1; done; done

repro: deps build ## build the image twice, in other circumstances, and compare every byte
	rm -rf out/repro && mkdir -p out/repro/a "out/repro/another place"
	umask 022; TZ=UTC LC_ALL=C.UTF-8 out/bin/kbuild image --version $(VERSION) --format raw,qcow2,ignition --out out/repro/a
	umask 077; TZ=Asia/Kolkata LC_ALL=C out/bin/kbuild image --version $(VERSION) --format raw,qcow2,ignition --out "out/repro/another place"
	cd "out/repro/another place" && sha256sum --check ../a/SHA256SUMS && cmp SHA256SUMS ../a/SHA256SUMS
	rm -rf out/repro

bench: bench-boot bench-join bench-upgrade ## every benchmark

bench-boot: deps-test image ## first boot against kubeadm init and against the floor
	go run ./test-vm/cmd/bench-boot --image $(OUT) --kubeadm "$$(go run ./builder/source/cmd/kubeadm $(VERSION))"

bench-join: deps-test image programs ## a worker's join against kubeadm join, and 10 and 500 joins at once
	go run ./test-vm/cmd/bench-join --image $(OUT) --kubeadm "$$(go run ./builder/source/cmd/kubeadm $(VERSION))"
	KBUILD_TEST_BIN=$(CURDIR)/out/test-bin go test ./firstboot -run '^$$' -bench 'JoinAtOnce' -benchtime 1x -count 3 -timeout 60m

bench-upgrade: deps-test image ## how long the API is away by a swap, and by a bare reboot
	out/bin/kbuild image --version $(OTHER) --out out/$(OTHER) --force
	go run ./test-vm/cmd/bench-upgrade --image $(OUT) --other out/$(OTHER)

clean: ## remove out; the cache stays
	rm -rf out
