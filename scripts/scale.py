#!/usr/bin/env python3
"""How many nodes, how much of a bus and how much of a database a load takes, from the unit costs of docs/scale.md.

Prints the table of docs/scale.md, or one load with --connections and --commits. CPU is in cores of the machine that the unit
costs were measured on.
"""
import argparse
import math
import pathlib
import sys

# CPU in microseconds, sizes in bytes.
COSTS = {
    "delivery": (12.0, "a node writes an event to one of many connections"),
    "delivery_few": (5.7, "the same, where they are a thousand"),
    "event": (0.75, "a node has an event that concerns nobody of its"),
    "wake": (60.0, "a node receives a message of the bus, or the leader a commit"),
    "idle": (2.5, "a node has a connection open for a second"),
    "publish": (1.2, "the leader publishes an event"),
    "redis": (26.0, "Redis sends a message to a node"),
    "nats": (52.0, "NATS sends a message to a node"),
    "commit": (170.0, "PostgreSQL commits an event in `tail` or `wal`, as fast as it can"),
    "connection_bytes": (2_400, "a connection's memory in a node"),
    "kernel_bytes": (5_000, "a connection's memory in its kernel"),
    "event_bytes": (190, "an event on the bus"),
}
# A busy node finds more events in a message, and more messages at a time: it wakes so often a second at most.
WAKES_MAX = 5_000
# What the table assumes.
NODE_CORES = 4
NODE_BUSY_MAX = 0.5  # of its cores: the rest is for clients that come back at once
NODE_CONNECTIONS_MAX = 250_000
CONNECTIONS = (100_000, 1_000_000, 10_000_000)
COMMITS = (1_000, 10_000, 50_000)


def cost(name):
    return COSTS[name][0]


def seconds(rate, *names):
    """Cores that so many a second take."""
    return rate * sum(map(cost, names)) / 1e6


def wakes(events):
    """Messages of the bus in a second."""
    return min(events, WAKES_MAX)


def load(connections, commits, bus, delivered=1.0):
    """A load's figures. `delivered` is how many connections an event goes to."""
    received = seconds(commits, "event") + seconds(wakes(commits), "wake")
    own = seconds(connections, "idle") + seconds(commits * delivered, "delivery")
    by_cpu = own / max(NODE_CORES * NODE_BUSY_MAX - received, 0.01)
    nodes = max(2, math.ceil(by_cpu), math.ceil(connections / NODE_CONNECTIONS_MAX))
    return {
        "nodes": nodes,
        "cores of a node": received + own / nodes,
        "the leader's more": seconds(commits, "publish"),
        "GB of a node": connections / nodes * (cost("connection_bytes") + cost("kernel_bytes")) / 1e9,
        f"cores of {bus}": seconds(wakes(commits) * nodes, bus),
        "MB/s from it": commits * cost("event_bytes") * nodes / 1e6,
        "PostgreSQL's cores": seconds(commits, "commit"),
    }


def point(bus, connections, events):
    """Cores of the leader, of one follower that has all connections, and of the broker, at so many events a second."""
    received = seconds(wakes(events), "wake")
    own = seconds(connections, "idle") + seconds(events, "delivery" if connections > 2_000 else "delivery_few")
    return received + seconds(events, "publish"), received + own, seconds(wakes(events), bus)


def shown(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def lines(loads):
    """The table of these loads: (connections, commits a second, what `load` says)."""
    names = list(loads[0][2])
    rows = ["| connections | commits/s | " + " | ".join(names) + " |", "|---:|---:|" + "---:|" * len(names)]
    for connections, commits, figures in loads:
        cells = " | ".join(f"{figures[name]:,.0f}" if name == "nodes" else shown(figures[name]) for name in names)
        rows.append(f"| {connections:,} | {commits:,} | {cells} |")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, help="of all nodes")
    parser.add_argument("--commits", type=int, help="a second, of one event each")
    parser.add_argument("--delivered", type=float, default=1.0, help="connections that an event goes to (%(default)s)")
    parser.add_argument("--bus", choices=("redis", "nats"), default="redis", help="(%(default)s)")
    parser.add_argument("--check", type=pathlib.Path, metavar="FILE", help="whether the file has the table")
    options = parser.parse_args()
    if (options.connections is None) != (options.commits is None):
        parser.error("--connections and --commits go together")
    if options.connections is not None and min(options.connections, options.commits, options.delivered) <= 0:
        parser.error("all numbers are greater than 0")
    table = [(connections, commits) for connections in CONNECTIONS for commits in COMMITS]
    if options.connections:
        table = [(options.connections, options.commits)]
    rows = lines([(*of, load(*of, options.bus, options.delivered)) for of in table])
    if options.check:
        text = options.check.read_text(encoding="utf-8")
        costs = [f"| {says} | {figure:g} |" for figure, says in COSTS.values()]
        missing = [row for row in rows + costs if row not in text]
        if missing:
            sys.exit("\n".join([f"scale: {options.check} lacks:", *missing]))
        return
    print("\n".join(rows))


if __name__ == "__main__":
    main()
