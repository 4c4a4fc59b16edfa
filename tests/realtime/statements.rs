//! The service's statements and sessions: each statement ends, and no setting of a role changes what they do.

use hushnet_realtime::config::{AuthMode, Ingest};
use hushnet_realtime::store::{Purpose, migrate};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::support::{
    Database, Server, User, add_user, execute, insert_message, skips, soon, until,
};

mod pages;
mod user_pages;

const RECONNECTS: &str = "hushnet_listener_reconnects_total";

/// What a role may set against the service, and what its sessions make of it.
const HOSTILE: [(&str, &str, &str); 11] = [
    ("statement_timeout", "300ms", "6s"),
    ("lock_timeout", "1ms", "5s"),
    ("idle_session_timeout", "500ms", "0"),
    ("idle_in_transaction_session_timeout", "1ms", "0"),
    ("synchronous_commit", "off", "on"),
    (
        "default_transaction_isolation",
        "serializable",
        "read committed",
    ),
    ("default_transaction_read_only", "on", "off"),
    ("row_security", "on", "off"),
    ("jit", "on", "off"),
    ("enable_seqscan", "on", "off"),
    ("search_path", "nowhere", "pg_catalog, pg_temp"),
];

/// The same database for a service with a role of its own, which has these attributes.
async fn for_role(database: &Database, attributes: &str) -> (String, Database) {
    let role = format!("t_{}", Uuid::new_v4().simple());
    let create = format!("CREATE ROLE {role} LOGIN {attributes}");
    execute(&mut database.admin().await, &create).await;
    let owner = database.owner();
    let granting = migrate::grant(&owner, &role, Purpose::Serve);
    granting.await.unwrap();
    let own = database.served_by(&role);
    (role, own)
}

async fn until_ready(server: &Server) {
    until("/readyz is green", async || {
        server.get("/readyz").await.json()["status"] == "ready"
    })
    .await;
}

/// The sessions of the service that wait for a lock in this database, each with its statement.
async fn waiting(db: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', pid, query_start, query) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'hushnet-realtime'
               AND wait_event_type = 'Lock' AND state = 'active'",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

#[tokio::test]
async fn no_setting_of_its_role_changes_a_session_of_the_service() {
    let database = Database::migrated().await;
    let (role, own) = for_role(&database, "SUPERUSER").await;
    let mut connection = database.admin().await;
    for (name, hostile, _) in HOSTILE {
        let set = format!("ALTER ROLE {role} SET {name} = '{hostile}'");
        execute(&mut connection, &set).await;
    }
    let log = own.log(1);
    for (name, _, wanted) in HOSTILE {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&log.requests())
            .await
            .unwrap();
        assert_eq!(value, wanted, "{name}");
    }

    let server = Server::start_on(own, |config| config.ingest = Some(Ingest::Adaptive)).await;
    let db = database.admin_pool().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    until(
        "the listener's session has been idle for longer",
        async || {
            let idle: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity
                 WHERE datname = current_database() AND query LIKE 'LISTEN%'
                       AND state_change < clock_timestamp() - interval '2 s')",
            )
            .fetch_one(&db)
            .await
            .unwrap();
            idle || server.metric(RECONNECTS).await >= 1.0
        },
    )
    .await;
    assert!(
        server.metric(RECONNECTS).await < 1.0,
        "its session was ended"
    );
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
}

/// A lock that nothing gets past, held until it is dropped.
async fn lock(database: &Database, tables: &str) -> PgConnection {
    let mut connection = database.connect().await;
    let lock = format!("BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE");
    execute(&mut connection, &lock).await;
    connection
}

#[tokio::test]
async fn every_statement_that_waits_for_a_lock_ends_and_leaves_no_session_waiting() {
    for (tables, statement) in [
        ("realtime.state", "realtime.barrier"),
        ("realtime.state", "WITH reading"),
        ("realtime.events", "WITH reading"),
        ("public.devices", "realtime.devices_of"),
        ("public.messages", "realtime.pending_messages"),
    ] {
        let server = Server::start_with(|config| {
            config.ingest = Some(Ingest::Tail);
            config.identity.auth = AuthMode::None;
        })
        .await;
        let db = server.database().admin_pool().await;
        let bob = add_user(&db).await;
        let mut client = server.connect(bob.id).await;
        let held = lock(server.database(), tables).await;
        let request = async {
            let user = format!("/users/{}/devices", bob.id);
            let device = format!("/messages/pending/{}", bob.device_id);
            tokio::join!(server.get(&user), server.get(&device))
        };
        let seen = async {
            let mut first = Vec::new();
            until(&format!("{statement} waits for {tables}"), async || {
                first = waiting(&db).await;
                first.iter().any(|waits| waits.contains(statement))
            })
            .await;
            until("each that waited has ended", async || {
                let now = waiting(&db).await;
                first.iter().all(|waits| !now.contains(waits))
            })
            .await;
        };
        tokio::join!(request, seen);
        drop(held);
        insert_message(&db, None, &bob, &bob).await;
        client.until_type("message").await;
        until_ready(&server).await;
    }
}

