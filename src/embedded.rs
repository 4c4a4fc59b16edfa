//! The private PostgreSQL of `hushnet-realtime run` and of the tests.
//!
//! Owns one cluster in one directory: finds the server's binaries, creates the cluster, keeps its
//! data between runs, and serves it on a Unix socket that only this account (and root) can reach.
//!
//! | in the directory | what it is |
//! |---|---|
//! | `data` | the cluster, or a link to it where PostgreSQL's account cannot reach the directory |
//! | `socket` | the socket's directory, or a link to a shorter one |
//! | `postgres.log` | what the server says; the one before it, once too long, is `postgres.log.1` |
//! | `service.lock` | locked while a service uses the directory: a second one is refused |
//! | `supervisor.lock` | locked until the server is down, even if the service was killed |
//!
//! The server never outlives the service: `supervisor.rs` stops it when our end of a pipe closes,
//! and the kernel closes it however we end.
//!
//! Must never: listen on a network address, touch another cluster, delete data. Fails with the
//! last lines of the server's log.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use self::binaries::Binaries;
pub use self::error::EmbeddedError;
use self::place::Place;
use self::postmaster::Postmaster;
use self::supervisor::Supervisor;

mod binaries;
mod error;
mod place;
mod postmaster;
mod supervisor;
#[cfg(test)]
mod tests;

/// Oldest major version that is served: the log's statements and `xid8` need 13, the tests run 15.
const MAJOR_MIN: u32 = 15;
/// The cluster's only superuser. Who can open the socket's directory may be it, without a password.
const SUPERUSER: &str = "hushnet";
/// Only a part of the socket's name, since nothing listens on a network.
const PORT: u16 = 5432;
/// Crash recovery after a lost machine is part of a start.
const START_DEADLINE: Duration = Duration::from_mins(2);
/// A fast shutdown writes a checkpoint: a slow disk needs a while.
const FAST_DEADLINE: Duration = Duration::from_mins(1);
/// An immediate shutdown writes nothing.
const IMMEDIATE_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a condition that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Past this size the log is set aside at the next start.
const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// Lines of the log in the error of a failed start.
const LOG_TAIL_LINES: usize = 20;

/// A running private cluster. Dropped, it stops in the background; [`Cluster::stop`] waits for it.
/// Bound to no runtime, so that tests may share one in a static.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    /// Where it listens; not `place.socket` when a cluster was found running elsewhere.
    socket: PathBuf,
    port: u16,
    supervisor: Supervisor,
    /// Held until the server is told to stop, so last in the order of drops.
    _service_lock: ServiceLock,
}

impl Cluster {
    /// Starts the cluster in `directory`, which is created if need be, or takes over one that a
    /// dead service left running there.
    pub async fn start(directory: &Path) -> Result<Self, EmbeddedError> {
        Self::start_with(directory, &[]).await
    }

    /// The same with settings of PostgreSQL, as pairs of name and value. `fsync` `off` also creates
    /// the cluster without flushing it. A cluster that was found running keeps its own settings.
    pub async fn start_with(
        directory: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self, EmbeddedError> {
        fs::create_dir_all(directory).map_err(EmbeddedError::io("create", directory))?;
        let directory =
            fs::canonicalize(directory).map_err(EmbeddedError::io("resolve", directory))?;
        let service_lock = lock_service(&directory)?;
        let supervisor_lock = lock_supervisor(&directory).await?;
        let place = Place::find(directory).await?;
        let (supervisor, socket, port) = match find_running(&place).await? {
            Some(found) => take_over(&place, found, supervisor_lock)?,
            None => launch(&place, settings, supervisor_lock).await?,
        };
        Ok(Self {
            place,
            socket,
            port,
            supervisor,
            _service_lock: service_lock,
        })
    }

    /// The address of a database of the cluster that runs in `directory`, whichever process started
    /// it; `None` if none runs there, or if this account may not use it.
    #[must_use]
    pub fn locate(directory: &Path, database: &str) -> Option<String> {
        let data = fs::canonicalize(directory.join("data")).ok()?;
        let found = Postmaster::read(&data)?;
        (found.ready && found.accepts()).then(|| url(&found.socket, found.port, database))
    }

    /// The address of `database`, as sqlx and libpq (psql) both read it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(&self.socket, self.port, database)
    }

