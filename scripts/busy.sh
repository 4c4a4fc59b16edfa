#!/bin/sh
# Runs a command beside two busy loops for each core, and ends with the command's exit status.
#
#   sh scripts/busy.sh make test
set -eu

[ $# -gt 0 ] || { echo "busy: no command" >&2; exit 2; }

# A loop ends by itself when this script is gone, even if it was killed with SIGKILL.
busy() {
  while kill -0 $$ 2>/dev/null; do
    count=0
    while [ $count -lt 10000 ]; do count=$((count + 1)); done
  done
}

started=
stop() {
  # shellcheck disable=SC2086 # a list
  [ -z "$started" ] || kill $started 2>/dev/null || :
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

number=$((2 * $(nproc)))
echo "busy: $number loops on $(nproc) cores beside: $*" >&2
while [ "$number" -gt 0 ]; do
  busy &
  started="$started $!"
  number=$((number - 1))
done
# In the background: the shell would run a trap only after the command's end.
"$@" </dev/null &
command=$!
started="$started $command"
status=0
wait "$command" || status=$?
exit "$status"
