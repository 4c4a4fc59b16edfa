#!/usr/bin/env python3
"""Measures what the triggers cost the application's writers, with pgbench, in private clusters.

One INSERT into public.messages a transaction, to a random one of 1,000 users, by a role that has no
right on schema `realtime`. Every figure is the median over rounds, and every ratio is to "no trigger"
in the same round: rounds go through all triggers in turn, each from empty tables, so that a machine's
mood meets all of them. The first second of a run (plans, caches) does not count. One session listens
throughout. Only the ratios mean anything on another machine.

Two kinds of commit are measured, since NOTIFY's lock is held while the commit is flushed:
  disk  the cluster is in the temporary directory, and a flush takes what its disk takes;
  1ms   the cluster is in memory and commit_delay = 1000 (microseconds), commit_siblings = 0: whoever
        flushes the log sleeps 1 ms first, with every lock that a flush holds, and others' commits join.

"an empty one" is a trigger that does nothing. "read" has the service beside it on the same cores, and a connected
client of each user (hushnet-load listen); "read for nobody" has the service and no client. So the cost is split: the
trigger, the log, reading it, delivering. With --indexes also `tail` without the indexes of the log that an INSERT pays
for and that reads of the newest events do not need.
`wal` needs wal_level = logical, which all have then; --wal-level replica measures the others without it.
With --batch, statements of 1, 10 and 100 rows (group messages).
"""
import argparse
import contextlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys

from bench_postgresql import (
    APPLICATION, BODY, CONSTANTS, EMPTY, LIMITS, MESSAGE, MIGRATIONS, ONE, REPOSITORY, ROWS, USERS, Cluster,
    find_binaries, free_port, wait_for)

WARM_UP_S = 1
MEMORY = pathlib.Path("/dev/shm")
MEMORY_BYTES_MIN = 4 << 30

# What PostgreSQL takes for any trigger of a statement that looks at its rows.
EMPTY_TRIGGER = """
CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER nothing AFTER INSERT ON public.messages REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION public.nothing();
"""

# A long read goes by the first, and one user's replay by the second: a service beside a log without them would be slow.
WITHOUT_INDEXES = {
    "tail, no index by id": "DROP INDEX realtime.events_id;",
    "tail, none by id and user": "DROP INDEX realtime.events_id, realtime.events_user_id_xid_id;",
}

# Before migration 9 the table is realtime.events, which is a view since.
# Before it the way of ingest has no function.
EMPTY_LOG = """
DO $$ BEGIN
    EXECUTE format('TRUNCATE %s', coalesce(to_regclass('realtime.log'), to_regclass('realtime.events')));
    IF to_regprocedure('realtime.set_ingest(text)') IS NULL THEN
        UPDATE realtime.state SET ingest = 'WAY';
    ELSE
        EXECUTE 'SELECT realtime.set_ingest(''WAY'')';
    END IF;
END $$;
"""

MANY = MESSAGE + f"""SELECT 'm', {CONSTANTS}, member, member, {BODY}
FROM (SELECT lpad((1 + (:first + n) % {USERS})::text, 32, '0')::uuid AS member
      FROM generate_series(1, ROWS) AS n) AS members;"""


class Trigger:
    """One thing to compare: a database, and what it is set to for the run."""

    def __init__(self, name, database, ingest=None, awake=False, listeners=None):
        self.name = name  # in the table and in the JSON
        self.database = database
        self.ingest = ingest  # None: the database has no log
        self.awake = awake  # whether a session holds the doorbell
        self.listeners = listeners  # clients that the service hands the events to; None: it does not run


