#!/bin/sh
# generate.sh HOST BINARY: writes to build/ the files of the packages that are not in this
# repository: manual pages, completions, changelog and licenses. HOST is the program for
# this machine, BINARY the program in the package. nfpm sets times and modes.
set -eu
umask 022
host=$1 binary=$2

# Go takes the version from git. Convert it so that pre-releases sort before their release
# and later commits sort after it: v1.2.4-0.DATE-COMMIT becomes 1.2.4~0.DATE.COMMIT.
version=$(go version -m "$binary" | awk '$1 == "mod" { print substr($3, 2) }')
case $version in
[0-9]*) ;;
*) echo "$binary has no version from git: build it in a clone" >&2; exit 1 ;;
esac
echo "$version" | sed 's/-/~/; s/-/./g' >build/version

rm -rf build/man build/completions build/licenses
mkdir -p build/man build/completions build/licenses
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

{
  printf 'knockwall (%s) stable; urgency=medium\n\n' "$(cat build/version)"
  printf '  * As of commit %s.\n\n' "$(git rev-parse --short=12 HEAD)"
  printf ' -- knockwall authors <knockwall@example.org>  %s\n' "$(date -Rd "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >build/changelog.gz

# The licences of all linked modules.
copy() { # MODULE FOLDER
  mkdir -p "build/licenses/$1"
  find "$2" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents*' \) \
    -exec install -m 644 -t "build/licenses/$1" {} +
  [ -n "$(ls "build/licenses/$1")" ] || { echo "$1 has no licence" >&2; exit 1; }
}
copy go "$(go env GOROOT)"
modules=$(go version -m "$binary" | awk '$1 == "dep" { print $2 }')
# shellcheck disable=SC2086 # one argument for each module
go list -m -f '{{.Path}} {{.Dir}}' $modules | while read -r module folder; do
  copy "$module" "$folder"
done
find build/licenses -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
