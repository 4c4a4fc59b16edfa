#!/bin/sh
# Builds the program of the release before from the history of this checkout, and prints its path.
#
#   sh scripts/release-before.sh COMMIT
#
# Takes the build's directory of this checkout, so that the crates that both depend on are built once. Ends with 3 where
# the commit is not in this checkout's history.
set -eu

commit=$1
cd "$(dirname "$0")/.."
program=$PWD/.hushnet/before/$commit/hushnet-realtime
if [ ! -x "$program" ]; then
  if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    echo "release-before: $commit is not here; \`git fetch --unshallow\` brings it" >&2
    exit 3
  fi
  target=${CARGO_TARGET_DIR:-$PWD/target}
  source=$PWD/.hushnet/before/source
  rm -rf "$source"
  mkdir -p "$source" "$(dirname "$program")"
  git archive "$commit" | tar -x -C "$source"
  (cd "$source" && CARGO_TARGET_DIR=$target cargo build --workspace --locked --bin hushnet-realtime) >&2
  cp "$target/debug/hushnet-realtime" "$program"
  rm -rf "$source"
  # The program of this checkout takes its place again.
  cargo build --workspace --locked --bin hushnet-realtime >&2
fi
echo "$program"
