#!/usr/bin/env bash
# Measures knockwall on this machine, in a quick run, and compares with the table in
# the repository, integration/bench/baseline.md: allocations, ratios to other systems,
# and how many clients are let in. Times are not compared: machines differ.
#
#   compare.sh            tell each figure then and now; exit with 1 if one is worse
#   compare.sh --update   write the table anew, with the present commit
#
# Needs what integration/bench needs. Exits with 2 if it could not compare.
set -euo pipefail
trap 'exit 2' ERR

cd "$(dirname "$0")/../.."
table=integration/bench/baseline.md
update=()
case "$*" in
'')
  if [ ! -r "$table" ]; then
    echo "compare.sh: there is no $table that can be read; --update writes it" >&2
    exit 2
  fi
  ;;
--update)
  # The table names the commit that it was measured on, so there has to be one.
  changes=$(git status --porcelain -- . ":!$table")
  if [ -n "$changes" ]; then
    echo "compare.sh: there are changes that are not committed; commit them, and then measure" >&2
    exit 2
  fi
  commit=$(git rev-parse --short HEAD)
  update=(--update "$commit")
  ;;
*)
  echo 'usage: integration/bench/compare.sh [--update]' >&2
  exit 2
  ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -o "$work/compare" ./integration/bench/compare
# The number of allocations does not depend on how long they are counted.
go test -run '^$' -bench . -benchmem -benchtime 100ms -cpu 1 \
  ./sequence ./internal/packet ./internal/otp ./nflog ./nfqueue >"$work/benchmarks" || {
  cat "$work/benchmarks" >&2
  exit 2
}
go run ./integration/bench --quick --json "$work/report.json" >/dev/null

trap - ERR
"$work/compare" --table "$table" --benchmarks "$work/benchmarks" --report "$work/report.json" "${update[@]}"