/// The wake lock is wanted no more, or its server has gone: its session must not go on waiting, because events stay
/// silent while it does.
#[tokio::test]
async fn a_session_whose_connection_was_dropped_waits_no_longer() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut writer = database.connect().await;
    execute(&mut writer, "SELECT pg_advisory_lock(7)").await;
    let (_, own) = for_role(&database, "SUPERUSER").await;
    let log = own.log(1);
    let mut waits = Box::pin(async {
        let mut session = log.requests().acquire().await.unwrap();
        execute(
            &mut session,
            "SET statement_timeout = 0; SET lock_timeout = 0",
        )
        .await;
        execute(&mut session, "SELECT pg_advisory_lock(7)").await;
    });
    let is_waiting = async || {
        sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted)",
        )
        .fetch_one(&db)
        .await
        .unwrap()
    };
    tokio::select! {
        () = &mut waits => panic!("the lock was not held"),
        () = until("it waits", is_waiting) => {}
    }
    log.renew();
    drop(waits);
    until("it waits no longer", async || !is_waiting().await).await;
}

#[tokio::test]
async fn a_catch_up_longer_than_the_role_s_statement_timeout_is_made() {
    let database = Database::migrated().await;
    let (role, own) = for_role(&database, "SUPERUSER").await;
    let set = format!("ALTER ROLE {role} SET statement_timeout = '50ms'");
    execute(&mut database.admin().await, &set).await;
    let server = Server::start_on(own, |config| config.ingest = Some(Ingest::Tail)).await;
    let db = database.owner_pool().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    let someone = Uuid::new_v4();
    let many = "INSERT INTO realtime.events (user_id, kind, payload)
        SELECT $1, 'device', json_build_object('type', 'device', 'user_id', $1::uuid)::text
        FROM generate_series(1, 60000)";
    sqlx::query(many).bind(someone).execute(&db).await.unwrap();
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
    assert!(server.metric(RECONNECTS).await < 1.0);
}

/// The sessions of the service in this database.
async fn sessions(db: &PgPool) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'hushnet-realtime'",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

async fn message_comes(server: &Server, db: &PgPool, bob: &User) {
    let mut client = server.connect(bob.id).await;
    insert_message(db, None, bob, bob).await;
    client.until_type("message").await;
}

#[tokio::test]
async fn a_primary_that_takes_no_writes_any_more_is_left_by_every_connection() {
    let server = Server::start_with(|config| config.barrier_interval_ms = 100).await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let before = sessions(&db).await;
    assert!(before.len() >= 2, "the listener's, and one for barriers");
    let mut connection = server.database().connect().await;
    execute(
        &mut connection,
        "ALTER FUNCTION realtime.barrier(text) RENAME TO barrier_of_before;
         CREATE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN RAISE 'cannot execute in a read-only transaction' USING ERRCODE = '25006'; END $$;",
    )
    .await;
    let refused = "hushnet_barriers_failed_total{cause=\"read_only\"}";
    server.until_metric(refused, 1.0).await;
    until("every session is another", async || {
        let now = sessions(&db).await;
        before.iter().all(|pid| !now.contains(pid))
    })
    .await;
    execute(
        &mut connection,
        "DROP FUNCTION realtime.barrier(text);
         ALTER FUNCTION realtime.barrier_of_before(text) RENAME TO barrier;",
    )
    .await;
    until_ready(&server).await;
    message_comes(&server, &db, &bob).await;
}

#[tokio::test]
async fn a_role_without_a_connection_left_is_told_apart_from_an_outage() {
    let test = "a_role_without_a_connection_left_is_told_apart_from_an_outage";
    if skips(
        test,
        "PgBouncer does not pass on why PostgreSQL refuses a login",
    ) {
        return;
    }
    let database = Database::migrated().await;
    let (role, own) = for_role(&database, "").await;
    let mut admin = database.admin().await;
    let server = Server::start_on(own, |config| config.barrier_interval_ms = 100).await;
    let db = database.pool().await;
    let bob = add_user(&db).await;
    execute(&mut admin, &format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
    let end =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    execute(&mut admin, &end).await;

    let refused = "hushnet_barriers_failed_total{cause=\"connections\"}";
    server.until_metric(refused, 1.0).await;
    for reason in ["listener_disconnected", "barrier_failed"] {
        until(&format!("{reason} names the limit"), async || {
            let ready = server.get("/readyz").await.json();
            let reasons = ready["reasons"].as_array().unwrap().clone();
            reasons.iter().any(|found| {
                let detail = found["detail"].as_str().unwrap_or_default();
                found["code"] == reason && detail.ends_with("(53300)")
            })
        })
        .await;
    }

    execute(
        &mut admin,
        &format!("ALTER ROLE {role} CONNECTION LIMIT -1"),
    )
    .await;
    until_ready(&server).await;
    message_comes(&server, &db, &bob).await;
}

#[tokio::test]
async fn a_read_of_state_that_row_security_would_filter_fails() {
    let database = Database::migrated().await;
    let (_, own) = for_role(&database, "").await;
    let protect = "ALTER TABLE devices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY";
    execute(&mut database.connect().await, protect).await;
    let server = Server::start_on(own, |_| {}).await;
    let path = format!("/users/{}/devices", Uuid::new_v4());
    let response = soon("an answer", server.get(&path)).await;
    assert_eq!(response.status, 503, "{}", response.body);
}