    /// Creates `database` if it is not there.
    pub async fn create_database(&self, name: &str) -> Result<(), EmbeddedError> {
        self.try_create_database(name)
            .await
            .map_err(|source| EmbeddedError::Database {
                name: name.to_owned(),
                source,
            })
    }

    async fn try_create_database(&self, name: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let there =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(name);
        if !there.fetch_one(&mut connection).await? {
            // A name can be no parameter. template0 admits no connection, so none is in the way.
            let statement = format!(
                r#"CREATE DATABASE "{}" TEMPLATE template0"#,
                name.replace('"', r#""""#)
            );
            let created = sqlx::raw_sql(AssertSqlSafe(statement));
            match created.execute(&mut connection).await {
                Err(error) if !is_there_already(&error) => return Err(error),
                _ => {}
            }
        }
        connection.close().await
    }

    /// Stops the server and waits for its end: a fast shutdown, and an immediate one if that takes
    /// too long.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        for (signal, deadline) in [("INT", FAST_DEADLINE), ("QUIT", IMMEDIATE_DEADLINE)] {
            self.supervisor.send(signal);
            let (supervisor, data) = (&mut self.supervisor, &self.place.data);
            let is_down = || supervisor.has_exited() || !data.join("postmaster.pid").exists();
            if until(deadline, is_down).await {
                break;
            }
        }
        self.supervisor.release();
        if !until(IMMEDIATE_DEADLINE, || self.supervisor.has_exited()).await {
            return Err(EmbeddedError::NotStopped {
                data: self.place.data,
                after: FAST_DEADLINE + 2 * IMMEDIATE_DEADLINE,
            });
        }
        self.place.remove_short_socket(&self.socket);
        Ok(())
    }
}

/// A lock that is given back at once. Closing the file would give it back only when a process that
/// was forked meanwhile, on another thread, has closed its copy too.
#[derive(Debug)]
struct ServiceLock(File);

impl Drop for ServiceLock {
    fn drop(&mut self) {
        // The kernel does it later if this fails.
        let _ = self.0.unlock();
    }
}

/// Refuses a directory that another living service holds: the kernel unlocks at the end of a
/// process, whatever ended it.
fn lock_service(directory: &Path) -> Result<ServiceLock, EmbeddedError> {
    let path = directory.join("service.lock");
    let lock = place::open_append(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(ServiceLock(lock)),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse {
            directory: directory.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(EmbeddedError::io("lock", &path)(error)),
    }
}

/// Waits until the supervisor of a service that was killed has stopped its server.
async fn lock_supervisor(directory: &Path) -> Result<File, EmbeddedError> {
    let path = directory.join("supervisor.lock");
    let lock = place::open_append(&path)?;
    let mut failure = None;
    let locked = until(FAST_DEADLINE, || match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            failure = Some(error);
            true
        }
    });
    match (locked.await, failure) {
        (true, None) => Ok(lock),
        (true, Some(error)) => Err(EmbeddedError::io("lock", &path)(error)),
        (false, _) => Err(EmbeddedError::NotStopped {
            data: directory.join("data"),
            after: FAST_DEADLINE,
        }),
    }
}

/// A server that lives on without a service and a supervisor, once it takes connections. One that
/// is shutting down is waited for, and what a dead one left is removed.
async fn find_running(place: &Place) -> Result<Option<Postmaster>, EmbeddedError> {
    let mut last = None;
    let settled = until(START_DEADLINE, || {
        last = Postmaster::read(&place.data);
        last.as_ref()
            .is_none_or(|found| found.ready || !found.is_alive(&place.data))
    })
    .await;
    match last {
        Some(found) if !settled => Err(not_started(
            place,
            format!("process {} serves its data and is not ready", found.pid),
            0,
        )),
        Some(found) if found.is_alive(&place.data) => Ok(Some(found)),
        Some(stale) => stale.forget(&place.data).map(|()| None),
        None => Ok(None),
    }
}

