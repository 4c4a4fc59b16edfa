#!/bin/sh
# Breaks the service on purpose, one way after another, and requires that the test which each way names
# fails.
#
#   sh scripts/mutations.sh                all of them
#   sh scripts/mutations.sh recv           one
#
# Each mutation is a patch in tests/mutations, with a head that says what is broken and:
#
#   cargo: which test program (--lib, --test NAME)
#   test:  the one test in it that must fail
#   shows: a regular expression that its output must match; may be left out
#
# The patches are applied to a copy under target/, one at a time, and taken back. The copy has one build
# directory of its own, so that no broken program gets among whole ones; MUTATIONS_TARGET_DIR names another.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
work=$root/target/mutations
copy=$work/copy
build=${MUTATIONS_TARGET_DIR:-$work/build}
patches=$root/tests/mutations
# A rare loss must be given the time to happen, and a test that waits in vain is not to wait for minutes.
CHAOS_SECONDS=${CHAOS_SECONDS:-90}
TEST_DEADLINE_SECONDS=${TEST_DEADLINE_SECONDS:-60}
export CHAOS_SECONDS TEST_DEADLINE_SECONDS

say() { printf '%s\n' "mutations: $*" >&2; }
field() { sed -n "/^diff /q; s/^$1: *//p" "$patches/$2.patch"; }
# Outside of any repository, git apply takes the paths as they are.
patch() { (cd "$copy" && GIT_CEILING_DIRECTORIES=$work git apply "$@"); }

make_copy() {
  rm -rf "$copy"
  mkdir -p "$copy" "$build/debug"
  git ls-files -z -co --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$copy"
  # The dependencies are built already, if the tests were: links to them spare minutes. Cargo only reads
  # them, since the crates of the copy, at another path, have files of other names.
  for part in deps .fingerprint build; do
    [ ! -d "target/debug/$part" ] || [ -d "$build/debug/$part" ] ||
      cp -al "target/debug/$part" "$build/debug/$part"
  done
}

# Whether the named test failed, and for its reason: the harness lists it among its failures.
is_noticed() {
  grep -Fqx "    $test" "$output" && grep -Eq -- "$shows" "$output"
}

try() {
  mutation=$1
  [ -f "$patches/$mutation.patch" ] || { say "there is no mutation $mutation"; exit 2; }
  cargo=$(field cargo "$mutation")
  test=$(field test "$mutation")
  shows=$(field shows "$mutation")
  output=$work/$mutation.txt
  if [ -z "$cargo" ] || [ -z "$test" ]; then
    say "$mutation.patch does not name its test: a line 'cargo: ...' and a line 'test: ...'"
    return 1
  fi
  begun=$(date +%s)
  if ! patch -C1 "$patches/$mutation.patch" 2>"$output"; then
    say "$mutation.patch no longer applies; make it anew:"
    cat "$output" >&2
    return 1
  fi
  # shellcheck disable=SC2086 # several arguments
  if ! (cd "$copy" && CARGO_TARGET_DIR=$build cargo test --workspace --locked $cargo --no-run) >"$output" 2>&1; then
    say "$mutation does not compile; see $output"
    verdict=1
  # shellcheck disable=SC2086
  elif (cd "$copy" && CARGO_TARGET_DIR=$build \
    cargo test --workspace --locked $cargo -- --exact "$test" --nocapture) >"$output" 2>&1; then
    if grep -q '^running 1 test' "$output"; then
      say "$mutation was NOT noticed by $test"
    else
      say "$mutation names a test that is not there: $test"
    fi
    verdict=1
  elif is_noticed; then
    say "$mutation was noticed by $test ($(($(date +%s) - begun)) s)"
    [ -z "$shows" ] || grep -Em 1 -- "$shows" "$output" >&2
    verdict=0
  else
    say "$mutation made $test fail for another reason than '${shows:-its own}'; see $output"
    verdict=1
  fi
  # Back again, and newer than what was built, so that cargo notices.
  patch -R -C1 "$patches/$mutation.patch" || { say "$mutation.patch cannot be taken back"; exit 1; }
  return $verdict
}

make_copy
[ $# -gt 0 ] || set -- $(cd "$patches" && ls ./*.patch | sed 's|^\./||; s|\.patch$||')
escaped=0
for mutation; do
  try "$mutation" || escaped=$((escaped + 1))
done
say "$(($# - escaped)) of $# mutations were noticed"
[ "$escaped" = 0 ]
