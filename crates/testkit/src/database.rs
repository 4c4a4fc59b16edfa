//! PostgreSQL clusters, connections, and databases that are copied from a template.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hushnet_devdb::Cluster;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Settings of a cluster whose data are thrown away: nothing is flushed.
pub const UNSAFE_SETTINGS: [(&str, &str); 3] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
];

/// Starts a cluster for all tests of this process, and removes those of processes that have ended.
/// May be called inside a runtime. The server stops with the process, if the cluster is in a static.
#[must_use]
pub fn start_cluster(home: &Path, settings: &[(&str, &str)]) -> Cluster {
    remove_clusters_of_ended_processes(home);
    let directory = cluster_directory(home, std::process::id());
    let starting = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(Cluster::start_with(&directory, settings))
    };
    // On a thread of its own, because a runtime cannot block inside another runtime.
    std::thread::scope(|scope| scope.spawn(starting).join().unwrap().unwrap())
}

fn cluster_directory(home: &Path, process: u32) -> PathBuf {
    home.join(format!("postgresql-{process}"))
}

fn remove_clusters_of_ended_processes(home: &Path) {
    for entry in fs::read_dir(home).unwrap() {
        let path = entry.unwrap().path();
        let process = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("postgresql-"));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another process may be removing it too.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Connects to the database at this address.
pub async fn connect(url: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(url).unwrap();
    options.connect().await.unwrap()
}

/// A pool of connections to the database at this address.
pub async fn pool(url: &str) -> PgPool {
    PgPool::connect(url).await.unwrap()
}

/// Executes statements without parameters.
pub async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .unwrap();
}

/// A database that is filled once in this process and then copied for each test. For a static.
#[derive(Debug)]
pub struct Template {
    name: &'static str,
    filled: OnceCell<()>,
}

impl Template {
    /// The template `name`, which is not made before the first copy.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            filled: OnceCell::const_new(),
        }
    }

    /// Returns the address of a new copy that belongs to the role `owner`, or to the administrator. `fill` is called
    /// once, with the template's address, and must leave no connection to it: PostgreSQL does not copy a database
    /// that is in use.
    pub async fn copy(
        &self,
        cluster: &Cluster,
        owner: Option<&str>,
        fill: impl AsyncFnOnce(&str),
    ) -> String {
        let mut admin = connect(&cluster.url("postgres")).await;
        let template = self.name;
        let belonging = owner.map_or(String::new(), |owner| format!("OWNER {owner}"));
        self.filled
            .get_or_init(async || {
                let mut admin = connect(&cluster.url("postgres")).await;
                execute(
                    &mut admin,
                    &format!("CREATE DATABASE {template} {belonging}"),
                )
                .await;
                fill(&cluster.url(template)).await;
                admin.close().await.unwrap();
            })
            .await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        execute(
            &mut admin,
            &format!("CREATE DATABASE {name} TEMPLATE {template} {belonging}"),
        )
        .await;
        admin.close().await.unwrap();
        cluster.url(&name)
    }
}
