//! The service behind PgBouncer: in session mode it serves, in the other modes it stays up, says so and leaves nothing
//! in the sessions of others.

use hushnet_realtime::store::migrate;
use hushnet_testkit::roles::OWNER;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::support::{Database, Pooler, Server, add_user, execute, insert_message, until};

const RECONNECTS: &str = "hushnet_listener_reconnects_total";
const REFUSED: &str = "hushnet_barriers_failed_total{cause=\"pooler\"}";
/// Connections of the pooler to PostgreSQL.
const CONNECTIONS: usize = 4;

async fn until_red(server: &Server) {
    until("/readyz says pooler", async || {
        let ready = server.get("/readyz").await;
        let body = ready.json();
        let reasons = body["reasons"].as_array().unwrap();
        ready.status == 503 && body["error"]["code"] == "pooler" && reasons.len() == 1
    })
    .await;
}

async fn until_green(server: &Server) {
    until("/readyz is green", async || {
        server.get("/readyz").await.json()["status"] == "ready"
    })
    .await;
}

/// One value as text, over the simple protocol.
async fn ask(connection: &mut PgConnection, statement: &str) -> String {
    let asked = sqlx::raw_sql(AssertSqlSafe(statement));
    let row = asked.fetch_one(connection).await.unwrap();
    row.get(0)
}

/// What sessions of the application find on each of the pooler's connections: settings of the session, channels that
/// are listened on, prepared statements, and locks; and apart from these the values of probes.
async fn found_by_application(pooler: &Pooler) -> (Vec<String>, Vec<String>) {
    let mut sessions = Vec::new();
    // Each takes a connection and keeps it.
    for _ in 0..CONNECTIONS {
        let mut session = pooler.connect().await;
        execute(&mut session, "BEGIN").await;
        sessions.push(session);
    }
    let (mut found, mut probes) = (Vec::new(), Vec::new());
    for session in &mut sessions {
        // Those that every client of the pooler has set for it at the start.
        let statement = "SELECT concat_ws(' ',
            (SELECT string_agg(name, ',') FROM pg_settings WHERE source = 'session' AND name NOT IN
                ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')),
            (SELECT string_agg(channel, ',') FROM pg_listening_channels() AS channel),
            (SELECT string_agg(statement, ',') FROM pg_prepared_statements),
            (SELECT string_agg(locktype, ',') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'))";
        found.push(ask(session, statement).await);
        let value = "SELECT coalesce(current_setting('hushnet_realtime.probe', true), '')";
        probes.push(ask(session, value).await);
    }
    (found, probes)
}

#[tokio::test]
async fn in_session_mode_events_come_and_a_lost_listener_comes_back() {
    let database = Database::migrated().await;
    let pooler = Pooler::start(&database, "session", "").await;
    let server = Server::start_on(pooler.database(), |_| {}).await;
    let db = database.pool().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
    database.end_listener().await;
    server.until_metric(RECONNECTS, 1.0).await;
    until_green(&server).await;
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
}

/// `server_round_robin`: the pooler gives its oldest free connection first, not the newest.
#[tokio::test]
async fn in_other_modes_the_service_stays_up_red_and_leaves_nothing_behind() {
    for (mode, settings) in [
        ("transaction", ""),
        ("transaction", "server_round_robin = 1"),
        (
            "transaction",
            "ignore_startup_parameters = extra_float_digits,options",
        ),
        ("transaction", "server_reset_query_always = 1"),
        ("statement", ""),
        ("statement", "server_round_robin = 1"),
    ] {
        let database = Database::migrated().await;
        let settings = format!("{settings}\ndefault_pool_size = {CONNECTIONS}");
        let pooler = Pooler::start(&database, mode, &settings).await;
        if mode == "transaction" {
            // All its connections are there, as in a pooler that is in use.
            let nothing = vec![String::new(); CONNECTIONS];
            let found = found_by_application(&pooler).await;
            assert_eq!(found, (nothing.clone(), nothing));
        }
        let server = Server::start_unready(pooler.database(), |config| {
            config.barrier_interval_ms = 100;
        });
        until_red(&server).await;
        // It has tried in every way, and again.
        server.until_metric(REFUSED, 20.0).await;
        until_red(&server).await;
        assert_eq!(server.get("/healthz").await.status, 200);
        pooler.change_mode("transaction").await;
        until("no probe has left its value", async || {
            let (left, probes) = found_by_application(&pooler).await;
            assert_eq!(left, [""; CONNECTIONS], "{mode} {settings}");
            probes.iter().all(String::is_empty)
        })
        .await;
    }
}

#[tokio::test]
async fn a_mode_that_changes_is_noticed_and_so_is_its_way_back() {
    let database = Database::migrated().await;
    let pooler = Pooler::start(&database, "session", "").await;
    let server =
        Server::start_on(pooler.database(), |config| config.barrier_interval_ms = 100).await;
    pooler.change_mode("transaction").await;
    until_red(&server).await;
    pooler.change_mode("session").await;
    until_green(&server).await;
    let db = database.pool().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    insert_message(&db, None, &bob, &bob).await;
    client.until_type("message").await;
}

#[tokio::test]
async fn migrations_go_through_a_pooler_in_session_mode_only() {
    let database = Database::hushnet().await;
    let pooler = Pooler::start(&database.served_by(OWNER), "transaction", "").await;
    let url = pooler.database().url.parse().unwrap();
    let error = migrate::up(&url).await.unwrap_err().to_string();
    assert!(error.contains("in session mode"), "{error}");
    pooler.change_mode("session").await;
    until("the schema is there", async || {
        migrate::up(&url).await.is_ok()
    })
    .await;
}
