//! PostgreSQL, the server, and what they cost: cores, CPU time, counters.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use hushnet_devdb::Cluster;
use hushnet_realtime::config::Ingest;
use hushnet_realtime::store::migrate;
use hushnet_testkit::application;
use hushnet_testkit::database::{connect, execute};
use hushnet_testkit::program::command;
use hushnet_testkit::server::Server;
use hushnet_testkit::wait::until;
use sqlx::PgConnection;
use tempfile::TempDir;

/// Linux counts a process's CPU time in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: u64 = 100;
/// Flushes whose times are measured for their median.
const FLUSHES: usize = 50;

/// Which cores the processes run on.
#[derive(Debug, Clone)]
pub(crate) struct Pinning {
    /// The server's own core.
    server: Option<usize>,
    /// The placement in words, for the report.
    pub(crate) description: String,
}

impl Pinning {
    /// Leaves everything to the kernel.
    pub(crate) fn none(why: &str) -> Self {
        Self {
            server: None,
            description: format!("nothing pinned ({why})"),
        }
    }

    /// Takes the first core away from this process and all that it starts, for the server.
    pub(crate) fn apply() -> Self {
        let cores = allowed_cores();
        let [server, others @ ..] = cores.as_slice() else {
            return Self::none("the cores are not known");
        };
        if others.is_empty() {
            return Self::none("there is only one core");
        }
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let others = others.join(",");
        let pinned = std::process::Command::new("taskset")
            .args(["-a", "-c", "-p", &others, &std::process::id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !pinned.is_ok_and(|status| status.success()) {
            return Self::none("taskset does not");
        }
        Self {
            server: Some(*server),
            description: format!("server on core {server}; load and PostgreSQL on core {others}"),
        }
    }
}

/// The cores that this process may use.
fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.unwrap_or_default().trim().split(',');
    let range = |text: &str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Some(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?)
    };
    ranges.filter_map(range).flatten().collect()
}

/// A private PostgreSQL with its default settings: it flushes every commit.
#[derive(Debug)]
pub(crate) struct Stack {
    cluster: Cluster,
    directory: TempDir,
    pub(crate) pinning: Pinning,
    /// Files that a process here may open.
    pub(crate) descriptors: u64,
    /// The settings of PostgreSQL that the caller named.
    pub(crate) settings: String,
}

impl Stack {
    pub(crate) async fn start(
        pinning: Pinning,
        descriptors: u64,
        settings: &[String],
    ) -> anyhow::Result<Self> {
        // If root runs this, PostgreSQL's user must be able to enter it.
        let directory = tempfile::Builder::new()
            .prefix("hushnet-delivery-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()?;
        let description = settings.join(", ");
        // `cold` reads its statement from pg_stat_activity, which cuts a longer one off.
        let mut settings = settings
            .iter()
            .map(|setting| setting.split_once('=').context("a setting is NAME=VALUE"))
            .collect::<anyhow::Result<Vec<_>>>()?;
        settings.push(("track_activity_query_size", "16384"));
        // For `wal`; and for the others, so that they are measured beside it.
        if !settings.iter().any(|(name, _)| *name == "wal_level") {
            settings.push(("wal_level", "logical"));
        }
        let cluster = Cluster::start_with(&directory.path().join("postgresql"), &settings).await?;
        Ok(Self {
            cluster,
            directory,
            pinning,
            descriptors,
            settings: description,
        })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.cluster.stop().await?;
        Ok(self.directory.close()?)
    }

    /// Drops a database, whoever is connected to it. Slots of a server that was killed are no connections to PostgreSQL.
    pub(crate) async fn drop_database(&self, database: &str) {
        let mut connection = self.connect("postgres").await;
        until("no slot of the database is left", async || {
            let ended = sqlx::query_scalar(
                "SELECT count(coalesce(pg_terminate_backend(active_pid), true)) FROM pg_replication_slots WHERE database = $1",
            );
            let slots: Result<i64, _> = ended.bind(database).fetch_one(&mut connection).await;
            matches!(slots, Ok(0))
        })
        .await;
        execute(
            &mut connection,
            &format!("DROP DATABASE {database} WITH (FORCE)"),
        )
        .await;
    }

    pub(crate) fn url(&self, database: &str) -> String {
        self.cluster.url(database)
    }

    pub(crate) async fn connect(&self, database: &str) -> PgConnection {
        connect(&self.url(database)).await
    }

    /// A new database with the application's schema and ours.
    pub(crate) async fn create(&self, database: &str) -> anyhow::Result<PgConnection> {
        self.cluster.create_database(database).await?;
        let mut connection = self.connect(database).await;
        application::create_schema(&mut connection).await;
        let url = self.url(database).parse().map_err(anyhow::Error::msg)?;
        migrate::up(&url).await?;
        Ok(connection)
    }

    /// The median time of writing 8 KiB and flushing it, where PostgreSQL has its data.
    pub(crate) fn flush_time(&self) -> anyhow::Result<Duration> {
        let mut file = tempfile::tempfile_in(self.directory.path())?;
        let mut times = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            let begun = Instant::now();
            file.write_all(&[0; 8_192])?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok(times[FLUSHES / 2])
    }

    /// CPU time of all of PostgreSQL's processes since it started.
    fn cpu(&self) -> Duration {
        let data = self.directory.path().join("postgresql/data");
        let pid = fs::read_to_string(data.join("postmaster.pid")).ok();
        let postmaster: Option<u32> = pid.and_then(|text| text.lines().next()?.trim().parse().ok());
        let Some(postmaster) = postmaster else {
            return Duration::ZERO;
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let process = Process::read(pid)?;
                if pid == postmaster {
                    Some(process.own + process.of_dead_children)
                } else {
                    (process.parent == postmaster).then_some(process.own)
                }
            })
            .sum()
    }
}

