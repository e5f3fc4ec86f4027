#!/bin/sh
# generate.sh HOST BINARY CLIENT SHARE: writes to build/ the files of the packages that are not in
# this repository: manual pages, completions, changelogs and licenses. HOST is the program for
# this machine, the others are the programs in the packages. nfpm sets times and modes.
set -eu
umask 022
host=$1 binary=$2 client=$3 share=$4

# Go takes the version from git.
version=$(go version -m "$binary" | awk '$1 == "mod" { print substr($3, 2) }')
case $version in
[0-9]*) ;;
*) echo "$binary has no version from git: build it in a clone" >&2; exit 1 ;;
esac
internal/packaging/version.sh deb "$version" >build/version
for format in apk archlinux; do
  internal/packaging/version.sh $format "$version" >build/$format.version
done

rm -rf build/man build/completions
mkdir -p build/man build/completions
CGO_ENABLED=0 go build -trimpath -buildvcs=true -tags man -o build/manual ./cmd/knockwall
build/manual man build/man docs/*.[58].md
rm build/manual
gzip -9n build/man/*

# The texts, with links to what the packages have, else to the repository.
rm -rf build/doc
mkdir -p build/doc/docs
cp README.md SECURITY.md CHANGELOG.md build/doc
cp docs/*.md internal/control/API.md build/doc/docs
web=https://github.com/knockwall/knockwall/blob/main
sed -i -E "s#\\]\\((\\.\\./)?internal/control/API\\.md#](docs/API.md#g
  s#\\]\\((\\.\\./)?((ARCHITECTURE|CONTRIBUTING)\\.md|(cmd|integration|internal|nflog|nfqueue|ruleset|sequence|systemd)[/)])#]($web/\\2#g" build/doc/*.md build/doc/docs/*.md
sed -i 's#](docs/API\.md#](API.md#g' build/doc/docs/*.md
for shell in bash zsh fish; do
  "$host" completion $shell >build/completions/$shell
done

changelog() { # PACKAGE
  printf '%s (%s) stable; urgency=medium\n\n' "$1" "$(cat build/version)"
  printf '  * As of commit %s.\n\n' "$(git rev-parse --short=12 HEAD)"
  printf ' -- knockwall maintainers <knockwall@users.noreply.github.com>  %s\n' "$(date -Rd "@$SOURCE_DATE_EPOCH")"
}
changelog knockwall | gzip -9n >build/changelog.gz
changelog knockwall-client | gzip -9n >build/client-changelog.gz

internal/packaging/licenses.sh build/licenses "$binary" "$share"
internal/packaging/licenses.sh build/client-licenses "$client"
