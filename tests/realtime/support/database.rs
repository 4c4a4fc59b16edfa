//! The cluster that all tests share, and a database of each test's own.

use std::path::Path;
use std::sync::OnceLock;

use hushnet_devdb::Cluster;
use hushnet_realtime::store::migrate;
use hushnet_testkit::application;
use hushnet_testkit::database::{self, Template, UNSAFE_SETTINGS};
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

    pub async fn connect(&self) -> PgConnection {
        database::connect(&self.url).await
    }

    pub async fn pool(&self) -> PgPool {
        database::pool(&self.url).await
    }
}
