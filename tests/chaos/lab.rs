//! A private PostgreSQL that may be killed, a database on it, and the link that leads to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use hushnet_devdb::{Cluster, ClusterError};
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::{Purpose, migrate};
use hushnet_testkit::database::connect;
pub use hushnet_testkit::database::execute;
use hushnet_testkit::wait::until;
use hushnet_testkit::{application, roles, standby};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::proxy::Proxy;
use crate::settings;

/// `synchronous_commit` stays on: a commit has been handed to the operating system when it returns,
/// so that killing PostgreSQL loses none.
fn settings_of_cluster() -> [(&'static str, &'static str); 4] {
    let wal_level = match settings::ingest().as_str() {
        "wal" => "logical",
        _ => "replica",
    };
    [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("max_connections", "200"),
        ("wal_level", wal_level),
    ]
}

const DATABASE: &str = "chaos";
/// A kind of the application's own, whose events are from another table.
const ORDERS: &str = "CREATE TABLE public.orders (chat_id uuid PRIMARY KEY, user_id uuid);
    SELECT realtime.add_source('order', 'public.orders', 'user_id', '{insert}')";
/// A standby's directory in its primary's.
const STANDBY: &str = "standby";
/// The numbers of the clusters that scenarios of this process use. Clusters are kept from run to run.
static IN_USE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// The signal that ends PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGINT: open transactions are rolled back.
    Fast,
    /// SIGQUIT: as in a crash.
    Immediate,
}

/// The use of a directory for a cluster, which no other scenario of this process has meanwhile.
#[derive(Debug)]
struct DirectoryPermit {
    number: usize,
}

impl DirectoryPermit {
    fn take() -> Self {
        let mut in_use = IN_USE.lock().unwrap();
        // One more number than there are in use: one of them is free.
        let number = (0..=in_use.len()).find(|n| !in_use.contains(n)).unwrap();
        in_use.push(number);
        Self { number }
    }

    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", self.number))
    }
}

impl Drop for DirectoryPermit {
    fn drop(&mut self) {
        IN_USE.lock().unwrap().retain(|n| *n != self.number);
    }
}

/// PostgreSQL, and the proxies through which the service and the application reach it.
#[derive(Debug)]
pub struct Lab {
    /// The service's proxy.
    pub proxy: Proxy,
    /// The application's proxy, which is never cut.
    application: Proxy,
    /// A proxy for each of many nodes.
    pub links: Vec<Proxy>,
    cluster: Option<Cluster>,
    directory: PathBuf,
    permit: DirectoryPermit,
}

impl Lab {
    /// Starts PostgreSQL with a migrated database without rows.
    pub async fn open() -> Self {
        let lab = Self::with_database("").await;
        let mut database = lab.database().await;
        application::create_schema(&mut database).await;
        // Each message has a chat_id of its own, for which there is no chat.
        execute(
            &mut database,
            "ALTER TABLE messages DROP CONSTRAINT messages_chat_id_fkey",
        )
        .await;
        let url: DatabaseUrl = lab.cluster().url(DATABASE).parse().unwrap();
        migrate::up(&url).await.unwrap();
        execute(&mut database, ORDERS).await;
        lab.set_ingest(&mut database).await;
        lab
    }

    /// Starts PostgreSQL with a database that has the log and no table, and belongs to the role of docs/operations.md. The
    /// service has its rights.
    pub async fn bare() -> Self {
        let lab = Self::with_database(&format!("OWNER {}", roles::OWNER)).await;
        let url = lab.owner_url().parse().unwrap();
        migrate::up(&url).await.unwrap();
        migrate::grant(&url, roles::SERVICE, Purpose::Serve)
            .await
            .unwrap();
        lab.set_ingest(&mut lab.database().await).await;
        lab
    }

    async fn set_ingest(&self, database: &mut PgConnection) {
        let ingest = settings::ingest();
        let set = format!("SELECT realtime.set_ingest('{ingest}')");
        execute(database, &set).await;
    }

