#!/usr/bin/env python3
"""Prints the table of docs/benchmarks.md "Routing in the process": medians of what criterion measured last."""

import json
import pathlib
import sys

CRITERION = pathlib.Path(__file__).resolve().parent.parent / "target" / "criterion"
LINES = [
    ("others", "events for 100 of {} connected users"),
    ("absent", "event for a user who is not connected, {} others are"),
    ("devices", "event for one user, devices: {}"),
    ("churn", "connect and disconnect, {} others connected"),
]


def median_ns(bench):
    estimates = CRITERION / bench / "new" / "estimates.json"
    try:
        return json.loads(estimates.read_text())["median"]["point_estimate"]
    except FileNotFoundError:
        sys.exit(f"{estimates} is missing: run cargo bench first")


def parameters(group):
    found = (CRITERION / group).glob("*/new/estimates.json")
    return sorted(int(path.parts[-3]) for path in found if path.parts[-3].isdigit())


def time(ns):
    for unit, scale in (("ms", 1e6), ("µs", 1e3), ("ns", 1)):
        if ns >= scale:
            return f"{float(f'{ns / scale:.3g}'):,g} {unit}"
    return f"{ns:.2g} ns"


def main():
    print("| users | hub | predecessor | ratio |")
    print("|---:|---:|---:|---:|")
    for users in parameters("route/hub"):
        hub = median_ns(f"route/hub/{users}")
        predecessor = median_ns(f"route/predecessor/{users}")
        ratio = float(f"{predecessor / hub:.2g}")
        print(f"| {users:,} | {time(hub)} | {time(predecessor)} | {ratio:,.0f} |")
    print()
    for group, text in LINES:
        for parameter in parameters(group):
            ns = median_ns(f"{group}/{parameter}")
            print(f"- {text.format(f'{parameter:,}')}: {time(ns)}")
    print(f"- parsing one notification: {time(median_ns('parse'))}")


main()
