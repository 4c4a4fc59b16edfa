"""What nodes cost and how long they take, with events that are injected into the leader."""
import contextlib
import json
import statistics
import subprocess
import sys
import time

import scale
from bench_nodes import INJECTED, Node, broker, cpu_s, has, settle
from bench_postgresql import wait_for

CONNECTIONS = 1000
LOAD_S_MAX = 300
ATTEMPTS_MAX = 10
IDLE_S = 5
SHARDS = 64
TROUBLES = ("lost", "duplicated", "wrong_user")


def load(node, measured, *arguments):
    """hushnet-load's report, with the CPU of the measured node in it. An injected event is not in the log: where a node had to
    read that meanwhile, since another program held up the machine, it is measured again.
    """
    command = [node.load, "--url", f"ws://{node.address}/ws", "--pid", str(measured.program.pid), "--json",
               *map(str, arguments)]
    for _ in range(ATTEMPTS_MAX):
        done = subprocess.run(command, env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=LOAD_S_MAX, check=False)
        report = json.loads(done.stdout) if done.stdout.strip() else {}
        troubles = [f"{report[name]} {name}" for name in TROUBLES if report.get(name)]
        if not done.returncode and not troubles:
            return report
        said = f"bench-nodes: {' '.join(command[6:])}: {', '.join(troubles) or done.stderr.strip()}"
        print(said, file=sys.stderr)
    raise SystemExit(said)


@contextlib.contextmanager
def team(cluster, options, bus, alone):
    """A leader with the injector, a follower for clients, and one without; this one of them has a core to itself."""
    with contextlib.ExitStack() as stack:
        url, program = stack.enter_context(broker(bus))
        nodes = []
        for number in range(3):
            core = options.core if number == alone else None
            nodes.append(Node(stack, cluster, options, url, number, core, injected=True))
            if bus != "none":
                settle(nodes)
        if bus != "none":
            # An injected event is not in the log: a shard that is taken too late would not have it.
            nodes[1].connect(1, CONNECTIONS)
            wait_for("the shards are", nodes[1].address, "/metrics", lambda text: has(text, "hushnet_node_shards", SHARDS))
            time.sleep(2)
        yield nodes, program


def published(node):
    return [node.sum(f"hushnet_bus_{what}_total") for what in ("messages_published", "bytes_published",
                                                               "messages_dropped")]


def go_first(program):
    """Real-time priority, where that is permitted: else the latency is of what else runs on the machine."""
    subprocess.run(["chrt", "--all-tasks", "--fifo", "--pid", "1", str(program.pid)], stderr=subprocess.DEVNULL, check=False)


def absent(cluster, options, bus, alone):
    """Events for users who are not connected, at a rate: the load's report, with the bytes of a message, and the CPU that the
    follower without clients has used for an event beyond what it uses without any.
    """
    with team(cluster, options, bus, alone) as ((leader, follower, idle), server):
        measured = (leader, follower)[alone]
        before, at = idle.cpu_s(), time.monotonic()
        time.sleep(IDLE_S)
        quiet = (idle.cpu_s() - before) / (time.monotonic() - at)
        before, at, sent, brokers = idle.cpu_s(), time.monotonic(), published(leader), cpu_s(server)
        report = load(follower, measured, "--inject", leader.injector, "absent", "--connections", CONNECTIONS,
                      "--events", options.events, "--rate", options.publish_rate)
        brokers = cpu_s(server) - brokers
        unheld = idle.cpu_s() - before - quiet * (time.monotonic() - at)
        messages, sent_bytes, dropped = (now - then for now, then in zip(published(leader), sent))
        if dropped:
            raise SystemExit(f"bench-nodes: the bus has not taken {dropped:.0f} messages")
    return {**report, "message_bytes": sent_bytes / messages, "unheld_us": unheld * 1e6 / options.events,
            "broker_us": brokers * 1e6 / options.events}


