#!/bin/sh
# Fuzzes each target for so many seconds; ends with 1 at the first crash, whose input is then in fuzz/artifacts.
#
#   sh scripts/fuzz.sh 300                       as `make fuzz` does: with the address sanitizer
#   sh scripts/fuzz.sh 3 --dev --sanitizer=none  as `make fuzz-smoke` does: quick to build
#
# TARGETS="cursor token" fuzzes only these. What is new goes to fuzz/target/corpus; fuzz/corpus is read, not written. MINIMIZE=1 puts what adds to
# the coverage into fuzz/corpus.
set -eu
seconds=$1
shift
cd "$(dirname "$0")/../fuzz"
PATH=$PWD/../.hushnet/tools/bin:$PATH
fuzz() { command=$1; shift; cargo +nightly fuzz "$command" --fuzz-dir . "$@"; }

fuzz build "$@"
for target in ${TARGETS:-$(cargo +nightly fuzz list --fuzz-dir .)}; do
  mkdir -p "target/corpus/$target"
  printf '%s for %s s: ' "$target" "$seconds"
  log=target/$target.log
  fuzz run "$@" "$target" "target/corpus/$target" "corpus/$target" -- \
    -max_total_time="$seconds" >"$log" 2>&1 || { cat "$log"; exit 1; }
  sed -n 's/^Done //p' "$log"
  if [ "${MINIMIZE:-}" = 1 ]; then
    fuzz run "$@" "$target" "corpus/$target" "target/corpus/$target" -- -merge=1 >"$log" 2>&1
  fi
done
