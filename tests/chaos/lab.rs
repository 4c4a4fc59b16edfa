//! A private PostgreSQL that may be killed, a database on it, and the link that leads to it.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use hushnet_devdb::Cluster;
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::migrate;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::proxy::Proxy;
use crate::settings;

/// A commit is with the operating system when it returns, so that killing PostgreSQL loses none.
const SETTINGS: [(&str, &str); 3] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "200"),
];
const DATABASE: &str = "chaos";
/// A standby's directory in its primary's.
const STANDBY: &str = "standby";
/// Clusters are kept from run to run; these are in use.
static IN_USE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// How PostgreSQL is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGINT: open transactions are rolled back.
    Fast,
    /// SIGQUIT: as in a crash.
    Immediate,
}

/// A directory for a cluster that no other scenario of this process uses.
#[derive(Debug)]
struct Place {
    number: usize,
}

impl Place {
    fn take() -> Self {
        let mut in_use = IN_USE.lock().unwrap();
        // One of so many is free.
        let number = (0..=in_use.len()).find(|n| !in_use.contains(n)).unwrap();
        in_use.push(number);
        Self { number }
    }

    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", self.number))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        IN_USE.lock().unwrap().retain(|n| *n != self.number);
    }
}

/// PostgreSQL, and the service's way to it.
#[derive(Debug)]
pub struct Lab {
    /// The service's way.
    pub proxy: Proxy,
    /// The application's way, which is never cut.
    application: Proxy,
    cluster: Option<Cluster>,
    directory: PathBuf,
    place: Place,
}

impl Lab {
    /// With a migrated database that is empty.
    pub async fn open() -> Self {
        let place = Place::take();
        let directory = place.directory();
        // What a run that failed has left.
        let _ = fs::remove_dir_all(directory.join(STANDBY));
        let cluster = Cluster::start_with(&directory, &SETTINGS).await.unwrap();
        let lab = Self {
            proxy: Proxy::start(socket(&cluster)).await,
            application: Proxy::start(socket(&cluster)).await,
            cluster: Some(cluster),
            directory,
            place,
        };
        let mut admin = lab.admin("postgres").await;
        for statement in [
            format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"),
            format!("CREATE DATABASE {DATABASE} TEMPLATE template0"),
        ] {
            execute(&mut admin, &statement).await;
        }
        let mut database = lab.admin(DATABASE).await;
        for statements in [
            include_str!("../../sql/hushnet/schema.sql"),
            include_str!("../../sql/hushnet/triggers.sql"),
            // Each message gets a chat_id of its own, which needs no chat.
            "ALTER TABLE messages DROP CONSTRAINT messages_chat_id_fkey",
        ] {
            execute(&mut database, statements).await;
        }
        let url: DatabaseUrl = lab.cluster().url(DATABASE).parse().unwrap();
        migrate::up(&url).await.unwrap();
        let ingest = settings::ingest();
        execute(
            &mut database,
            &format!("UPDATE realtime.state SET ingest = '{ingest}'"),
        )
        .await;
        lab
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    /// The service's address of the database.
    pub fn url(&self) -> String {
        url(&self.proxy)
    }

    /// The application's address of the same.
    pub fn options(&self) -> PgConnectOptions {
        url(&self.application).parse().unwrap()
    }

    /// A connection to look and to meddle with.
    pub async fn database(&self) -> PgConnection {
        self.admin(DATABASE).await
    }

    async fn admin(&self, database: &str) -> PgConnection {
        let options: PgConnectOptions = self.cluster().url(database).parse().unwrap();
        options.connect().await.unwrap()
    }

    /// Ends PostgreSQL.
    pub async fn stop(&mut self, how: Shutdown) {
        let cluster = self.cluster.take().unwrap();
        if how == Shutdown::Immediate {
            signal("QUIT", self.postmaster());
        }
        cluster.stop().await.unwrap();
    }

    pub async fn start(&mut self) {
        let cluster = Cluster::start_with(&self.directory, &SETTINGS)
            .await
            .unwrap();
        self.begin_with(cluster);
    }

    fn begin_with(&mut self, cluster: Cluster) {
        self.proxy.lead_to(socket(&cluster));
        self.application.lead_to(socket(&cluster));
        self.cluster = Some(cluster);
    }

    fn postmaster(&self) -> i32 {
        let text = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    /// A standby that follows as fast as it can, for nobody waits for it.
    pub async fn standby(&self) -> Cluster {
        let primary = fs::metadata(fs::canonicalize(self.directory.join("data")).unwrap()).unwrap();
        let home = self.directory.join(STANDBY);
        fs::create_dir_all(&home).unwrap();
        chown(&home, Some(primary.uid()), Some(primary.gid())).unwrap();
        let programs = fs::read_link(format!("/proc/{}/exe", self.postmaster())).unwrap();
        let mut command = Command::new(programs.with_file_name("pg_basebackup"));
        command
            .current_dir("/")
            .args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync"])
            .arg("--pgdata")
            .arg(home.join("data"))
            .arg("--dbname")
            .arg(self.cluster().url("postgres"));
        if fs::metadata("/proc/self").unwrap().uid() != primary.uid() {
            command.uid(primary.uid()).gid(primary.gid());
        }
        let copying = tokio::process::Command::from(command).output();
        let output = copying.await.unwrap();
        assert!(output.status.success(), "{output:?}");
        Cluster::start_with(&home, &SETTINGS).await.unwrap()
    }

    /// Waits until the standby has everything, ends the primary and promotes the standby.
    pub async fn fail_over_to(&mut self, standby: Cluster) {
        let mut primary = self.database().await;
        let written: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text")
            .fetch_one(&mut primary)
            .await
            .unwrap();
        primary.close().await.unwrap();
        let options: PgConnectOptions = standby.url(DATABASE).parse().unwrap();
        let mut replica = options.connect().await.unwrap();
        until_true(
            &mut replica,
            &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"),
        )
        .await;
        self.stop(Shutdown::Fast).await;
        execute(&mut replica, "SELECT pg_promote()").await;
        until_true(&mut replica, "SELECT NOT pg_is_in_recovery()").await;
        self.directory.push(STANDBY);
        self.begin_with(standby);
    }

    pub async fn close(mut self) {
        self.cluster.take().unwrap().stop().await.unwrap();
        let _ = fs::remove_dir_all(self.place.directory().join(STANDBY));
    }
}

fn url(way: &Proxy) -> String {
    format!(
        "postgres://hushnet@127.0.0.1:{}/{DATABASE}?sslmode=disable",
        way.port()
    )
}

/// Where a cluster listens.
fn socket(cluster: &Cluster) -> PathBuf {
    let options: PgConnectOptions = cluster.url(DATABASE).parse().unwrap();
    let directory = options.get_socket().unwrap();
    directory.join(format!(".s.PGSQL.{}", options.get_port()))
}

pub fn signal(name: &str, process: i32) {
    let status = Command::new("/bin/kill")
        .args(["-s", name, &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "no process {process} to send {name} to");
}

pub async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .unwrap();
}

async fn until_true(connection: &mut PgConnection, query: &str) {
    let looking = async {
        while !sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut *connection)
            .await
            .unwrap_or(false)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), looking).await;
    assert!(found.is_ok(), "still not so: {query}");
}

/// The backend that the service listens on, as soon as there is one.
pub async fn listening_backend(connection: &mut PgConnection) -> i32 {
    loop {
        let found = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'hushnet-realtime' AND query LIKE 'LISTEN%'
             ORDER BY backend_start DESC LIMIT 1",
        )
        .fetch_optional(&mut *connection)
        .await
        .unwrap();
        if let Some(found) = found {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