/// A process's CPU time, from `/proc/<pid>/stat`.
struct Process {
    parent: u32,
    own: Duration,
    of_dead_children: Duration,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat =
            fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
        // The name in parentheses may hold anything; the third field follows it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let time = |field: usize| {
            let ticks: u64 = fields.get(field - 3)?.parse().ok()?;
            Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
        };
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: time(14)? + time(15)?,
            of_dead_children: time(16)? + time(17)?,
        })
    }
}

/// The most memory that a process has had resident, in bytes.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmHWM")?.parse::<u64>()? << 10)
}

/// CPU time of the server, of PostgreSQL and of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) server: Duration,
    pub(crate) database: Duration,
    pub(crate) load: Duration,
}

impl Cpu {
    pub(crate) fn read(stack: &Stack, server: &Server) -> Self {
        let own = |pid| Process::read(pid).map_or(Duration::ZERO, |process| process.own);
        Self {
            server: own(server.program.pid()),
            database: stack.cpu(),
            load: own(std::process::id()),
        }
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            server: self.server.saturating_sub(earlier.server),
            database: self.database.saturating_sub(earlier.database),
            load: self.load.saturating_sub(earlier.load),
        }
    }
}

/// Starts the service as a program, on a free port, and waits until it is ready.
pub(crate) async fn start_server(stack: &Stack, database: &str, ingest: Ingest) -> Server {
    // The server opens other files too. If it may open fewer than by default, it only warns.
    let connections_max = stack.descriptors.clamp(2_048, 100_000) - 1_024;
    let connections_max = connections_max.to_string();
    let settings = ["--connections-max", &connections_max];
    start_server_with(stack, database, ingest, &settings).await
}

/// The same with these settings.
pub(crate) async fn start_server_with(
    stack: &Stack,
    database: &str,
    ingest: Ingest,
    settings: &[&str],
) -> Server {
    let program = env!("CARGO_BIN_EXE_hushnet-realtime");
    let mut command = match stack.pinning.server {
        Some(core) => {
            let mut command = command("taskset");
            command.args(["-c", &core.to_string(), program]);
            command
        }
        None => command(program),
    };
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"])
        .args(["--ingest", ingest.as_str()])
        .args(settings)
        .args(["--database-url", &stack.url(database)]);
    if ingest == Ingest::Wal {
        command.args(["--replication-url", &stack.url(database)]);
    }
    let server = Server::start(&mut command).await;
    server.until_ready().await;
    if ingest == Ingest::Wal {
        until("the server streams", async || {
            server.metric("hushnet_wal_streaming").await >= 1.0
        })
        .await;
    }
    server
}

/// The bound on the server's memory that it prints for these settings, in bytes.
pub(crate) async fn memory_ceiling(settings: &[&str]) -> anyhow::Result<u64> {
    let mut command = command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    let printed = command.args(["serve", "--print-config"]).args(settings);
    let text = String::from_utf8(printed.output().await?.stdout)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("# memory_ceiling_bytes = "));
    Ok(line.context("no bound is printed")?.parse()?)
}

/// How many clients were served what they had missed, from the replay buffer and from the log.
pub(crate) async fn resumes(server: &Server) -> (f64, f64) {
    let series = |source| format!("hushnet_replays_total{{cause=\"resume\",source=\"{source}\"}}");
    (
        server.metric(&series("memory")).await,
        server.metric(&series("log")).await,
    )
}

/// Users `0..users` with one device each, both with ids that are their numbers, and chats `0..chats`.
pub(crate) async fn populate(connection: &mut PgConnection, users: usize, chats: usize) {
    let uuid = "lpad(to_hex(n), 32, '0')::uuid";
    execute(
        connection,
        &format!(
            "INSERT INTO users (id, username) SELECT {uuid}, n FROM generate_series(0, {users} - 1) n;
             INSERT INTO devices (id, user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub,
                                  signed_prekey_sig, one_time_prekeys)
             SELECT {uuid}, {uuid}, n, '', '', '', '[]' FROM generate_series(0, {users} - 1) n;
             INSERT INTO chats (id, chat_type)
             SELECT {uuid}, 'group' FROM generate_series(0, {chats} - 1) n;
             ANALYZE users, devices, chats"
        ),
    )
    .await;
}

/// Messages whose chats' ids are their numbers.
pub(crate) struct Messages {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Messages {
    /// Inserts them in one transaction, each for the user that `to` says; returns when it has
    /// committed.
    pub(crate) async fn insert(
        &self,
        connection: &mut PgConnection,
        to: impl Fn(usize) -> usize,
    ) -> Result<(), sqlx::Error> {
        let numbers = self.first..self.first + self.count;
        let user = |number| super::client::chat_id(to(number));
        if self.count == 1 {
            return sqlx::query(
                "INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id,
                                       to_user_id, to_device_id, header, ciphertext)
                 VALUES ('m', $1, $2, $2, $3, $3, '{}', 'c')",
            )
            .bind(super::client::chat_id(self.first))
            .bind(user(self.first + 1))
            .bind(user(self.first))
            .execute(connection)
            .await
            .map(drop);
        }
        sqlx::query(
            "INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id,
                                   to_user_id, to_device_id, header, ciphertext)
             SELECT 'm', chat, u, u, u, u, '{}', 'c' FROM unnest($1::uuid[], $2::uuid[]) AS m(chat, u)",
        )
        .bind(numbers.clone().map(super::client::chat_id).collect::<Vec<_>>())
        .bind(numbers.map(user).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
    }
}