@contextlib.contextmanager
def serving(cluster, database, programs, listeners, streams):
    """The service on this database, with so many connected clients, each of another user, until the end."""
    address = f"127.0.0.1:{free_port()}"
    url = f"postgres://postgres@localhost/{database}?host={cluster.directory}"
    serve = [programs / "hushnet-realtime", "serve", "--listen", address, "--database-url", url,
             "--log", "error", *(["--replication-url", url] if streams else []), *LIMITS]
    listen = [programs / "hushnet-load", "--url", f"ws://{address}/ws", "listen", "--connections", str(listeners),
              "--seconds", "3600"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    with contextlib.ExitStack() as programs_run:
        run = [(serve, "the service is", "/metrics" if streams else "/readyz",
                lambda text: not streams or re.search(r"^hushnet_wal_streaming 1$", text, re.M))]
        if listeners:
            run.append((listen, "the clients are", "/metrics",
                        lambda text: re.search(rf"^hushnet_connections_open {listeners}$", text, re.M)))
        for command, what, path, is_there in run:
            program = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            programs_run.callback(program.wait)
            programs_run.callback(program.kill)
            wait_for(what, address, path, is_there)
        yield


def create_databases(cluster, migrations, indexes):
    read = pathlib.Path.read_text
    schema, triggers = read(APPLICATION / "schema.sql"), read(APPLICATION / "triggers.sql")
    cluster.sql("postgres", "CREATE ROLE application LOGIN")
    contents = {"none": [schema], "empty": [schema, EMPTY_TRIGGER], "hushnet": [schema, triggers]}
    for database, files in migrations.items():
        contents[database] = [schema, triggers, "CREATE SCHEMA realtime;", *map(read, files),
                              "SELECT realtime.repair_triggers();"]
    for database, texts in contents.items():
        cluster.run("createdb", database)
        cluster.sql(database, *texts, ROWS)
    for number, dropping in enumerate(WITHOUT_INDEXES.values() if indexes else ()):
        cluster.run("createdb", "-T", "ours0", f"without{number}")
        cluster.sql(f"without{number}", dropping)


def pgbench(cluster, trigger, script, clients, seconds, warm_up_s):
    """Transactions a second after the warm-up."""
    out, err = cluster.run(
        "pgbench", "-n", "-M", "prepared", "-U", "application", "-c", str(clients),
        "-j", str(min(clients, os.cpu_count() or 1)), "-T", str(seconds + warm_up_s),
        *(["-P", str(warm_up_s)] if warm_up_s else []), "-f", script, trigger.database)
    count = int(re.search(r"actually processed: (\d+)", out)[1])
    rate = float(re.search(r"^tps = ([\d.]+)", out, re.M)[1])
    if not warm_up_s:
        return rate
    warm_s, warm_rate = map(float, re.search(r"^progress: ([\d.]+) s, ([\d.]+) tps", err, re.M).groups())
    return (count - warm_s * warm_rate) / (count / rate - warm_s)


def measure(cluster, trigger, script, clients, options):
    logs = trigger.ingest is not None
    cluster.sql(trigger.database, EMPTY, *(
        [EMPTY_LOG.replace("WAY", trigger.ingest)] if logs else []))
    cluster.run("psql", "-qXc", "CHECKPOINT")
    with contextlib.ExitStack() as sessions:
        sessions.enter_context(cluster.session(
            trigger.database,
            "LISTEN messages_channel; LISTEN sessions_channel; LISTEN devices_channel",
            repeated="SELECT"))
        if trigger.awake:
            sessions.enter_context(cluster.session(
                trigger.database, "SELECT pg_advisory_lock(realtime.doorbell())"))
        if trigger.listeners is not None:
            sessions.enter_context(serving(cluster, trigger.database, options.programs, trigger.listeners,
                                           trigger.ingest == "wal"))
        rate = pgbench(cluster, trigger, script, clients, options.seconds, options.warm_up_s)
    if logs:
        messages, events = cluster.sql(
            trigger.database, "SELECT (SELECT count(*) FROM public.messages), "
            "(SELECT count(*) FROM realtime.events)").split("|")
        if messages != events:
            raise SystemExit(f"bench-ingest: {trigger.name}: {messages} messages, {events} events")
    return rate


def measure_all(cluster, triggers, columns, options):
    """{column: {trigger's name: {"per_second", "ratio", "rounds"}}}; a column is (clients, rows)."""
    rates = {column: {trigger.name: [] for trigger in triggers} for column in columns}
    for number in range(options.rounds):
        for clients, rows in columns:
            script = cluster.directory / f"{rows}.pgbench"
            script.write_text(MANY.replace("ROWS", str(rows)) if options.batch else ONE)
            turn = number % len(triggers)
            for trigger in triggers[turn:] + triggers[:turn]:
                rate = measure(cluster, trigger, script, clients, options) * rows
                rates[clients, rows][trigger.name].append(rate)
                print(f"{cluster.name}, round {number + 1}, {clients} clients, {rows} rows, "
                      f"{trigger.name}: {rate:,.0f}", file=sys.stderr)
    return {column: {name: {
        "per_second": round(statistics.median(rounds)),
        "ratio": round(statistics.median(a / b for a, b in zip(rounds, by_name["none"])), 3),
        "rounds": [round(rate) for rate in rounds],
    } for name, rounds in by_name.items()} for column, by_name in rates.items()}


def print_table(results, triggers, batch):
    headings = [f"{rows} rows" if batch else f"{clients} client{'s' * (clients > 1)}"
                for clients, rows in results]
    width = max(len(trigger.name) for trigger in triggers)
    print("  " + " " * width + "".join(f"{heading:>17}" for heading in headings))
    for trigger in triggers:
        cells = (by_name[trigger.name] for by_name in results.values())
        print(f"  {trigger.name:<{width}}" + "".join(
            f"{cell['per_second']:>11,}{cell['ratio']:>6.2f}" for cell in cells))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=1, help="measured in each run (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--clients", default=None, help="1,4,16,32; with --batch 4")
    parser.add_argument("--commit", default="disk,1ms", help="which kinds of commit (%(default)s)")
    parser.add_argument("--wal-level", choices=("logical", "replica"), default="logical",
                        help="PostgreSQL's wal_level; with replica there is no wal (%(default)s)")
    parser.add_argument("--batch", action="store_true", help="1, 10 and 100 rows a statement")
    parser.add_argument("--indexes", action="store_true", help="also what the log's indexes cost")
    parser.add_argument("--migration", action="append", type=pathlib.Path, metavar="FILE",
                        default=[], help="another text of the migrations, in one file, to measure; several are compared")
    parser.add_argument("--programs", type=pathlib.Path, metavar="DIRECTORY",
                        default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release",
                        help="where hushnet-realtime and hushnet-load are (%(default)s)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--smoke", action="store_true", help="some seconds, to see that it runs")
    options = parser.parse_args()
    options.warm_up_s = WARM_UP_S
    if options.smoke:
        options.seconds, options.rounds, options.warm_up_s, options.commit = 1, 1, 0, "1ms"
        options.clients = options.clients or "4"
    try:
        default = "4" if options.batch else "1,4,16,32"
        options.clients = [int(number) for number in (options.clients or default).split(",")]
    except ValueError:
        parser.error("--clients wants numbers with commas between")
    options.commit = options.commit.split(",")
    options.programs = options.programs.resolve()
    if not set(options.commit) <= {"disk", "1ms"}:
        parser.error("--commit knows disk and 1ms")
    if min(options.seconds, options.rounds, *options.clients) < 1 or max(options.clients) > 100:
        parser.error("--seconds and --rounds are at least 1, --clients 1 to 100")
    return options


