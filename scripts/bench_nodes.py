"""Nodes and brokers for the benchmarks of many nodes."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from bench_postgresql import LIMITS, free_port, wait_for

DATABASE = "nodes"
# Of nodes that notifications are injected into. The way of ingest is the database's.
INJECTED = "injected"
SETTLE_S_MAX = 30
TICKS = os.sysconf("SC_CLK_TCK")


def programs_of(path):
    return [path / name for name in ("hushnet-realtime", "hushnet-load")]


@contextlib.contextmanager
def running(command, **options):
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield program
    finally:
        program.send_signal(signal.SIGCONT)
        program.kill()
        program.wait()


@contextlib.contextmanager
def broker(kind):
    """The address of a broker of this kind, and its process; `none` for none."""
    if kind == "none":
        yield "none", None
        return
    port = free_port()
    server = {"redis": ["redis-server", "--bind", "127.0.0.1", "--save", "", "--port", str(port)],
              "nats": ["nats-server", "--addr", "127.0.0.1", "--port", str(port)]}[kind]
    found = shutil.which(server[0]) or shutil.which(server[0], path="/usr/sbin")
    if not found:
        raise SystemExit(f"bench-nodes: {server[0]} is not installed: run sh scripts/setup.sh test")
    with running([found, *server[1:]]) as program:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"{kind}://127.0.0.1:{port}", program


def metrics(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
        return answer.read().decode()


def has(text, series, value):
    return re.search(rf"^{series} {value}$", text, re.M) is not None


class Node:
    """A server, and its clients if it has some. It runs on this core, or on any."""

    def __init__(self, stack, cluster, options, bus, number, core=None, injected=False):
        serve, self.load = programs_of(options.programs)
        self.address = f"127.0.0.1:{free_port()}"
        url = f"postgres://postgres@localhost/{INJECTED if injected else DATABASE}?host={cluster.directory}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self.stack, self.environment = stack, environment
        self.command = [*on(core), serve, "serve", "--listen", self.address, "--database-url", url, "--bus", bus,
                        "--node-name", f"node-{number}", "--log", os.environ.get("BENCH_LOG", "error"), *LIMITS]
        if injected:
            self.injector = f"127.0.0.1:{free_port()}"
            self.command += ["--ingest", "notify", "--inject", self.injector]
        self.start()

    def start(self):
        self.connections = 0
        self.program = self.stack.enter_context(running(self.command, env=self.environment))
        wait_for("a node is", self.address, "/readyz", lambda _: True)

    def connect(self, first, count):
        """A client of each of these users."""
        self.stack.enter_context(running(
            [self.load, "--url", f"ws://{self.address}/ws", "listen", "--first", str(first), "--connections", str(count),
             "--seconds", "36000"], env=self.environment))
        self.connections += count
        wait_for("the clients are", self.address, "/metrics",
                 lambda text: has(text, "hushnet_connections_open", self.connections))

    def leads(self):
        return has(metrics(self.address), "hushnet_node_leading", 1)

    def follows(self):
        return has(metrics(self.address), "hushnet_node_following", 1)

    def sum(self, name):
        """The sum of a metric's series."""
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", metrics(self.address), re.M)
        return sum(map(float, values))

    def cpu_s(self):
        return cpu_s(self.program)


def cpu_s(program):
    """The CPU that the process has used, in seconds: that of threads that have ended included."""
    fields = pathlib.Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS


def on(core):
    return [] if core is None else ["taskset", "-c", str(core)]


def settle(nodes):
    """Until one node leads and the others follow."""
    end = time.monotonic() + SETTLE_S_MAX
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            leaders = [node for node in nodes if node.leads()]
            if len(leaders) == 1 and sum(node.follows() for node in nodes) == len(nodes) - 1:
                return leaders[0]
        time.sleep(0.02)
    raise SystemExit("bench-nodes: no node leads")
