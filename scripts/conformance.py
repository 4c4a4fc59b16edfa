#!/usr/bin/env python3
"""Holds the service's handshake and socket against the Autobahn test suite's cases (RFC 6455).

    python3 scripts/conformance.py target/release/examples/echo

Starts the echo server on a free port, runs every case but those of extensions that are not offered (12
and 13: permessage-deflate), and compares each outcome with tests/conformance/summary.json; --write makes
that file anew. Ends with 1 if a case fails or has another outcome than before.
"""
import argparse
import asyncio
import json
import pathlib
import subprocess
import sys

import kosoku

SUMMARY = pathlib.Path(__file__).resolve().parent.parent / "tests/conformance/summary.json"
NOT_OFFERED = ["12.*", "13.*"]


async def outcomes(address):
    """The outcome of each case, as {id: "of the messages, of the close"}; ends if one fails."""
    try:
        results = await kosoku.run_fuzzingclient(address, None, NOT_OFFERED, concurrency=2)
    except kosoku.FailureError as failure:
        for result in failure.results:
            print(f"{result.case_id}: {result.result}; {result.result_close}", file=sys.stderr)
        sys.exit("some cases have failed")
    in_order = sorted(results, key=lambda r: [int(part) for part in r.case_id.split(".")])
    name = lambda behavior: str(behavior).rsplit(".", 1)[-1]
    return {r.case_id: f"{name(r.behavior)}, {name(r.behavior_close)}" for r in in_order}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the echo server's program")
    parser.add_argument("--write", action="store_true", help="keep the outcomes")
    options = parser.parse_args()
    with subprocess.Popen([options.server], stdout=subprocess.PIPE, text=True) as server:
        try:
            found = asyncio.run(outcomes(server.stdout.readline().strip()))
        finally:
            server.terminate()
    if options.write:
        SUMMARY.write_text(json.dumps(found, indent=1) + "\n")
    kept = json.loads(SUMMARY.read_text())
    changed = {case for case in kept.keys() | found.keys() if kept.get(case) != found.get(case)}
    for case in sorted(changed):
        print(f"{case}: was {kept.get(case)}, is {found.get(case)}", file=sys.stderr)
    print(f"{len(found)} cases: all pass, {len(changed)} with another outcome than before")
    sys.exit(1 if changed else 0)


main()
