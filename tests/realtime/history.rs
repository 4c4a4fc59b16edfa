//! Histories: a cursor of another history is told with a reset, however its snapshot looks, and no new event bears an
//! id of before.

use hushnet_realtime::store::migrate;
use hushnet_testkit::roles::SERVICE;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{
    Client, Database, Server, User, add_user, cluster, execute, insert_message, soon, until,
};

/// A v1 client that has got one event, and what it keeps.
struct V1 {
    client: Client,
    cursor: String,
    id: i64,
}

impl V1 {
    /// Connects, and gets one message.
    async fn with_one_message(server: &Server, db: &PgPool, alice: &User, bob: &User) -> Self {
        let mut client = connect(server, bob, None).await;
        let cursor = frame(&mut client, "hello").await["cursor"].clone();
        insert_message(db, None, alice, bob).await;
        let event = frame(&mut client, "message").await;
        Self {
            client,
            cursor: cursor.as_str().unwrap().to_owned(),
            id: event["id"].as_i64().unwrap(),
        }
    }

    /// The reset that it gets, and its cursor from then on.
    async fn until_reset(&mut self, reason: &str) {
        let reset = soon("a reset", frame(&mut self.client, "reset")).await;
        assert_eq!(reset["reason"], json!(reason), "{reset}");
        reset["cursor"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.cursor);
    }
}

/// The next frame of this type, past those of other types.
async fn frame(client: &mut Client, wanted: &str) -> Value {
    loop {
        let frame = client.next_json().await;
        if frame["type"] == wanted {
            return frame;
        }
    }
}

async fn connect(server: &Server, bob: &User, since: Option<&str>) -> Client {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let path = format!("/ws?user_id={}{since}", bob.id);
    server.connect_v1(&path).await
}

/// What a client is told that comes with this cursor: `None` if it is resumed.
async fn reset_reason(server: &Server, bob: &User, since: &str) -> Option<Value> {
    let mut client = connect(server, bob, Some(since)).await;
    let hello = frame(&mut client, "hello").await;
    if hello["resumed"] == json!(true) {
        return None;
    }
    Some(frame(&mut client, "reset").await["reason"].clone())
}

