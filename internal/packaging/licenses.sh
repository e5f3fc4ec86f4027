#!/bin/sh
# licenses.sh BINARY FOLDER: writes the licences of Go and of all modules that are linked into
# BINARY to FOLDER.
set -eu
umask 022
binary=$1 folder=$2
copy() { # MODULE SOURCE
  mkdir -p "$folder/$1"
  find "$2" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents*' \) \
    -exec install -m 644 -t "$folder/$1" {} +
  [ -n "$(ls "$folder/$1")" ] || { echo "$1 has no licence" >&2; exit 1; }
}
rm -rf "$folder"
copy go "$(go env GOROOT)"
modules=$(go version -m "$binary" | awk '$1 == "dep" { print $2 }')
# shellcheck disable=SC2086 # one argument for each module
go list -m -f '{{.Path}} {{.Dir}}' $modules | while read -r module source; do
  copy "$module" "$source"
done
find "$folder" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
