#!/usr/bin/env python3
"""Measures many nodes of one database, with a private PostgreSQL and private brokers. Needs Linux.

--part postgresql  The CPU of all of PostgreSQL's processes for an event, with 1, 2, 4 and 8 nodes, without a bus and over
                   each bus. pgbench commits one message a transaction, to a random one of 1,000 users, at a rate; each
                   user has a client on one of the nodes. Rounds go through everything in turn; ratios are to one node
                   over the same bus in the same round. The writers' own CPU is in all figures.
--part cost        The CPU of an event for a user who is not connected, injected into the leader: the leader's, a follower's
                   that holds its shard and has no such user, a follower's that holds no shard, and the broker's.
--part delivery    The CPU of a delivery at a follower and at a node without a bus, its latency from COMMIT at both, and how
                   much later than at the leader an event comes to a client of a follower.
--part scale       What docs/scale.md foretells for two loads, beside what is measured.
--part failover    From the leader's kill (SIGKILL) and from its freeze (SIGSTOP) to another leader, and to where every
                   other node follows it again; and the longest wait of a client of another node for the next of the
                   events that are committed every 20 ms.
"""
import argparse
import base64
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import sys
import subprocess
import threading
import time

from bench_followers import measure_cost, measure_delivery, measure_scale
from bench_nodes import DATABASE, INJECTED, Node, TICKS, broker, settle
from bench_postgresql import APPLICATION, MIGRATIONS, ONE, REPOSITORY, ROWS, USERS, Cluster, find_binaries

FAILOVER_NODES = 3
EVENT_INTERVAL_S = 0.02
FAILOVER_S_MAX = 30
BEFORE_S = 2  # of quiet, before a node is killed


def cluster_cpu_s(cluster):
    """The CPU that PostgreSQL's processes have used, those that have ended included."""
    postmaster = int((cluster.directory / "data/postmaster.pid").read_text().split()[0])
    total = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pid, parent = int(path.parent.name), int(fields[1])
            if postmaster in (pid, parent):
                # Of the postmaster also that of the children it has waited for.
                total += sum(map(int, fields[11:15 if pid == postmaster else 13]))
    return total / TICKS


def postgresql_us(cluster, options, bus, count):
    """CPU for an event, in microseconds, with so many nodes."""
    with contextlib.ExitStack() as stack:
        url, _ = stack.enter_context(broker(bus))
        nodes = [Node(stack, cluster, options, url, number) for number in range(count)]
        share = USERS // count
        for number, node in enumerate(nodes):
            node.connect(1 + number * share, share)
        if bus != "none":
            settle(nodes)
        script = cluster.directory / "one.pgbench"
        script.write_text(ONE)
        before = cluster_cpu_s(cluster)
        output, _ = cluster.run("pgbench", "-n", "-M", "prepared", "-U", "application", "-c", "8", "-R",
                                str(options.rate), "-T", str(options.seconds), "-f", script, DATABASE)
        # The last events are still read.
        time.sleep(0.5)
        used = cluster_cpu_s(cluster) - before
    return used * 1e6 / int(re.search(r"actually processed: (\d+)", output)[1])


def measure_postgresql(cluster, options):
    figures = {bus: {count: [] for count in options.nodes} for bus in options.bus}
    for number in range(options.rounds):
        for bus in options.bus:
            for count in options.nodes:
                us = postgresql_us(cluster, options, bus, count)
                figures[bus][count].append(us)
                print(f"round {number + 1}, {bus}, {count} nodes: {us:.0f} us", file=sys.stderr)
    print(f"\nPostgreSQL's CPU for an event at {options.rate} events/s, in us, and its ratio to {options.nodes[0]} node")
    print(f"{'bus':>6}" + "".join(f"{count:>9} nodes" for count in options.nodes))
    result = {}
    for bus, by_count in figures.items():
        first = by_count[options.nodes[0]]
        cells = {count: (statistics.median(rounds), statistics.median(a / b for a, b in zip(rounds, first)))
                 for count, rounds in by_count.items()}
        print(f"{bus:>6}" + "".join(f"{us:>9.0f}{ratio:>6.2f}" for us, ratio in cells.values()))
        result[bus] = {count: {"us": round(us), "ratio": round(ratio, 3)} for count, (us, ratio) in cells.items()}
    return result


