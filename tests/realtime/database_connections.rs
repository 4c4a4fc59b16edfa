//! How many connections to the database a server has at most.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use hushnet_realtime::app::database_connections_max;
use hushnet_realtime::config::{Config, Ingest};
use hushnet_testkit::client;
use hushnet_testkit::http;
use hushnet_testkit::program;
use sqlx::{Connection, PgConnection};

use crate::identity::{Key, claims, takes_tokens, token};
use crate::support::{
    Database, Server, User, add_user, execute, insert_message, try_insert_message, until,
};

/// Requests that are sent at the same time, more than there are connections of a kind.
const REQUESTS: usize = 12;
/// PostgreSQL's code for it.
const DEADLOCK: &str = "40P01";

async fn count(connection: &mut PgConnection, of: &str) -> u32 {
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'hushnet-realtime' {of}"
    );
    let sessions = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sessions));
    sessions
        .fetch_one(connection)
        .await
        .unwrap()
        .try_into()
        .unwrap()
}

/// The load: reads of state, logins with a replay, and events, again and again.
async fn load(server: &Server, key: &Key, user: &User, since: &str, is_over: &AtomicBool) {
    let proof = format!("Bearer {}", token(key, &claims(user)));
    let reads = (0..REQUESTS).map(async |_| {
        while !is_over.load(Ordering::Relaxed) {
            let path = format!("/messages/pending/{}", user.device_id);
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {proof}\r\n\r\n"
            );
            // Any answer will do: some wait for a lock in vain.
            let _ = http::request(server.address(), &head).await;
        }
    });
    let logins = (0..REQUESTS).map(async |_| {
        while !is_over.load(Ordering::Relaxed) {
            let url = format!("ws://{}/ws?since={since}", server.address());
            let request = client::request(&url, &[("authorization", &proof)]);
            if let Ok((mut client, _)) =
                crate::support::Client::connect(request, None, |_| {}).await
            {
                let _ = client.try_next_text().await;
            }
        }
    });
    let db = server.db().await;
    let writes = async {
        while !is_over.load(Ordering::Relaxed) {
            // Its foreign keys lock the tables in another order than `hold` does.
            if let Err(error) = try_insert_message(&db, None, user, user).await {
                let code = error
                    .as_database_error()
                    .and_then(sqlx::error::DatabaseError::code);
                assert_eq!(code.as_deref(), Some(DEADLOCK), "{error}");
            }
        }
    };
    tokio::join!(join_all(reads), join_all(logins), writes);
}

/// Locks the tables until as many sessions wait for them.
async fn hold(database: &Database, tables: &str, sessions: u32) {
    let mut watching = database.admin().await;
    let mut lock = database.admin().await;
    // In a deadlock it is the other that is ended.
    let statement =
        format!("SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE");
    execute(&mut lock, &statement).await;
    until("every connection of the kind waits", async || {
        count(&mut watching, "AND wait_event_type = 'Lock'").await >= sessions
    })
    .await;
    lock.close().await.unwrap();
}

#[tokio::test]
async fn a_server_never_has_more_connections_than_it_says() {
    let key = Key::secret();
    let database = Database::migrated().await;
    let db = database.pool().await;
    let alice = add_user(&db).await;
    let since: String = sqlx::query_scalar("SELECT realtime.cursor()")
        .fetch_one(&db)
        .await
        .unwrap();
    insert_message(&db, None, &alice, &alice).await;
    let mut said = 0;
    let server = Server::start_on(database.clone(), |config| {
        takes_tokens(config, &key);
        config.ingest = Some(Ingest::Adaptive);
        config.limits.connections_per_user_max = 1_000;
        config.limits.connections_per_second_per_user = 1_000_000;
        said = database_connections_max(config);
    })
    .await;
    let pool_size = Config::default().database_pool_size;
    let of_identity = said - database_connections_max(&Config::default());

    let is_over = AtomicBool::new(false);
    let mut watching = database.admin().await;
    let watch = async {
        let mut most = 0;
        while !is_over.load(Ordering::Relaxed) {
            most = most.max(count(&mut watching, "").await);
        }
        most
    };
    let scene = async {
        let reconnects = "hushnet_listener_reconnects_total";
        // The pools keep what they have opened.
        hold(&database, "messages", pool_size).await;
        hold(&database, "devices, users", of_identity).await;
        let ready = async || {
            until("the service is ready", async || {
                server.get("/readyz").await.status == 200
            })
            .await;
        };
        for times in [1.0, 2.0] {
            ready().await;
            database.end_listener().await;
            server.until_metric(reconnects, times).await;
        }
        ready().await;
        is_over.store(true, Ordering::Relaxed);
    };
    let under_load = load(&server, &key, &alice, &since, &is_over);
    let (most, (), ()) = tokio::join!(watch, scene, under_load);
    assert!(most <= said, "{most} of {said}");
    // The pools were full, and the listener was there.
    assert!(most > pool_size + of_identity, "{most} of {said}");
}

#[tokio::test]
async fn the_figure_is_printed_and_documented() {
    let figure = database_connections_max(&Config::default());
    let serve = |arguments: &[&str]| {
        let mut command = program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
        command.args(["serve", "--print-config"]).args(arguments);
        command
    };
    let printed = serve(&[]).output().await.unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    let line = format!("# database_connections_max = {figure}");
    assert!(printed.lines().any(|printed| printed == line), "{printed}");

    let page = std::fs::read_to_string("docs/operations.md").unwrap();
    let mut config = Config::default();
    config.identity.auth = hushnet_realtime::config::AuthMode::Jwt;
    let (more, with_identity) = (
        figure - config.database_pool_size,
        database_connections_max(&config) - config.database_pool_size,
    );
    let words = format!("`database_pool_size` and {more}, with identity {with_identity}");
    assert!(page.contains(&words), "docs/operations.md says not {words}");
}
