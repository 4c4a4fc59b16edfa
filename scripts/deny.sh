#!/bin/sh
# Checks the dependencies by deny.toml: versions, licenses and sources, and known holes where the list of
# them can be fetched.
set -eu

cd "$(dirname "$0")/.."
PATH=$PWD/.hushnet/tools/bin:$PATH

cargo deny --locked check --hide-inclusion-graph bans licenses sources
# The list is a repository on github.com, which a sandbox may not reach.
if fetched=$(cargo deny fetch db 2>&1); then
  cargo deny --locked check --disable-fetch advisories
else
  printf '%s\n' "$fetched" | tail -n 1 >&2
  echo 'deny: the list of known holes cannot be fetched: it is NOT checked' >&2
fi
