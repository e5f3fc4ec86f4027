#!/bin/sh
# licenses.sh FOLDER BINARY…: writes the licences of Go and of all modules that are linked into
# the programs to FOLDER.
set -eu
umask 022
folder=$1
shift
copy() { # MODULE SOURCE
  mkdir -p "$folder/$1"
  find "$2" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents*' \) \
    -exec install -m 644 -t "$folder/$1" {} +
  [ -n "$(ls "$folder/$1")" ] || { echo "$1 has no licence" >&2; exit 1; }
}
rm -rf "$folder"
copy go "$(go env GOROOT)"
modules=$(go version -m "$@" | awk '$1 == "dep" { print $2 }' | sort -u)
# shellcheck disable=SC2086 # one argument for each module
go list -m -f '{{.Path}} {{.Dir}}' $modules | while read -r module source; do
  copy "$module" "$source"
done
find "$folder" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
