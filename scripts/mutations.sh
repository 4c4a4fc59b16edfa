#!/bin/sh
# Breaks the service on purpose, one way after another, and requires that the checker reports the loss.
# Each mutation is a patch of src/ in tests/chaos/mutations, tried on a copy under target/.
#
#   sh scripts/mutations.sh                all of them
#   sh scripts/mutations.sh recv           one
#
# A build directory of their own keeps broken programs away from whole ones;
# MUTATIONS_TARGET_DIR names another.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
copy=$root/target/mutations/copy
build=${MUTATIONS_TARGET_DIR:-$root/target/mutations/build}
# A chance that is small must come often enough.
CHAOS_SECONDS=${CHAOS_SECONDS:-90}
export CHAOS_SECONDS

say() { printf '%s\n' "mutations: $*" >&2; }

# The scenario that has to notice.
scenario() {
  case $1 in
    id_cursor) echo storms::clients_come_back_to_the_log ;;
    subscribe_after_read) echo storms::replays_are_long ;;
    recv) echo faults::the_listener_s_backend_is_terminated_every_second ;;
    *) say "no mutation $1"; exit 1 ;;
  esac
}

escaped=0
[ $# -gt 0 ] || set -- id_cursor recv subscribe_after_read
for mutation; do
  name=$(scenario "$mutation")
  rm -rf "$copy"
  mkdir -p "$copy"
  git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$copy"
  # Outside of any repository, git apply takes the paths as they are.
  (cd "$copy" && GIT_CEILING_DIRECTORIES=$root/target/mutations git apply -C1 \
    "tests/chaos/mutations/$mutation.patch")
  (cd "$copy" && CARGO_TARGET_DIR=$build cargo test --quiet --locked --test chaos --no-run)
  output=$root/target/mutations/$mutation.txt
  if (cd "$copy" && CARGO_TARGET_DIR=$build \
    cargo test --quiet --locked --test chaos -- --exact "$name" --nocapture) >"$output" 2>&1; then
    say "$mutation was NOT noticed by $name"
    escaped=1
  elif report=$(grep -m 1 -E '; lost [1-9]' "$output"); then
    say "$mutation was noticed by $name:"
    printf '%s\n' "$report"
  else
    say "$mutation made $name fail, but without a loss; see $output"
    escaped=1
  fi
done
exit $escaped
