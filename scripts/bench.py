#!/usr/bin/env python3
"""Measures the service beside the least that such a server can cost and beside the design it replaces.

`limit` and `predecessor` are in examples/ and say what they are. Each server gets one core to itself,
each run a fresh process of it; hushnet-load and PostgreSQL have the other cores. For the latencies the
server has real-time priority where that is permitted: else the 99th percentile is what else ran on its
core. Rounds go through all cases and servers in turn, so that a machine's mood meets all of them. Every
figure is the median over rounds, every ratio the median of those within a round. Only the ratios mean
anything on another machine.

The predecessor's connections end when they fall behind, so it gets fewer events, and most of them at a
rate that it bears; the table says where. What it does not bear is left out.

Writes bench/summary.json in the target directory: by case `ours`, `limit` and `predecessor` in `unit`;
`to_limit` is ours/limit, with its least and greatest in `to_limit_min` and `to_limit_max`;
`to_predecessor` is predecessor/ours, how many times less ours takes. null is what was not measured.
Nothing is built here (make bench does). Exit code 1: a server could not be measured, or ours or `limit`
lost an event, sent it twice or to somebody else.
"""
import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target")
PROGRAMS = TARGET / "injector"
OUTPUT = TARGET / "bench"
APPLICATION = REPOSITORY / "sql/hushnet"
SERVERS = ("ours", "limit", "predecessor")
START_S_MAX = 30
LOAD_S_MAX = 600
FIRST = ("chrt", "--fifo", "1")
TROUBLES = ("lost", "duplicated", "wrong_user")

# As many connections as a process may usually have files, and no limit that the load would meet.
OURS = ("serve --ingest notify --connections-max 19800 --log warn --connections-per-second 1000000 "
        "--connections-per-user-max 100000 --connections-per-second-per-user 1000000").split()


@dataclasses.dataclass
class Case:
    """One figure. Arguments are hushnet-load's, by name; a predecessor of None is not measured."""

    name: str
    says: str  # in the table
    unit: str
    command: str
    figure: tuple  # where in hushnet-load's report
    arguments: dict
    predecessor: dict | None = dataclasses.field(default_factory=dict)  # what differs for it
    note: str = ""
    p50: tuple = ()  # where another figure of the same run is, for `ours_p50` and the like
    first: bool = False  # whether the server goes before all else on its core, where that is permitted


def fanout(name, says, arguments, predecessor, note):
    return Case(name, says, "us", "fanout", ("server_cpu_us_per_delivery",), arguments, predecessor, note)


def one_user(waiting):
    arguments = {"connections": 1000, "devices": 1000, "burst": waiting, "window": waiting,
                 "events": 400, "warm-up": 40}
    return fanout(f"one_user_1000_devices_{waiting}_waiting",
                  f"CPU per delivery, 1,000 devices of one user, {waiting} waiting at a time",
                  arguments, {"events": 100, "warm-up": 20}, "")


# About two seconds of a server's CPU in each.
CASES = [
    fanout("cpu_per_delivery_1000", "CPU per delivery, 1,000 connected",
           {"connections": 1000, "window": 256, "events": 300_000},
           {"window": None, "rate": 500, "events": 2000, "warm-up": 0}, "predecessor at 500/s"),
    fanout("cpu_per_delivery_10000", "CPU per delivery, 10,000 connected",
           {"connections": 10_000, "window": 256, "events": 200_000},
           {"window": None, "rate": 50, "events": 150, "warm-up": 0}, "predecessor at 50/s"),
    fanout("cpu_per_delivery_1000_busy_18000_idle", "CPU per delivery, 1,000 of 19,000 connected",
           {"connections": 19_000, "busy": 1000, "window": 256, "events": 300_000},
           {"window": None, "rate": 25, "events": 75, "warm-up": 0}, "predecessor at 25/s"),
    one_user(1),
    one_user(4),
    Case("idle_bytes_10000", "memory per idle connection, 10,000", "bytes", "idle",
         ("memory_bytes_per_connection",), {"connections": 10_000}),
    Case("idle_bytes_19000", "memory per idle connection, 19,000", "bytes", "idle",
         ("memory_bytes_per_connection",), {"connections": 19_000}),
    Case("handshake", "CPU per handshake, 256 at a time", "us", "storm", ("cpu_us_per_handshake",),
         {"connections": 5000, "rounds": 4, "opening": 256}),
    Case("storm_10000", "until 10,000 that come at once are connected", "ms", "storm",
         ("all_open_ms",), {"connections": 10_000}),
    Case("absent_user", "CPU per event for a user who is not connected", "us", "absent",
         ("server_cpu_us_per_event",), {"connections": 1000, "events": 3_000_000}, None,
         "predecessor: its connections end"),
    Case("burst_200000", "until 200,000 notifications that come at once are routed", "ms", "absent",
         ("until_routed_ms",), {"connections": 1000, "events": 200_000}, None,
         "predecessor: its connections end"),
    Case("latency_p99_2000", "latency at 2,000/s, p99, 10,000 connected", "us", "latency",
         ("latency_us", "p99"), {"connections": 10_000, "rate": 2000, "seconds": 5},
         {"rate": 50, "warm-up": 0}, "predecessor at 50/s", p50=("latency_us", "p50"), first=True),
]


