//! The cluster that all tests share, and a database of each test's own.

use std::path::Path;
use std::sync::OnceLock;

use hushnet_devdb::Cluster;
use hushnet_realtime::store::migrate;
use hushnet_testkit::application;
use hushnet_testkit::database::{self, Template, UNSAFE_SETTINGS};
use sqlx::migrate::Migrator;
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
        let copying = TEMPLATE.copy(cluster(), async |url| {
            let mut connection = database::connect(url).await;
            application::create_schema(&mut connection).await;
            connection.close().await.unwrap();
        });
        Self { url: copying.await }
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

    /// With the service's migrations up to this one.
    pub async fn migrated_to(version: i64) -> Self {
        let database = Self::hushnet().await;
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/realtime");
        let mut migrator = Migrator::new(migrations).await.unwrap();
        migrator.create_schema("realtime");
        migrator.dangerous_set_table_name("realtime._sqlx_migrations");
        let mut connection = database.connect().await;
        migrator
            .run_direct(Some(version), &mut connection, false)
            .await
            .unwrap();
        connection.close().await.unwrap();
        database
    }

    pub async fn connect(&self) -> PgConnection {
        database::connect(&self.url).await
    }

    pub async fn pool(&self) -> PgPool {
        database::pool(&self.url).await
    }
}

/// A cluster beside the one that all tests share.
fn apart(name: &str, more: &[(&'static str, &'static str)]) -> Cluster {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&home).unwrap();
    database::start_cluster(&home, &[&UNSAFE_SETTINGS, more].concat())
}
