//! The cluster that all tests share, and a database of each test's own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hushnet_devdb::Cluster;
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::{Log, Purpose, migrate};
use hushnet_testkit::database::{self, Template, UNSAFE_SETTINGS};
use hushnet_testkit::{application, roles};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use super::pooled;

/// `TEST_INGEST=wal`: databases say `wal` instead of `notify`, and servers stream.
fn streams() -> bool {
    std::env::var("TEST_INGEST").is_ok_and(|way| way == "wal")
}

/// May stream the write-ahead log, and nothing else.
pub const REPLICATION: &str = "hushnet_replication";
const LOGICAL_WAL: [(&str, &str); 3] = [
    ("wal_level", "logical"),
    ("max_wal_senders", "40"),
    ("max_replication_slots", "40"),
];

/// The cluster that all tests share. Its server stops with the process.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let mut settings = UNSAFE_SETTINGS.to_vec();
        settings.push(("max_connections", "300"));
        if streams() {
            settings.extend(LOGICAL_WAL);
        }
        database::start_cluster(Path::new(env!("CARGO_TARGET_TMPDIR")), &settings)
    })
}

/// A database of the test's own. It belongs to a role that is no superuser, the service connects as a role that owns
/// nothing, and the application has a role of its own (`hushnet_testkit::roles`).
#[derive(Debug, Clone)]
pub struct Database {
    /// As which the service connects.
    pub url: String,
    admin_url: String,
    has_one_role: bool,
}

impl Database {
    /// The database at an administrator's address, in a cluster that has the roles.
    pub fn of(admin_url: &str) -> Self {
        Self {
            url: pooled::address(roles::url_as(admin_url, roles::SERVICE)),
            admin_url: admin_url.to_owned(),
            has_one_role: false,
        }
    }

