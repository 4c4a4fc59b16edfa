//! PgBouncer before one database, of a test about it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hushnet_testkit::program::{self, Program};
use hushnet_testkit::wait::until;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use super::database::Database;

/// Part of the socket's file name only: it listens on no network.
pub(super) const PORT: u16 = 6432;
/// Debian's place for it, which is on no user's path but root's.
const SYSTEM_PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A PgBouncer with one database; killed when dropped.
pub struct Pooler {
    program: Program,
    directory: tempfile::TempDir,
    behind: PgConnectOptions,
    settings: String,
}

impl Pooler {
    /// Starts it before this database with this mode, and with other settings as lines of its configuration.
    pub async fn start(database: &Database, mode: &str, settings: &str) -> Self {
        let behind: PgConnectOptions = database.url.parse().unwrap();
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let configuration = directory.path().join("pgbouncer.ini");
        write(&configuration, &behind, mode, settings);
        let mut command = program::command(pgbouncer());
        command.arg("--quiet").arg(&configuration);
        // It refuses to run as root, and only its own user and root may connect to the cluster.
        let owner = fs::metadata(behind.get_socket().unwrap()).unwrap();
        if fs::metadata("/proc/self").unwrap().uid() != owner.uid() {
            chown(directory.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        let program = Program::start(&mut command);
        let socket = directory.path().join(format!(".s.PGSQL.{PORT}"));
        until("PgBouncer listens", async || {
            UnixStream::connect(&socket).is_ok()
        })
        .await;
        Self {
            program,
            directory,
            behind,
            settings: settings.to_owned(),
        }
    }

    /// Changes the mode while it runs.
    pub async fn change_mode(&self, mode: &str) {
        let configuration: PathBuf = self.directory.path().join("pgbouncer.ini");
        write(&configuration, &self.behind, mode, &self.settings);
        self.program.signal("HUP").await;
    }

    /// A session of the application, through the pooler.
    pub async fn connect(&self) -> PgConnection {
        let options: PgConnectOptions = self.database().url.parse().unwrap();
        let connecting = options.extra_float_digits(None).connect().await;
        connecting.unwrap()
    }

    /// The database through the pooler.
    pub fn database(&self) -> Database {
        let directory = self.directory.path().display();
        let name = self.behind.get_database().unwrap();
        Database::of(&format!(
            "postgres://hushnet@localhost:{PORT}/{name}?host={directory}"
        ))
    }
}

/// PgBouncer's program.
pub(super) fn pgbouncer() -> &'static str {
    if Path::new(SYSTEM_PROGRAM).exists() {
        SYSTEM_PROGRAM
    } else {
        "pgbouncer"
    }
}

fn write(configuration: &Path, behind: &PgConnectOptions, mode: &str, settings: &str) {
    let directory = configuration.parent().unwrap().display();
    let user = behind.get_username();
    let (name, port) = (behind.get_database().unwrap(), behind.get_port());
    let host = behind.get_socket().unwrap().display();
    let text = format!(
        "[databases]
         {name} = host={host} port={port} user={user}
         [pgbouncer]
         listen_addr =
         listen_port = {PORT}
         unix_socket_dir = {directory}
         logfile = {directory}/pgbouncer.log
         auth_type = any
         pool_mode = {mode}
         {settings}"
    );
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    fs::write(configuration, lines.join("\n") + "\n").unwrap();
}
