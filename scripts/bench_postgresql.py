"""What the benchmarks of PostgreSQL share: a private cluster with the application's tables, and the programs beside it."""
import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
APPLICATION = REPOSITORY / "sql/hushnet"
MIGRATIONS = sorted((REPOSITORY / "sql/realtime").glob("*.up.sql"))
USERS = 1000
# Limits that so many clients of one machine would meet.
LIMITS = ("--connections-max 10000 --connections-per-second 1000000 --connections-per-user-max 100000 "
          "--connections-per-second-per-user 1000000").split()
START_S_MAX = 30

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 250
shared_buffers = '256MB'
# No checkpoint and no vacuum in the middle of a run.
max_wal_size = '2GB'
checkpoint_timeout = '1h'
autovacuum = off
commit_delay = {commit_delay_us}
commit_siblings = 0
wal_level = {wal_level}
"""

# User number n has the id, and a device with the id, that is n written as a uuid.
ROWS = f"""
INSERT INTO public.users (id, username)
SELECT lpad(n::text, 32, '0')::uuid, 'user' || n FROM generate_series(1, {USERS}) AS n;
INSERT INTO public.devices (id, user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub,
                            signed_prekey_sig, one_time_prekeys)
SELECT id, id, 'key', 'key', 'key', 'key', '[]' FROM public.users;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO application;
ANALYZE;
"""

# messages and chats refer to each other, so truncating one empties the other.
EMPTY = """
TRUNCATE public.messages, public.chats CASCADE;
INSERT INTO public.chats (id, chat_type) VALUES (lpad('1', 32, '0')::uuid, 'group');
"""

MESSAGE = f"""
\\set sender random(1, {USERS})
\\set first random(1, {USERS})
INSERT INTO public.messages (logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id,
                             to_device_id, header, ciphertext)
"""
CONSTANTS = "lpad('1', 32, '0')::uuid, lpad(:sender::text, 32, '0')::uuid, lpad(:sender::text, 32, '0')::uuid"
BODY = f"""'{{"dh": "{'k' * 44}", "pn": 3, "n": 17}}', '{'c' * 400}'"""
ONE = MESSAGE + f"""VALUES ('m', {CONSTANTS}, lpad(:first::text, 32, '0')::uuid,
        lpad(:first::text, 32, '0')::uuid, {BODY});"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what, address, path, is_there):
    """Until the answer to this path is as it should be."""
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://{address}{path}", timeout=1) as answer:
                if is_there(answer.read().decode()):
                    return
        time.sleep(0.05)
    raise SystemExit(f"{what} not there after {START_S_MAX} s")


class Cluster:
    """A private PostgreSQL, reached by socket only, gone with the run."""

    def __init__(self, binaries, name, parent, commit_delay_us, wal_level):
        self.binaries, self.name, self.commit_delay_us, self.wal_level = binaries, name, commit_delay_us, wal_level
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bench-postgresql-", dir=parent))
        # PostgreSQL refuses to run as root.
        self.account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.account:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        self.environment.update(PGHOST=str(self.directory), PGUSER="postgres", PGDATABASE="postgres")

    def options(self):
        identity = {}
        if self.account:
            identity = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return {"env": self.environment, "cwd": self.directory, "text": True, **identity}

    def run(self, program, *arguments, **options):
        done = subprocess.run([self.binaries / program, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, **self.options(), **options)
        if done.returncode:
            raise SystemExit(f"{program} failed:\n{done.stdout}{done.stderr}")
        return done.stdout, done.stderr

    def start(self):
        self.run("initdb", "-D", "data", "-A", "trust", "-U", "postgres", "--no-sync")
        with open(self.directory / "data/postgresql.conf", "a", encoding="utf-8") as settings:
            settings.write(SETTINGS.format(directory=self.directory,
                                           commit_delay_us=self.commit_delay_us, wal_level=self.wal_level))
        self.run("pg_ctl", "-D", "data", "-l", "log", "-w", "start")

    def stop(self):
        if (self.directory / "data/postmaster.pid").exists():
            self.run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.directory)

    def sql(self, database, *texts):
        """Runs the texts in one transaction; what they print, unaligned."""
        return self.run("psql", "-qXAt1", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-",
                        input="\n".join(texts))[0].strip()

    @contextlib.contextmanager
    def session(self, database, statement, repeated=None):
        """A session that has run `statement`, and runs `repeated` every 50 ms, until the end."""
        over = threading.Event()
        with subprocess.Popen([self.binaries / "psql", "-qXAt", "-d", database],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, **self.options()) as psql:
            psql.stdin.write(f"{statement};\n\\echo ready\n")
            psql.stdin.flush()
            while (line := psql.stdout.readline()) != "ready\n":
                if not line:
                    raise SystemExit(f"psql could not run: {statement}")

            def repeat():
                while repeated and not over.wait(0.05):
                    psql.stdin.write(f"{repeated};\n")
                    psql.stdin.flush()

            threads = [threading.Thread(target=repeat), threading.Thread(target=psql.stdout.read)]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                over.set()
                threads[0].join()
                psql.stdin.close()
                threads[1].join()

    def flush_us(self):
        """The median time of an fdatasync of 8 KiB, as for a commit."""
        times = []
        with open(self.directory / "flush", "wb", buffering=0) as file:
            for _ in range(100):
                file.seek(0)
                file.write(os.urandom(8192))
                before = time.perf_counter()
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - before)
        return round(statistics.median(times) * 1e6)

    def description(self):
        place = f"an fdatasync of 8 KiB takes {self.flush_us():,} us"
        if not self.commit_delay_us:
            return f"{self.name}: the disk's own flush; {place}"
        return (f"{self.name}: commit_delay = {self.commit_delay_us} us, commit_siblings = 0, "
                f"on top of the flush; {place}")


def find_binaries():
    candidates = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"),
                        key=lambda path: int(path.parent.name), reverse=True)
    if os.environ.get("BENCH_POSTGRES_BIN"):
        candidates = [pathlib.Path(os.environ["BENCH_POSTGRES_BIN"])]
    elif postgres := shutil.which("postgres"):
        candidates.append(pathlib.Path(postgres).resolve().parent)
    for path in candidates:
        if all(os.access(path / program, os.X_OK) for program in ("initdb", "postgres", "pgbench")):
            return path
    raise SystemExit("no initdb, postgres and pgbench together: install PostgreSQL's "
                     "server package (Debian: postgresql), or set BENCH_POSTGRES_BIN to its bin")