    /// The database at this address, in which every session has the role of the address.
    pub fn of_one_role(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            admin_url: url.to_owned(),
            has_one_role: true,
        }
    }

    fn url_as(&self, role: &str) -> String {
        if self.has_one_role {
            self.url.clone()
        } else {
            roles::url_as(&self.admin_url, role)
        }
    }

    /// The same database, to which the service connects as this role.
    pub fn served_by(&self, role: &str) -> Self {
        Self {
            url: pooled::address(self.url_as(role)),
            ..self.clone()
        }
    }

    /// HushNet's tables with HushNet's own triggers, and nothing of the service, which may read what it must then.
    pub async fn hushnet() -> Self {
        static TEMPLATE: Template = Template::new("t_hushnet");
        Self::copied(cluster(), &TEMPLATE).await
    }

    /// A database with nothing in it.
    pub async fn empty() -> Self {
        Self::made("").await
    }

    /// The same, made with these options of CREATE DATABASE.
    pub async fn made(options: &str) -> Self {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let mut admin = database::connect(&cluster().url("postgres")).await;
        roles::create(&mut admin).await;
        let create = format!("CREATE DATABASE {name} OWNER {} {options}", roles::OWNER);
        database::execute(&mut admin, &create).await;
        admin.close().await.unwrap();
        Self::of(&cluster().url(&name))
    }

    async fn copied(cluster: &'static Cluster, template: &'static Template) -> Self {
        let mut admin = database::connect(&cluster.url("postgres")).await;
        roles::create(&mut admin).await;
        admin.close().await.unwrap();
        if streams() {
            let_replicate(cluster).await;
        }
        let copying = template.copy(cluster, Some(roles::OWNER), async |url| {
            Self::of(url).fill().await;
        });
        Self::of(&copying.await)
    }

    async fn fill(&self) {
        let mut owner = self.connect().await;
        application::create_schema(&mut owner).await;
        roles::let_application_write(&mut owner).await;
        roles::let_service_read(&mut owner).await;
        owner.close().await.unwrap();
    }

    /// The same after `migrate up`.
    pub async fn migrated() -> Self {
        let database = Self::hushnet().await;
        database.migrate().await;
        database
    }

    /// The database of this name in a cluster of the test's own, made and after `migrate up`.
    pub async fn made_in(cluster: &Cluster, name: &str) -> Self {
        let mut admin = database::connect(&cluster.url("postgres")).await;
        roles::create(&mut admin).await;
        let owner = roles::OWNER;
        database::execute(&mut admin, &format!("CREATE DATABASE {name} OWNER {owner}")).await;
        admin.close().await.unwrap();
        let database = Self::of(&cluster.url(name));
        database.fill().await;
        database.migrate().await;
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
        Self::migrated_in(CLUSTER.get_or_init(|| apart("prepared", &more)), &TEMPLATE).await
    }

    /// After `migrate up`, in a cluster for a test that leaves many transactions open: they would make the snapshots of
    /// the others long.
    pub async fn with_open_transactions() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        Self::migrated_in(CLUSTER.get_or_init(|| apart("open", &[])), &TEMPLATE).await
    }

    /// After `migrate up`, in a cluster whose notifications no other test has to read.
    pub async fn with_many_notifications() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        Self::migrated_in(CLUSTER.get_or_init(|| apart("burst", &[])), &TEMPLATE).await
    }

    /// Two databases with nothing in them, in a cluster where one may be fed by the other through logical replication.
    pub async fn two_for_replication() -> (Self, Self) {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let settings = [("wal_level", "logical")];
        let cluster = CLUSTER.get_or_init(|| apart("replication", &settings));
        let mut admin = database::connect(&cluster.url("postgres")).await;
        roles::create(&mut admin).await;
        for name in ["publisher", "subscriber"] {
            let create = format!("CREATE DATABASE {name} OWNER {}", roles::OWNER);
            database::execute(&mut admin, &create).await;
        }
        admin.close().await.unwrap();
        (
            Self::of(&cluster.url("publisher")),
            Self::of(&cluster.url("subscriber")),
        )
    }

    /// After `migrate up`, in a cluster from whose write-ahead log rows can be streamed.
    pub async fn with_logical_wal() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TEMPLATE: Template = Template::new("t_hushnet");
        let cluster = CLUSTER.get_or_init(|| apart("wal", &LOGICAL_WAL));
        let_replicate(cluster).await;
        Self::migrated_in(cluster, &TEMPLATE).await
    }

    /// The same, in a cluster of the test's own with these settings besides.
    pub async fn with_logical_wal_and(
        name: &str,
        more: &[(&'static str, &'static str)],
    ) -> (Self, Cluster) {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let settings = [&UNSAFE_SETTINGS, &LOGICAL_WAL[..], more].concat();
        // The later one wins.
        let _ = std::fs::remove_dir_all(&home);
        let cluster = Cluster::start_with(&home, &settings).await.unwrap();
        let_replicate(&cluster).await;
        (Self::made_in(&cluster, "served").await, cluster)
    }

    /// The same where `TEST_INGEST=wal` has every server stream that can.
    pub fn replication_of_all(&self) -> Option<DatabaseUrl> {
        (streams() && !self.has_one_role).then(|| self.replication())
    }

    /// The address of the role that may stream, as the settings have it.
    pub fn replication(&self) -> DatabaseUrl {
        self.url_as(REPLICATION).parse().unwrap()
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
        let database = Self::copied(cluster, &TEMPLATE).await;
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
        Self::copied(cluster, &TEMPLATE).await
    }

    async fn migrated_in(cluster: &'static Cluster, template: &'static Template) -> Self {
        let database = Self::copied(cluster, template).await;
        database.migrate().await;
        database
    }

    /// With the service's migrations up to this one. Before the sixth one the service needs the owner's rights.
    pub async fn migrated_to(version: i64) -> Self {
        let database = Self::hushnet().await;
        database.migrate_to(version).await;
        Self {
            url: pooled::address(database.owner_url()),
            ..database
        }
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

    /// `migrate up` as the owner, and the rights of the service and of the application.
    pub async fn up(&self) {
        migrate::up(&self.owner()).await.unwrap();
        for (role, purpose) in [
            (roles::SERVICE, Purpose::Serve),
            (roles::APPLICATION, Purpose::Backend),
        ] {
            migrate::grant(&self.owner(), role, purpose).await.unwrap();
        }
    }

    /// The same, and the service reads the application's tables no more. Somebody has chosen `notify`.
    async fn migrate(&self) {
        self.up().await;
        database::execute(
            &mut self.connect().await,
            if streams() {
                "SELECT realtime.set_ingest('wal')"
            } else {
                "SELECT realtime.set_ingest('notify')"
            },
        )
        .await;
        let service = roles::SERVICE;
        let revoke = format!("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {service}");
        let mut owner = self.connect().await;
        database::execute(&mut owner, &revoke).await;
        owner.close().await.unwrap();
    }

    /// Ends the session in which the service listens.
    pub async fn end_listener(&self) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
        database::execute(&mut self.admin().await, end).await;
    }

    /// The log as the service reads it, over so many connections for requests.
    pub fn log(&self, requests_max: u32) -> Log {
        let url: DatabaseUrl = self.url.parse().unwrap();
        Log::new(url.options(), requests_max)
    }

    /// The owner's address for the service's program, as the settings have it.
    pub fn owner(&self) -> DatabaseUrl {
        pooled::address(self.owner_url()).parse().unwrap()
    }

    pub fn owner_url(&self) -> String {
        self.url_as(roles::OWNER)
    }

    /// A superuser's address, for what no other role can do.
    pub fn admin_url(&self) -> DatabaseUrl {
        self.admin_url.parse().unwrap()
    }

    /// A session of the owner of the application's tables and of the log.
    pub async fn connect(&self) -> PgConnection {
        database::connect(&self.owner_url()).await
    }

    /// Sessions of the same.
    pub async fn owner_pool(&self) -> PgPool {
        database::pool(&self.owner_url()).await
    }

    /// So many sessions of the application.
    pub async fn pool_of(&self, connections: usize) -> PgPool {
        let options = PgPoolOptions::new().max_connections(u32::try_from(connections).unwrap());
        let url = self.url_as(roles::APPLICATION);
        options.connect(&url).await.unwrap()
    }

    /// Sessions of the application.
    pub async fn pool(&self) -> PgPool {
        database::pool(&self.url_as(roles::APPLICATION)).await
    }

    /// Sessions of a superuser, who sees what other roles' sessions do.
    pub async fn admin_pool(&self) -> PgPool {
        database::pool(&self.admin_url).await
    }

    /// A session of a superuser, for what no other role can do.
    pub async fn admin(&self) -> PgConnection {
        database::connect(&self.admin_url).await
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

/// Makes the role that may stream.
async fn let_replicate(cluster: &Cluster) {
    let create = format!(
        "DO $$ BEGIN
             PERFORM pg_advisory_xact_lock(hashtext('roles'));
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{REPLICATION}') THEN
                 CREATE ROLE {REPLICATION} LOGIN REPLICATION;
             END IF;
         END $$"
    );
    let mut admin = database::connect(&cluster.url("postgres")).await;
    database::execute(&mut admin, &create).await;
}

/// A cluster beside the one that all tests share.
fn apart(name: &str, more: &[(&'static str, &'static str)]) -> Cluster {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&home).unwrap();
    let streaming: &[_] = if streams() { &LOGICAL_WAL } else { &[] };
    database::start_cluster(&home, &[&UNSAFE_SETTINGS, streaming, more].concat())
}
