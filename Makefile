# The same commit, built with the same Go, becomes the same bytes anywhere.

host   := $(shell go env GOHOSTARCH)
GOARCH := $(or $(GOARCH),$(host))
binary := build/$(GOARCH)/knockwall

# What Go runs here is for this machine, whatever the packages are for.
unexport GOARCH GOFLAGS GOAMD64 GOARM GOARM64 GOEXPERIMENT
export LC_ALL := C
export TZ := UTC
export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct)

.PHONY: help build deb rpm cross test-packages clean generated always
help:
	@echo 'make build           the program, static:             $(binary)'
	@echo 'make deb             a package for Debian and Ubuntu: build/*.deb'
	@echo 'make rpm             a package for Fedora and others: build/*.rpm'
	@echo 'make cross           build it for every system that it is for: nothing is kept'
	@echo 'make test-packages   build them twice, and look at them'
	@echo 'make clean           remove build/'
	@echo
	@echo 'GOARCH=arm64 after one of the first three is for another architecture.'

build: $(binary)

# Always: Go knows better what has changed. Panics name their lines without
# symbols, too.
build/%/knockwall: always
	CGO_ENABLED=0 GOARCH=$* go build -trimpath -buildvcs=true -ldflags='-s -w' -o $@ ./cmd/knockwall

generated: $(binary) build/$(host)/knockwall
	internal/packaging/generate.sh build/$(host)/knockwall $(binary)

deb rpm: generated
	VERSION=$$(cat build/version) ARCH=$(GOARCH:arm=arm7) BINARY=$(binary) \
	  go tool -modfile=internal/tools/go.mod nfpm package --config internal/packaging/nfpm.yaml --packager $@ --target build/

# All of it on Linux, the client's commands elsewhere.
cross: SHELL := /bin/bash
cross:
	set -e; for platform in linux/{386,arm,mips,arm64,riscv64} {darwin,windows,freebsd,openbsd}/{amd64,arm64}; do \
	  echo "$$platform"; GOOS=$${platform%/*} GOARCH=$${platform#*/} CGO_ENABLED=0 go build -o /dev/null ./cmd/knockwall; done

test-packages:
	internal/packaging/test.sh

clean:
	rm -rf build
