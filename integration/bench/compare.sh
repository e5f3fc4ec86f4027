#!/usr/bin/env bash
# Measures knockwall on this machine in a quick run, and compares the figures with the table
# in integration/bench/baseline.md: allocations, ratios to other systems, and how many
# clients are let in. It does not compare times, as machines differ.
#
#   compare.sh            print each figure then and now; exit with 1 if one is worse
#   compare.sh --update   write the table again, for the present commit
#
# Needs the same programs as integration/bench. Exits with 2 if it could not compare.
set -euo pipefail
trap 'exit 2' ERR

cd "$(dirname "$0")/../.."
table=integration/bench/baseline.md
update=()
case "$*" in
'')
  if [ ! -r "$table" ]; then
    echo "compare.sh: cannot read $table: create it with --update" >&2
    exit 2
  fi
  ;;
--update)
  # The table names the measured commit, so there must be no other changes.
  changes=$(git status --porcelain -- . ":!$table")
  if [ -n "$changes" ]; then
    echo "compare.sh: there are uncommitted changes: commit them, then measure" >&2
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
# The number of allocations does not depend on the length of the run.
go test -run '^$' -bench . -benchmem -benchtime 100ms -cpu 1 \
  ./sequence ./internal/packet ./internal/otp ./nflog ./nfqueue >"$work/benchmarks" || {
  cat "$work/benchmarks" >&2
  exit 2
}
go run ./integration/bench --quick --json "$work/report.json" >/dev/null

trap - ERR
"$work/compare" --table "$table" --benchmarks "$work/benchmarks" --report "$work/report.json" "${update[@]}"
