#!/usr/bin/env bash
# archives.sh: makes archives in build/ of what needs no package manager: the client for macOS,
# FreeBSD and Windows, and the program for routers with OpenWrt. Run it by `make dist`, after
# the packages. Needs zip.
set -euo pipefail
umask 022
version=$(cat build/version)

archive() { # NAME GOOS GOARCH TAGS
  local name=knockwall$1_${version}_$2_$3 suffix='' folder
  folder=build/archive/$name
  [ "$2" != windows ] || suffix=.exe
  rm -rf "$folder"
  mkdir -p "$folder"
  # armv7 has a floating-point unit, and many routers with mips have none.
  CGO_ENABLED=0 GOOS=$2 GOARCH=$3 GOARM=7 GOMIPS=softfloat \
    go build -trimpath -buildvcs=true -ldflags='-s -w' -tags "$4" -o "$folder/knockwall$suffix" ./cmd/knockwall
  internal/packaging/licenses.sh "$folder/licenses" "$folder/knockwall$suffix"
  install -m 644 LICENSE "$folder/"
  if [ "$2" != windows ]; then
    mkdir "$folder/man" "$folder/completions"
    install -m 644 build/man/*.1.gz "$folder/man/"
    if [ -z "$1" ]; then # it runs the daemon, too
      install -m 644 build/man/*.[58].gz "$folder/man/"
      mkdir "$folder/examples"
      install -m 644 examples/*.hcl "$folder/examples/"
    fi
    install -m 644 build/completions/* "$folder/completions/"
  fi
  find "$folder" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
  if [ "$2" = windows ]; then
    rm -f "build/$name.zip"
    (cd build/archive && find "$name" | LC_ALL=C sort | TZ=UTC zip -qX -@ "../$name.zip")
  else
    tar -C build/archive --sort=name --owner=0 --group=0 --numeric-owner --format=ustar -cf - "$name" | gzip -9n >"build/$name.tar.gz"
  fi
  rm -rf "$folder"
}

for arch in amd64 arm64; do
  for os in darwin freebsd windows; do
    archive -client "$os" "$arch" client
  done
done
for arch in arm mipsle; do
  archive '' linux "$arch" ''
done
rmdir build/archive
