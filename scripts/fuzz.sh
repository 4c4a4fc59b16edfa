#!/bin/sh
# Fuzzes each target for some seconds. Ends with 1 at the first crash; its input is then in the artifacts/
# of the target's fuzz directory.
#
#   sh scripts/fuzz.sh 300                       as `make fuzz` does: with the address sanitizer
#   sh scripts/fuzz.sh 3 --dev --sanitizer=none  as `make fuzz-smoke` does: quick to build
#
# TARGETS="cursor token" fuzzes only these. New inputs go to target/corpus in the target's fuzz directory;
# the corpus beside it is only read. MINIMIZE=1 adds to it the inputs that add coverage.
set -eu
seconds=$1
shift
cd "$(dirname "$0")/.."
root=$PWD
PATH=$root/.hushnet/tools/bin:$PATH
# One for all, so that what they share is built once.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/fuzz/target}"
fuzz() { command=$1; shift; cargo +nightly fuzz "$command" --fuzz-dir . "$@"; }

# The targets here that TARGETS names.
chosen() {
  for target in $(fuzz list); do
    case " ${TARGETS:-$target} " in *" $target "*) echo "$target" ;; esac
  done
}

for directory in crates/websocket/fuzz fuzz; do
  cd "$root/$directory"
  targets=$(chosen)
  [ -n "$targets" ] || continue
  fuzz build "$@"
  for target in $targets; do
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
done