/// Uses a server that was found running, and sees to its end.
fn take_over(
    place: &Place,
    found: Postmaster,
    lock: File,
) -> Result<(Supervisor, PathBuf, u16), EmbeddedError> {
    tracing::info!(pid = found.pid, data = %place.data.display(), "private postgres found running");
    let log = place::open_append(&place.log())?;
    let supervisor = Supervisor::adopt(found.pid, place.account, lock, log)?;
    Ok((supervisor, found.socket, found.port))
}

/// Creates the cluster if there is none, and starts it.
async fn launch(
    place: &Place,
    settings: &[(&str, &str)],
    lock: File,
) -> Result<(Supervisor, PathBuf, u16), EmbeddedError> {
    let major = place.major()?;
    let Some(binaries) = Binaries::find(major.as_deref()).await else {
        return Err(match major {
            None => EmbeddedError::NotInstalled,
            Some(major) => EmbeddedError::OtherVersion {
                data: place.data.clone(),
                major,
            },
        });
    };
    if major.is_none() {
        let flush = !settings.contains(&("fsync", "off"));
        place.create(&binaries, flush, &lock).await?;
    }
    let socket = place.make_socket_directory().await?;
    place.set_long_log_aside()?;
    let log_start = place::log_bytes(&place.log());
    let log = place::open_append(&place.log())?;

    let mut command = vec![
        binaries.path("postgres").into_os_string(),
        "-D".into(),
        place.data.clone().into_os_string(),
    ];
    let ours = [
        ("listen_addresses", ""),
        ("port", &PORT.to_string()),
        ("unix_socket_directories", &socket.to_string_lossy()),
        ("unix_socket_permissions", "0700"),
    ];
    for (name, value) in ours.iter().chain(settings) {
        command.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    let mut supervisor = Supervisor::launch(&command, place.account, lock, log)?;
    wait_until_ready(place, &mut supervisor, log_start).await?;
    Ok((supervisor, socket, PORT))
}

/// Waits until the server takes connections; its log from the byte `log_start` on says why not.
async fn wait_until_ready(
    place: &Place,
    supervisor: &mut Supervisor,
    log_start: u64,
) -> Result<(), EmbeddedError> {
    let is_ready =
        || Postmaster::read(&place.data).is_some_and(|found| found.ready && found.accepts());
    let mut ready = false;
    let decided = until(START_DEADLINE, || {
        ready = is_ready();
        ready || supervisor.has_exited()
    })
    .await;
    if ready {
        return Ok(());
    }
    let why = if decided {
        "the server ended".to_owned()
    } else {
        format!("not ready after {} s", START_DEADLINE.as_secs())
    };
    Err(not_started(place, why, log_start))
}

fn not_started(place: &Place, why: String, log_start: u64) -> EmbeddedError {
    EmbeddedError::NotStarted {
        why,
        tail: place::log_tail(&place.log(), log_start, LOG_TAIL_LINES),
        log: place.log(),
    }
}

/// Whether `condition` came true before the deadline.
async fn until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Another process was faster: `duplicate_database`, or a unique violation in the catalog.
fn is_there_already(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("42P04" | "23505"))
}

/// The port is said although it is the default: without it both libraries ask the variable PGPORT.
fn url(socket: &Path, port: u16, database: &str) -> String {
    format!(
        "postgres://{SUPERUSER}@localhost:{port}/{}?host={}",
        percent_encode(database),
        percent_encode(&socket.to_string_lossy())
    )
}

/// Leaves the slash, which a query may hold and a reader likes to see; a `+` must go, being a space
/// to sqlx and a plus to libpq.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
                out.push(byte.into());
            } else {
                // Writing into a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}