def fail(message):
    raise SystemExit(f"bench: {message}")


def load_arguments(case, server, options):
    """hushnet-load's for this case and server; None if it is not measured."""
    arguments = dict(case.arguments)
    if server == "predecessor":
        if case.predecessor is None:
            return None
        arguments |= case.predecessor
    if options.quick:
        arguments = {name: value // 4 if name == "events" and value else value
                     for name, value in arguments.items()}
    if options.test:
        for name in arguments.keys() & {"connections", "devices", "busy"}:
            arguments[name] //= 100
        small = {"events": 200, "warm-up": 40, "seconds": 0.2, "rounds": 1}
        arguments |= {name: small[name] for name in arguments.keys() & small.keys() if arguments[name]}
        if case.command == "idle":
            arguments["settle-ms"] = 100
    return [case.command, *(f"--{name}={value}" for name, value in arguments.items()
                            if value is not None)]


class Database:
    """A private PostgreSQL for ours, from bench-ingest's."""

    def __init__(self, cleanup):
        spec = importlib.util.spec_from_file_location("ingest", REPOSITORY / "scripts/bench-ingest.py")
        ingest = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(ingest)
        cluster = ingest.Cluster(ingest.find_binaries(), "bench", None, 0, "replica")
        cleanup.callback(cluster.stop)
        cluster.start()
        cluster.run("createdb", "hushnet")
        cluster.sql("hushnet", *((APPLICATION / name).read_text()
                                 for name in ("schema.sql", "triggers.sql")))
        self.url = f"postgres://postgres@localhost/hushnet?host={cluster.directory}"
        run_quietly(PROGRAMS / "hushnet-realtime", "migrate", "up", "--database-url", self.url)


def may_go_first():
    """Whether a process may have real-time priority here."""
    return not subprocess.run([*FIRST, "true"], stderr=subprocess.DEVNULL, check=False).returncode