def measure_cost(cluster, options):
    """What an event costs the leader and the followers that have nobody for it."""
    rows = {bus: [] for bus in options.bus if bus != "none"}
    for number in range(options.rounds):
        for bus, row in rows.items():
            leader, follower = (absent(cluster, options, bus, alone) for alone in (0, 1))
            row.append([leader["events_per_second"], leader["server_cpu_us_per_event"], follower["message_bytes"],
                        follower["server_cpu_us_per_event"], follower["unheld_us"], follower["broker_us"]])
            print(f"round {number + 1}, {bus}: {row[-1]}", file=sys.stderr)
    print("\nAn event for a user who is not connected: medians\n"
          f"{'bus':>6}{'events/s':>12}{'leader us':>12}{'message B':>12}{'held us':>12}{'not held':>12}{'broker us':>12}")
    return table(rows)


def table(rows):
    """Prints the median of each column, and returns it."""
    result = {}
    for name, row in rows.items():
        result[name] = [round(statistics.median(column), 3) for column in zip(*row)]
        print(f"{name:>6}" + "".join(f"{figure:>12,.2f}" for figure in result[name]), flush=True)
    return result


def measure_delivery(cluster, options):
    """The CPU of a delivery, and its latency, at a node without a bus and at a follower."""
    rows = {bus: [] for bus in options.bus}
    url = f"postgres://postgres@localhost/{INJECTED}?host={cluster.directory}"
    for number in range(options.rounds):
        for bus, row in rows.items():
            with team(cluster, options, bus, None) as ((leader, follower, _), server):
                source = follower if bus == "none" else leader
                figures = [load(follower, follower, "--inject", source.injector, "fanout", *plan)
                           ["server_cpu_us_per_delivery"] for plan in options.fanouts]
                commits = load(follower, follower, "--database-url", url, "latency", *options.commits)
                later = {}
                if bus != "none":
                    for node in (leader.program, follower.program, server):
                        go_first(node)
                    beside = ["--devices", 2, "--beside", f"ws://{follower.address}/ws", *options.latency]
                    later = load(leader, follower, "--inject", source.injector, "latency", *beside)["beside_later_us"]
                row.append([*figures, commits["server_cpu_us_per_delivery"], commits["latency_us"]["p50"],
                            commits["latency_us"]["p99"], later.get("p50", 0), later.get("p99", 0)])
                print(f"round {number + 1}, {bus}: {row[-1]}", file=sys.stderr)
    print(f"\nA delivery, in us: CPU as fast as they arrive, CPU at {options.rate}/s, CPU at {options.rate} commits/s, from COMMIT"
          " p50 and p99, how much later than at the leader p50 and p99: medians")
    return table(rows)


def idle_us(cluster, options):
    """CPU that a node takes for an open connection in a second, in microseconds."""
    with contextlib.ExitStack() as stack:
        node = Node(stack, cluster, options, "none", 0, injected=True)

        def used():
            before = node.cpu_s()
            time.sleep(options.idle_seconds)
            return node.cpu_s() - before

        time.sleep(IDLE_S)
        alone = used()
        node.connect(1, options.idle)
        # From the first pings on.
        time.sleep(options.idle_seconds / 2)
        return (used() - alone) * 1e6 / options.idle / options.idle_seconds


def measure_scale(cluster, options):
    """What docs/scale.md foretells, beside what is measured."""
    print(f"\nAn open connection: {idle_us(cluster, options):.2f} us of CPU a second", flush=True)
    print("In cores, foretold and measured: the leader, the follower that has all clients, the broker")
    result = {}
    for bus in options.bus:
        for connections, rate in options.points if bus != "none" else ():
            with team(cluster, options, bus, None) as ((leader, follower, _), server):
                programs = (leader.program, follower.program, server)
                before, at = [cpu_s(program) for program in programs], time.monotonic()
                load(follower, follower, "--inject", leader.injector, "fanout", "--connections", connections, "--rate", rate,
                     "--events", rate * options.seconds, "--warm-up", 1)
                took = time.monotonic() - at
                measured = [(cpu_s(program) - then) / options.seconds for program, then in zip(programs, before)]
            foretold = scale.point(bus, connections, rate)
            name = f"{bus}, {connections} connections, {rate}/s"
            print(f"{name:>40}" + "".join(f"{a:>9.3f}{b:>7.3f}" for a, b in zip(foretold, measured)), flush=True)
            result[name] = [foretold, measured, took]
    return result