async fn history(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT realtime.history()")
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn start(database: Database) -> Server {
    Server::start_on(database, |config| config.barrier_interval_ms = 200).await
}

/// The ids of a history begin above all that were given out before, and JavaScript's numbers hold them.
fn assert_is_after(id: i64, before: i64) {
    assert!(before < id && id < 1 << 53, "{id} after {before}");
}

#[tokio::test]
async fn a_log_that_was_removed_and_made_anew_has_another_history() {
    let server = start(Database::migrated().await).await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let kept = V1::with_one_message(&server, &db, &alice, &bob).await;
    assert_eq!(reset_reason(&server, &bob, &kept.cursor).await, None);
    let url = server.database().owner();
    migrate::down(&url).await.unwrap();
    server.database().up().await;
    // More ids than were given out before.
    let mut connected = connect(&server, &bob, None).await;
    let event = until_message(&mut connected, &db, &alice, &bob).await;
    assert_is_after(event["id"].as_i64().unwrap(), kept.id);
    until("cursors of before are reset", async || {
        reset_reason(&server, &bob, &kept.cursor).await == Some(json!("history"))
    })
    .await;
}

/// Writes a message, which comes.
async fn until_message(client: &mut Client, db: &PgPool, alice: &User, bob: &User) -> Value {
    insert_message(db, None, alice, bob).await;
    frame(client, "message").await
}

/// The database of before is put aside, and its copy takes its name. Transactions are counted on in the cluster, so
/// old snapshots look good.
#[tokio::test]
async fn a_copy_of_the_database_has_another_history() {
    let database = Database::migrated().await;
    let server = start(database.clone()).await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut stays = V1::with_one_message(&server, &db, &alice, &bob).await;
    let mut connection = database.connect().await;
    let before = history(&mut connection).await;
    connection.close().await.unwrap();
    db.close().await;

    let (address, _) = database.url.split_once('?').unwrap();
    let (_, name) = address.rsplit_once('/').unwrap();
    let mut admin = hushnet_testkit::database::connect(&cluster().url("postgres")).await;
    execute(
        &mut admin,
        &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
    )
    .await;
    until("all sessions have ended", async || {
        let ended = format!(
            "SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity WHERE datname = '{name}'"
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(ended))
            .fetch_one(&mut admin)
            .await
            .unwrap()
    })
    .await;
    for statement in [
        format!("CREATE DATABASE {name}_copy TEMPLATE {name}"),
        format!("ALTER DATABASE {name} RENAME TO {name}_before"),
        format!("ALTER DATABASE {name}_copy RENAME TO {name}"),
    ] {
        execute(&mut admin, &statement).await;
    }

    let came_with = stays.cursor.clone();
    stays.until_reset("history").await;
    let mut connection = database.connect().await;
    assert_ne!(history(&mut connection).await, before);
    let reason = reset_reason(&server, &bob, &came_with).await;
    assert_eq!(reason, Some(json!("history")));
    let db = database.pool().await;
    let event = until_message(&mut stays.client, &db, &alice, &bob).await;
    assert_is_after(event["id"].as_i64().unwrap(), stays.id);
    assert_eq!(reset_reason(&server, &bob, &stays.cursor).await, None);
}

/// As `pg_restore --clean` does it, while the server stays connected: the rows are those of a dump, and only the
/// table's OID is another.
#[tokio::test]
async fn a_log_whose_table_was_replaced_has_another_history() {
    let server = start(Database::migrated().await).await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut stays = V1::with_one_message(&server, &db, &alice, &bob).await;
    let mut connection = server.database().connect().await;
    replace_log(&mut connection, "").await;
    let came_with = stays.cursor.clone();
    stays.until_reset("history").await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM realtime.events")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(rows, 0, "the rows of another history mean nothing here");
    let reason = reset_reason(&server, &bob, &came_with).await;
    assert_eq!(reason, Some(json!("history")));
    let event = until_message(&mut stays.client, &db, &alice, &bob).await;
    assert_is_after(event["id"].as_i64().unwrap(), stays.id);
}

/// A migration that replaces the table binds the history to the new one, and a server that looks meanwhile waits.
#[tokio::test]
async fn a_migration_that_replaces_the_table_keeps_the_history() {
    let server = start(Database::migrated().await).await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let kept = V1::with_one_message(&server, &db, &alice, &bob).await;
    let mut connection = server.database().connect().await;
    let before = history(&mut connection).await;
    replace_log(
        &mut connection,
        "SELECT realtime.bind_history(); SELECT pg_sleep(1);",
    )
    .await;
    assert_eq!(history(&mut connection).await, before);
    assert_eq!(reset_reason(&server, &bob, &kept.cursor).await, None);
}

async fn replace_log(connection: &mut PgConnection, last: &str) {
    let partitions: Vec<String> = (0..16)
        .map(|slot| {
            format!(
                "ALTER TABLE realtime.events_{slot} RENAME TO before_{slot};
                 CREATE TABLE realtime.events_{slot} PARTITION OF realtime.log FOR VALUES IN ({slot});"
            )
        })
        .collect();
    let partitions = partitions.concat();
    let statements = format!(
        "BEGIN;
         LOCK TABLE realtime.log IN ACCESS EXCLUSIVE MODE;
         CREATE TEMP TABLE shown AS SELECT pg_get_viewdef('realtime.events'::regclass) AS text;
         ALTER TABLE realtime.log RENAME TO before;
         CREATE TABLE realtime.log (LIKE realtime.before INCLUDING DEFAULTS) PARTITION BY LIST (slot);
         {partitions}
         INSERT INTO realtime.log SELECT * FROM realtime.before;
         CREATE INDEX ON realtime.log (xid, id);
         DROP VIEW realtime.events;
         DO $$ BEGIN EXECUTE 'CREATE VIEW realtime.events AS ' || (SELECT text FROM shown); END $$;
         GRANT SELECT ON realtime.events TO {SERVICE};
         {last}
         COMMIT;"
    );
    execute(connection, &statements).await;
}

#[tokio::test]
async fn the_command_renews_the_history_and_connected_clients_are_reset_at_once() {
    // No barrier tells it: the renewal itself rings.
    let server = Server::start_on(Database::migrated().await, |config| {
        config.barrier_interval_ms = 60_000;
    })
    .await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut stays = V1::with_one_message(&server, &db, &alice, &bob).await;
    let mut command = hushnet_testkit::program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    let output = command
        .args(["history", "renew", "--database-url", &server.database().url])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let came_with = stays.cursor.clone();
    stays.until_reset("history").await;
    let history = printed.split(' ').nth(1).unwrap();
    assert!(
        stays.cursor.starts_with(&format!("{history}-")),
        "{printed}: {}",
        stays.cursor
    );
    let reason = reset_reason(&server, &bob, &came_with).await;
    assert_eq!(reason, Some(json!("history")));
    let event = until_message(&mut stays.client, &db, &alice, &bob).await;
    assert_is_after(event["id"].as_i64().unwrap(), stays.id);
}

#[tokio::test]
async fn without_a_log_the_command_says_what_to_do() {
    let database = Database::hushnet().await;
    let mut command = hushnet_testkit::program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    let output = command
        .args(["history", "renew", "--database-url", &database.url])
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("migrate up"), "{said}");
}

/// Cursors as the release before gave them out begin with the system identifier.
#[tokio::test]
async fn a_cursor_of_the_release_before_is_of_another_history() {
    let server = start(Database::migrated().await).await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let old: String =
        sqlx::query_scalar("SELECT realtime.epoch() || '.' || pg_current_snapshot()::text")
            .fetch_one(&mut server.database().connect().await)
            .await
            .unwrap();
    let reason = reset_reason(&server, &bob, &old).await;
    assert_eq!(reason, Some(json!("history")));
}