class Listener(threading.Thread):
    """Notes when the first user's events come to a client of a node."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.times = []
        self.socket = socket.create_connection(node.address.split(":"), FAILOVER_S_MAX)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(f"GET /ws?user_id={1:032} HTTP/1.1\r\nHost: {node.address}\r\nUpgrade: websocket\r\n"
                            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                            "\r\n".encode())
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while data := self.socket.recv(65536):
                if b'"message"' in data:
                    self.times.append(time.monotonic())

    def longest_wait(self, since):
        """Seconds between two events, the first of which came when nothing had happened yet."""
        times = [at for at in self.times if at >= since]
        return max((b - a for a, b in zip(times, times[1:])), default=float("nan"))


@contextlib.contextmanager
def committing(cluster):
    """Commits an event of the first user every 20 ms."""
    insert = re.sub(r"\\set .*\n", "", ONE).replace(":sender", "1").replace(":first", "1")
    over = threading.Event()
    with subprocess.Popen([cluster.binaries / "psql", "-qXAt", "-d", DATABASE], stdin=subprocess.PIPE,
                          **cluster.options()) as psql:
        def commit():
            while not over.wait(EVENT_INTERVAL_S):
                psql.stdin.write(" ".join(insert.split()) + "\n")
                psql.stdin.flush()

        thread = threading.Thread(target=commit)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            psql.stdin.close()


def fail_over(cluster, options, bus, number):
    """(to another leader, until the others follow it, the longest wait for an event), in seconds."""
    with contextlib.ExitStack() as stack:
        url, _ = stack.enter_context(broker(bus))
        nodes = [Node(stack, cluster, options, url, n) for n in range(FAILOVER_NODES)]
        leader = settle(nodes)
        others = [node for node in nodes if node is not leader]
        listeners = [Listener(node) for node in others]
        stack.enter_context(committing(cluster))
        time.sleep(BEFORE_S)
        begun = time.monotonic()
        leader.program.send_signal(number)
        elected = None
        while time.monotonic() < begun + FAILOVER_S_MAX:
            states = [(node.leads(), node.follows()) for node in others]
            if elected is None and any(leads for leads, _ in states):
                elected = time.monotonic() - begun
            if elected is not None and sum(follows for _, follows in states) == len(others) - 1:
                followed = time.monotonic() - begun
                time.sleep(1)
                waits = [listener.longest_wait(begun - 1) for listener in listeners]
                return elected, followed, max(waits)
            time.sleep(0.01)
    raise SystemExit("bench-nodes: no other node was elected")


def measure_failover(cluster, options):
    result = {}
    print(f"\nFailover of {FAILOVER_NODES} nodes, in s: median and greatest of {options.failovers}")
    print(f"{'bus':>6}{'leader':>9}{'elected':>14}{'followed':>14}{'longest wait':>14}")
    for bus in options.bus:
        for name, number in (("killed", signal.SIGKILL), ("frozen", signal.SIGSTOP)):
            if bus == "none":
                continue
            times = [fail_over(cluster, options, bus, number) for _ in range(options.failovers)]
            cells = [(statistics.median(column), max(column)) for column in zip(*times)]
            print(f"{bus:>6}{name:>9}" + "".join(f"{median:>8.2f}{most:>6.2f}" for median, most in cells), flush=True)
            result[f"{bus}, {name}"] = [[round(value, 3) for value in cell] for cell in cells]
    return result


PARTS = {"postgresql": measure_postgresql, "failover": measure_failover, "cost": measure_cost,
         "delivery": measure_delivery, "scale": measure_scale}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one alone")
    parser.add_argument("--nodes", default="1,2,4,8", help="(%(default)s)")
    parser.add_argument("--bus", default="none,redis,nats", help="(%(default)s)")
    parser.add_argument("--rate", type=int, default=1000, help="events a second, of commits (%(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--failovers", type=int, default=20, help="of each kind (%(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="that are injected at once (%(default)s)")
    parser.add_argument("--publish-rate", type=int, default=220_000, help="of these, a second (%(default)s)")
    parser.add_argument("--latency-rate", type=int, default=2000, help="events a second (%(default)s)")
    parser.add_argument("--programs", type=pathlib.Path, metavar="DIRECTORY",
                        default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "injector",
                        help="where hushnet-realtime and hushnet-load are (%(default)s)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--smoke", action="store_true", help="some seconds, to see that it runs")
    options = parser.parse_args()
    if options.smoke:
        options.nodes, options.bus, options.seconds, options.rounds, options.failovers = "1,2", "redis,nats", 1, 1, 1
        options.events, options.publish_rate, options.latency_rate, options.rate = 2000, 2000, 200, 200
    try:
        options.nodes = [int(number) for number in options.nodes.split(",")]
    except ValueError:
        parser.error("--nodes wants numbers with commas between")
    options.bus = options.bus.split(",")
    connections = ["--connections", 1000]
    options.idle, options.idle_seconds = (100, 1) if options.smoke else (8000, 50)
    options.points = [(20, 500)] if options.smoke else [(1000, 2000), (6000, 15_000)]
    options.fanouts = [[*connections, "--window", 256, "--events", options.events // 5],
                       [*connections, "--rate", options.rate, "--events", options.rate * options.seconds]]
    options.latency = [*connections, "--rate", options.latency_rate, "--seconds", options.seconds]
    options.commits = [*connections, "--rate", options.rate, "--seconds", options.seconds]
    cores = sorted(os.sched_getaffinity(0))
    options.core = cores[0] if len(cores) > 1 else None
    options.programs = options.programs.resolve()
    if not set(options.bus) <= {"none", "redis", "nats"}:
        parser.error("--bus knows none, redis and nats")
    if min(options.seconds, options.rounds, options.failovers, options.rate, *options.nodes) < 1 or max(options.nodes) > 10:
        parser.error("all numbers are at least 1, --nodes at most 10")
    return options


@contextlib.contextmanager
def pinned(core):
    """What is started meanwhile leaves this core to the measured node."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = {}
    with contextlib.ExitStack() as cleanup:
        cluster = Cluster(find_binaries(), "disk", None, 0, "replica")
        cleanup.callback(cluster.stop)
        cluster.start()
        cluster.sql("postgres", "CREATE ROLE application LOGIN")
        texts = [APPLICATION / "schema.sql", APPLICATION / "triggers.sql", *MIGRATIONS]
        texts = [path.read_text() for path in texts]
        for database in (DATABASE, INJECTED):
            cluster.run("createdb", database)
            cluster.sql(database, *texts[:2], "CREATE SCHEMA realtime;", *texts[2:], "SELECT realtime.repair_triggers();", ROWS,
                        "INSERT INTO public.chats (id, chat_type) VALUES (lpad('1', 32, '0')::uuid, 'group');")
        for name, measure in PARTS.items():
            if options.part in (None, name):
                with pinned(options.core if name == "cost" else None):
                    report[name] = measure(cluster, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