    async fn with_database(options: &str) -> Self {
        let permit = DirectoryPermit::take();
        let directory = permit.directory();
        // A run that failed may have left it.
        let _ = fs::remove_dir_all(directory.join(STANDBY));
        let cluster = start(&directory).await;
        let lab = Self {
            proxy: Proxy::start(socket(&cluster)).await,
            application: Proxy::start(socket(&cluster)).await,
            links: Vec::new(),
            cluster: Some(cluster),
            directory,
            permit,
        };
        let mut admin = lab.admin("postgres").await;
        roles::create(&mut admin).await;
        for statement in [
            format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"),
            format!("CREATE DATABASE {DATABASE} TEMPLATE template0 {options}"),
        ] {
            execute(&mut admin, &statement).await;
        }
        lab
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    /// The database's address for the service.
    pub fn url(&self) -> String {
        url(&self.proxy)
    }

    /// Makes so many links, one for each node.
    pub async fn link(&mut self, nodes: usize) {
        for _ in 0..nodes {
            let link = Proxy::start(socket(self.cluster())).await;
            self.links.push(link);
        }
    }

    /// The database's address over a node's own link.
    pub fn url_over(&self, link: usize) -> String {
        url(&self.links[link])
    }

    /// The same for a role.
    pub fn url_as(&self, role: &str) -> String {
        roles::url_as(&self.url(), role)
    }

    /// The address for a service that streams: as the role that owns the cluster.
    pub fn replication_url(database_url: &str) -> Option<String> {
        (settings::ingest() == "wal").then(|| roles::url_as(database_url, "hushnet"))
    }

    /// The direct address of the database for its owner.
    pub fn owner_url(&self) -> String {
        roles::url_as(&self.cluster().url(DATABASE), roles::OWNER)
    }

    /// The database's address for the application.
    pub fn options(&self) -> PgConnectOptions {
        url(&self.application).parse().unwrap()
    }

    /// A direct connection, for the faults and the checks.
    pub async fn database(&self) -> PgConnection {
        self.admin(DATABASE).await
    }

    async fn admin(&self, database: &str) -> PgConnection {
        connect(&self.cluster().url(database)).await
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
        let cluster = Cluster::start_with(&self.directory, &settings_of_cluster())
            .await
            .unwrap();
        self.begin_with(cluster);
    }

    fn begin_with(&mut self, cluster: Cluster) {
        self.proxy.lead_to(socket(&cluster));
        self.application.lead_to(socket(&cluster));
        for link in &self.links {
            link.lead_to(socket(&cluster));
        }
        self.cluster = Some(cluster);
    }

    fn postmaster(&self) -> i32 {
        let text = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    /// An asynchronous standby.
    pub async fn standby(&self) -> Cluster {
        let url = self.cluster().url("postgres");
        let home = self.directory.join(STANDBY);
        standby::start(&self.directory, &url, &home, &settings_of_cluster()).await
    }

    /// Waits until the standby has everything, ends the primary and promotes the standby.
    pub async fn fail_over_to(&mut self, standby: Cluster) {
        let mut primary = self.database().await;
        let written: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text")
            .fetch_one(&mut primary)
            .await
            .unwrap();
        primary.close().await.unwrap();
        let mut replica = connect(&standby.url(DATABASE)).await;
        until_true(
            &mut replica,
            &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'"),
        )
        .await;
        self.stop(Shutdown::Fast).await;
        self.promote(replica, standby).await;
    }

    /// The standby gets nothing more.
    pub async fn cut_off(&self, standby: &Cluster) {
        let mut replica = connect(&standby.url(DATABASE)).await;
        execute(&mut replica, "ALTER SYSTEM SET primary_conninfo = ''").await;
        execute(&mut replica, "SELECT pg_reload_conf()").await;
        let none = "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)";
        until_true(&mut replica, none).await;
    }

    /// Ends the primary as a crash does, and promotes the standby with what it has.
    pub async fn crash_over_to(&mut self, standby: Cluster) {
        let replica = connect(&standby.url(DATABASE)).await;
        self.stop(Shutdown::Immediate).await;
        self.promote(replica, standby).await;
    }

    async fn promote(&mut self, mut replica: PgConnection, standby: Cluster) {
        execute(&mut replica, "SELECT pg_promote()").await;
        until_true(&mut replica, "SELECT NOT pg_is_in_recovery()").await;
        self.directory.push(STANDBY);
        self.begin_with(standby);
    }

    pub async fn close(mut self) {
        self.cluster.take().unwrap().stop().await.unwrap();
        let _ = fs::remove_dir_all(self.permit.directory().join(STANDBY));
    }
}

/// Starts the cluster. One that a run with another version of PostgreSQL has left is made anew.
async fn start(directory: &Path) -> Cluster {
    let started = Cluster::start_with(directory, &settings_of_cluster()).await;
    let Err(ClusterError::OtherVersion { data, .. }) = started else {
        return started.unwrap();
    };
    fs::remove_dir_all(data).unwrap();
    Cluster::start_with(directory, &settings_of_cluster())
        .await
        .unwrap()
}

fn url(proxy: &Proxy) -> String {
    format!(
        "postgres://hushnet@127.0.0.1:{}/{DATABASE}?sslmode=disable",
        proxy.port()
    )
}

/// The socket on which a cluster listens.
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

async fn until_true(connection: &mut PgConnection, query: &str) {
    until(query, async || {
        let holds = sqlx::query_scalar(AssertSqlSafe(query));
        holds.fetch_one(&mut *connection).await.unwrap_or(false)
    })
    .await;
}

/// The backend of the connection on which the service listens, as soon as there is one.
pub async fn listening_backend(connection: &mut PgConnection) -> i32 {
    let mut found = None;
    until("the service listens", async || {
        let looking = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'hushnet-realtime' AND query LIKE 'LISTEN%'
             ORDER BY backend_start DESC LIMIT 1",
        );
        found = looking.fetch_optional(&mut *connection).await.unwrap();
        found.is_some()
    })
    .await;
    found.unwrap()
}
