# The same commit, built with the same Go, becomes the same bytes anywhere.

host   := $(shell go env GOHOSTARCH)
GOARCH := $(or $(GOARCH),$(host))
binary := build/$(GOARCH)/knockwall
client := build/$(GOARCH)/client/knockwall
share  := build/$(GOARCH)/knockwall-share

# What Go runs here is for this machine, whatever the packages are for.
unexport GOARCH GOFLAGS GOAMD64 GOARM GOARM64 GOEXPERIMENT
export LC_ALL := C
export TZ := UTC
export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct)

.PHONY: help build deb rpm archlinux apk dist cross test-packages clean generated always
help:
	@echo 'make build           the programs, static:                build/$(GOARCH)/'
	@echo 'make deb             knockwall and knockwall-client for Debian and Ubuntu'
	@echo 'make rpm             … for Fedora and others'
	@echo 'make archlinux       … for Arch Linux'
	@echo 'make apk             knockwall-client for Alpine, which has no systemd'
	@echo 'make dist            all packages and archives for all systems, with checksums'
	@echo 'make cross           build it for every system that it is for: nothing is kept'
	@echo 'make test-packages   build packages twice, and look at them'
	@echo 'make clean           remove build/, which has all of these'
	@echo
	@echo 'GOARCH=arm64 after one of the first five is for another architecture.'

build: $(binary) $(share)

# Always: Go knows better what has changed. Panics name their lines without
# symbols, too.
compile = CGO_ENABLED=0 GOARCH=$* GOARM=7 go build -trimpath -buildvcs=true -ldflags='-s -w' -o $@ $(1)
build/%/knockwall: always
	$(call compile,./cmd/knockwall)
build/%/client/knockwall: always
	$(call compile,-tags client ./cmd/knockwall)
build/%/knockwall-share: always
	$(call compile,./cmd/knockwall-share)

generated: $(binary) $(client) $(share) build/$(host)/knockwall
	internal/packaging/generate.sh build/$(host)/knockwall $(binary) $(client) $(share)

package = VERSION=$$(cat build/$(addsuffix .,$(filter archlinux apk,$@))version) ARCH=$(GOARCH:arm=arm7) BINARY=$(1) SHARE=$(share) \
	  go tool -modfile=internal/tools/go.mod nfpm package --config internal/packaging/$(2) --packager $@ --target build/
deb rpm archlinux: generated
	$(call package,$(binary),nfpm.yaml)
	$(call package,$(client),client.yaml)
apk: generated
	$(call package,$(client),client.yaml)

# Takes a quarter of an hour on two CPUs.
dist: SHELL := /bin/bash
dist: clean
	@command -v zip >/dev/null || { echo 'make dist needs zip' >&2; exit 1; }
	set -e; for arch in amd64 arm64 arm 386 riscv64; do $(MAKE) GOARCH=$$arch deb rpm archlinux apk; done
	internal/packaging/archives.sh
	cd build && sha256sum *.{deb,rpm,pkg.tar.zst,apk,tar.gz,zip} >SHA256SUMS

# All of it on Linux, the client's commands elsewhere.
cross: SHELL := /bin/bash
cross:
	set -e; for platform in linux/{386,arm,mips,arm64,riscv64} {darwin,windows,freebsd,openbsd}/{amd64,arm64}; do \
	  echo "$$platform"; GOOS=$${platform%/*} GOARCH=$${platform#*/} CGO_ENABLED=0 go build -o /dev/null ./cmd/knockwall; done

test-packages:
	internal/packaging/test.sh

clean:
	rm -rf build
