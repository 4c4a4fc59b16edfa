//! The cluster that all tests share, and a database of each test's own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hushnet_devdb::Cluster;
use hushnet_realtime::store::migrate;
use hushnet_testkit::application;
use hushnet_testkit::database::{self, Template, UNSAFE_SETTINGS};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

/// The cluster that all tests share. Its server stops with the process.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let mut settings = UNSAFE_SETTINGS.to_vec();
        settings.push(("max_connections", "300"));
        database::start_cluster(Path::new(env!("CARGO_TARGET_TMPDIR")), &settings)
    })
}

/// A database of the test's own.
#[derive(Debug, Clone)]
pub struct Database {
    pub url: String,
}

impl Database {
    /// HushNet's tables with HushNet's own triggers, and nothing of the service.
    pub async fn hushnet() -> Self {
        static TEMPLATE: Template = Template::new("t_hushnet");
        Self::copied_before(cluster(), &TEMPLATE).await
    }

    /// The same after `migrate up`.
    pub async fn migrated() -> Self {
        let database = Self::hushnet().await;
        migrate::up(&database.url.parse().unwrap()).await.unwrap();
        database
    }

    /// The same in a cluster that allows prepared transactions. They run in every snapshot of their cluster, so
    /// the other tests have another one.
    pub async fn with_prepared_transactions() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        let more = [
            ("max_connections", "200"),
            ("max_prepared_transactions", "50"),
        ];
        Self::copied(CLUSTER.get_or_init(|| apart("prepared", &more)), &TEMPLATE).await
    }

    /// After `migrate up`, in a cluster for a test that leaves many transactions open: they would make the snapshots of
    /// the others long.
    pub async fn with_open_transactions() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        Self::copied(CLUSTER.get_or_init(|| apart("open", &[])), &TEMPLATE).await
    }

    /// After `migrate up`, in this cluster.
    async fn copied(cluster: &'static Cluster, template: &'static Template) -> Self {
        let copying = template.copy(cluster, async |url| {
            let mut connection = database::connect(url).await;
            application::create_schema(&mut connection).await;
            connection.close().await.unwrap();
            migrate::up(&url.parse().unwrap()).await.unwrap();
        });
        Self { url: copying.await }
    }

    /// After `migrate up`, in a cluster whose notifications no other test has to read.
    pub async fn with_many_notifications() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        Self::copied(CLUSTER.get_or_init(|| apart("burst", &[])), &TEMPLATE).await
    }

    /// HushNet's tables, in a cluster that writes every statement to its log.
    pub async fn with_statements_logged() -> (Self, StatementLog) {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        let more = [
            ("log_statement", "all"),
            ("log_line_prefix", "%d %a %p "),
            ("max_prepared_transactions", "20"),
        ];
        let cluster = CLUSTER.get_or_init(|| apart(StatementLog::CLUSTER, &more));
        let database = Self::copied_before(cluster, &TEMPLATE).await;
        let log = StatementLog::of(&database);
        (database, log)
    }

    /// HushNet's tables, in a cluster with PostgreSQL's own settings: what is committed is flushed.
    pub async fn as_delivered() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        let cluster = CLUSTER.get_or_init(|| {
            let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("as_delivered");
            std::fs::create_dir_all(&home).unwrap();
            database::start_cluster(&home, &[])
        });
        Self::copied_before(cluster, &TEMPLATE).await
    }

    /// Before `migrate up`, in this cluster.
    async fn copied_before(cluster: &'static Cluster, template: &'static Template) -> Self {
        let copying = template.copy(cluster, async |url| {
            let mut connection = database::connect(url).await;
            application::create_schema(&mut connection).await;
            connection.close().await.unwrap();
        });
        Self { url: copying.await }
    }

    /// With the service's migrations up to this one.
    pub async fn migrated_to(version: i64) -> Self {
        let database = Self::hushnet().await;
        database.migrate_to(version).await;
        database
    }

    /// Applies the service's migrations up to this one, as programs of before did.
    pub async fn migrate_to(&self, version: i64) {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/realtime");
        let mut migrator = Migrator::new(migrations).await.unwrap();
        migrator.create_schema("realtime");
        migrator.dangerous_set_table_name("realtime._sqlx_migrations");
        let mut connection = self.connect().await;
        migrator
            .run_direct(Some(version), &mut connection, false)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    pub async fn connect(&self) -> PgConnection {
        database::connect(&self.url).await
    }

    /// A pool of so many connections.
    pub async fn pool_of(&self, connections: usize) -> PgPool {
        let options = PgPoolOptions::new().max_connections(u32::try_from(connections).unwrap());
        options.connect(&self.url).await.unwrap()
    }

    pub async fn pool(&self) -> PgPool {
        database::pool(&self.url).await
    }
}

/// The statements that the service's sessions have sent to one database, from PostgreSQL's log.
pub struct StatementLog {
    path: PathBuf,
    prefix: String,
}

impl StatementLog {
    const CLUSTER: &str = "statements";

    fn of(database: &Database) -> Self {
        let options: PgConnectOptions = database.url.parse().unwrap();
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Self::CLUSTER);
        let directory = format!("postgresql-{}", std::process::id());
        Self {
            path: home.join(directory).join("postgres.log"),
            prefix: format!("{} hushnet-realtime ", options.get_database().unwrap()),
        }
    }

    /// Each as it was sent, and errors as `ERROR: …`, in the order in which they came.
    pub fn statements(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let mut found: Vec<String> = Vec::new();
        let mut is_ours = false;
        for line in text.lines() {
            if let (true, Some(rest)) = (is_ours, line.strip_prefix('\t')) {
                let last = found.last_mut().unwrap();
                *last = format!("{last} {}", rest.trim());
                continue;
            }
            let rest = line.strip_prefix(&self.prefix);
            let statement = rest.and_then(|rest| {
                let (_, text) = rest.split_once(' ')?;
                if text.starts_with("ERROR:") {
                    return Some(text);
                }
                let text = text.strip_prefix("LOG:  ")?;
                let (kind, statement) = text.split_once(": ")?;
                (kind == "statement" || kind.starts_with("execute")).then_some(statement)
            });
            is_ours = statement.is_some();
            found.extend(statement.map(|text| text.trim().to_owned()));
        }
        found
    }
}

/// A cluster beside the one that all tests share.
fn apart(name: &str, more: &[(&'static str, &'static str)]) -> Cluster {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&home).unwrap();
    database::start_cluster(&home, &[&UNSAFE_SETTINGS, more].concat())
}