def run_quietly(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        fail(f"{' '.join(map(str, command))} failed:\n{done.stdout}")


class Server:
    """A fresh process of a server, alone on its core."""

    def __init__(self, name, core, database_url, first):
        addresses = ["--listen", "127.0.0.1:0", "--inject", "127.0.0.1:0"]
        command = [PROGRAMS / "examples" / name, *addresses]
        if name == "ours":
            command = [PROGRAMS / "hushnet-realtime", *OURS, *addresses, "--database-url", database_url]
        self.name = name
        self.log = OUTPUT / f"{name}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(["taskset", "-c", str(core), *(FIRST if first else ()), *command],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.serving = self.printed(r"^serving on http://(\S+)$")
            self.injecting = self.printed(r"^injecting on (\S+)$")
            if name == "ours":
                self.wait(self.is_ready, "is not ready")
        except BaseException:
            self.kill()
            raise

    def printed(self, pattern):
        return self.wait(lambda: re.search(pattern, self.log.read_text(), re.M),
                         f"has not printed {pattern}")[1]

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.serving}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def wait(self, met, otherwise):
        """What `met` returns, once that is something."""
        deadline = time.monotonic() + START_S_MAX
        while not (found := met()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                fail(f"{self.name} {otherwise}; {self.log} says:\n{self.log.read_text()}")
            time.sleep(0.01)
        return found

    def kill(self):
        # Nobody is connected any more: there is nothing to end gracefully.
        self.process.kill()
        self.process.wait()


class Bench:
    def __init__(self, options, core, database_url):
        self.options, self.core, self.database_url = options, core, database_url
        self.may_go_first = may_go_first()
        self.failures = []  # of ours and limit, in words
        self.values = {}  # (case's name, server, which figure): one value a round, or None

    def run(self):
        for number in range(self.options.rounds):
            for case in self.options.cases:
                turn = number % len(self.options.servers)
                for server in self.options.servers[turn:] + self.options.servers[:turn]:
                    arguments = load_arguments(case, server, self.options)
                    report = self.measure(case, server, arguments) if arguments else None
                    self.keep(case, server, "", report, case.figure)
                    if case.p50:
                        self.keep(case, server, "_p50", report, case.p50)
                    value = self.values[case.name, server, ""][-1]
                    print(f"round {number + 1}, {case.name}, {server}: {shown(value)} {case.unit}",
                          file=sys.stderr)

    def measure(self, case, server, arguments):
        """hushnet-load's report; None if it has none, or if the predecessor has lost something."""
        process = Server(server, self.core, self.database_url, case.first and self.may_go_first)
        try:
            done = subprocess.run(
                [PROGRAMS / "hushnet-load", "--url", f"ws://{process.serving}/ws",
                 "--pid", str(process.process.pid), "--inject", process.injecting, "--json",
                 *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=LOAD_S_MAX, check=False)
        finally:
            process.kill()
        report = json.loads(done.stdout) if done.stdout.strip() else {}
        troubles = [f"{report[name]} {name}" for name in TROUBLES if report.get(name)]
        if done.returncode or troubles:
            said = ", ".join(troubles) or done.stderr.strip().partition("\n")[0] or "hushnet-load failed"
            words = f"{case.name}, {server}: {said}"
            print(words, file=sys.stderr)
            if server != "predecessor" or self.options.test:
                self.failures.append(words)
            return None
        return report

    def keep(self, case, server, which, report, figure):
        value = report
        for name in figure:
            value = value.get(name) if value else None
        self.values.setdefault((case.name, server, which), []).append(value)

    def summary(self, case, which=""):
        """The medians, and the ratios that were measured within a round."""
        values = {server: self.values.get((case.name, server, which), []) for server in SERVERS}
        to_limit = ratios(values["ours"], values["limit"])
        return {**{server + which: median(values[server]) for server in SERVERS},
                f"to_limit{which}": median(to_limit, 3),
                f"to_limit{which}_min": min(to_limit, default=None),
                f"to_limit{which}_max": max(to_limit, default=None),
                f"to_predecessor{which}": median(ratios(values["predecessor"], values["ours"]), 3)}

    def summaries(self):
        return {case.name: {**self.summary(case), **(self.summary(case, "_p50") if case.p50 else {}),
                            "unit": case.unit, "rounds": self.options.rounds}
                for case in self.options.cases}


def ratios(above, below):
    return [round(a / b, 3) for a, b in zip(above, below) if a is not None and b]


def median(values, digits=4):
    values = [value for value in values if value is not None]
    return round(statistics.median(values), digits) if values else None


def shown(value):
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def print_table(cases, summaries):
    print("| | unit | ours | limit | predecessor | ours/limit | predecessor/ours | |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for case in cases:
        for which in ("", "_p50") if case.p50 else ("",):
            row = summaries[case.name]
            says = case.says.replace("p99", "p50") if which else case.says
            to_limit = shown(row[f"to_limit{which}"])
            if row[f"to_limit{which}"] is not None:
                least, greatest = row[f"to_limit{which}_min"], row[f"to_limit{which}_max"]
                to_limit += f" ({shown(least)} to {shown(greatest)})"
            print(f"| {says} | {case.unit} | "
                  + " | ".join(shown(row[server + which]) for server in SERVERS)
                  + f" | {to_limit} | {shown(row[f'to_predecessor{which}'])} | {case.note} |")


def machine():
    cpus = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", cpus, re.M)
    congestion = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return (f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, "
            f"{platform.system()} {platform.release()}, TCP {congestion}")


def pin():
    """Leaves the first core to the servers; everything else that is started here has the others."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        fail("two cores are needed, one for the server and one for the load")
    os.sched_setaffinity(0, cores[1:])
    return cores[0]


def write_summary(path, summaries):
    """Cases that were not measured this time stay as they are."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, **summaries}, indent=2) + "\n", encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, metavar="NAME",
                        help="only this one, can be repeated; the summary keeps what it has of the "
                        f"others: {', '.join(names)}")
    parser.add_argument("--server", action="append", choices=SERVERS, metavar="NAME",
                        help="only this one, can be repeated; without all three, no summary is written: "
                        f"{', '.join(SERVERS)}")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the events")
    parser.add_argument("--test", action="store_true", help="some seconds, to see that all runs and loses "
                        "nothing; the figures go to summary-test.json")
    parser.add_argument("--profile", help="measure what cargo built with this profile (injector)")
    options = parser.parse_args()
    if options.profile:
        global PROGRAMS
        PROGRAMS = TARGET / options.profile
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if options.test:
        options.rounds = 1
    options.cases = [case for case in CASES if not options.case or case.name in options.case]
    options.servers = [name for name in SERVERS if not options.server or name in options.server]
    return options


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    core = pin()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as cleanup:
        ours = "ours" in options.servers
        bench = Bench(options, core, Database(cleanup).url if ours else None)
        bench.run()
    summaries = bench.summaries()
    print(f"{machine()}; medians of {options.rounds} rounds\n")
    if not bench.may_go_first:
        print("without real-time priority (CAP_SYS_NICE): others on the server's core are part of the latency\n")
    print_table(options.cases, summaries)
    if len(options.servers) == len(SERVERS):
        write_summary(OUTPUT / ("summary-test.json" if options.test else "summary.json"), summaries)
    if bench.failures:
        fail("\n  ".join(["failed:", *bench.failures]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