def choose_triggers(options):
    """The databases of ours with the files that make them, and what is compared."""
    files = options.migration
    migrations = {f"ours{number}": [file] for number, file in enumerate(files)} or {"ours0": MIGRATIONS}
    labels = {f"ours{number}": f"{file.stem}: " if len(files) > 1 else ""
              for number, file in enumerate(files)} or {"ours0": ""}
    triggers = [Trigger("none", "none"), Trigger("an empty one", "empty"), Trigger("HushNet's", "hushnet")]
    for database, label in labels.items():
        triggers += [Trigger(label + "notify", database, "notify"),
                     Trigger(label + "tail", database, "tail")]
        if not options.batch:
            triggers += [Trigger(label + "adaptive, asleep", database, "adaptive"),
                         Trigger(label + "adaptive, awake", database, "adaptive", awake=True),
                         Trigger(label + "tail, read for nobody", database, "tail", listeners=0),
                         *(Trigger(f"{label}{ingest}, read", database, ingest, listeners=USERS)
                           for ingest in ("notify", "tail", "adaptive"))]
            if options.wal_level == "logical":
                triggers += [Trigger(label + "wal, read for nobody", database, "wal", listeners=0),
                             Trigger(label + "wal, read", database, "wal", listeners=USERS)]
    if options.indexes:
        triggers += [Trigger(name, f"without{number}", "tail") for number, name in enumerate(WITHOUT_INDEXES)]
    return migrations, triggers


def main():
    options = parse_arguments()
    binaries = find_binaries()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    migrations, triggers = choose_triggers(options)
    columns = [(clients, rows) for clients in options.clients
               for rows in ((1, 10, 100) if options.batch else (1,))]
    version = subprocess.run([binaries / "postgres", "--version"], stdout=subprocess.PIPE, text=True,
                             check=True).stdout.strip()
    report = {"postgresql": version, "machine": platform.machine(), "cpus": os.cpu_count(),
              "seconds": options.seconds, "rounds": options.rounds, "commits": []}
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    print(f"{version}, {os.cpu_count()} CPUs; {'rows' if options.batch else 'inserts'}/s and ratio to "
          f"none, medians of {options.rounds} rounds of {options.seconds} s")
    for name in options.commit:
        with contextlib.ExitStack() as cleanup:
            cluster = Cluster(binaries, name, MEMORY if name == "1ms" and in_memory else None,
                              1000 if name == "1ms" else 0, options.wal_level)
            cleanup.callback(cluster.stop)
            cluster.start()
            create_databases(cluster, migrations, options.indexes)
            results = measure_all(cluster, triggers, columns, options)
            description = cluster.description()
        print(f"\n{description}")
        print_table(results, triggers, options.batch)
        report["commits"].append({"name": name, "description": description, "results": [
            {"clients": clients, "rows": rows, "triggers": by_name}
            for (clients, rows), by_name in results.items()]})
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
