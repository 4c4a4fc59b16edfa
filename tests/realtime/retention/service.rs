//! The service while its log's partitions are dropped: nobody is reset who has missed nothing, and what blocks
//! a drop is named.

use std::process::Stdio;

use hushnet_realtime::config::Ingest;
use hushnet_realtime::protocol::Cursor;
use hushnet_testkit::program;
use hushnet_testkit::server::Server as Program;
use serde_json::Value;
use sqlx::PgPool;

use super::{ALONE, age, drop_expired, log_of, names, settled};
use crate::support::{Client, Database, Server, User, add_user, execute, insert_message, until};

async fn connect(server: &Server, user: &User, since: Option<&str>) -> (Client, Value) {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let path = format!("/ws?user_id={}{since}", user.id);
    let mut client = server.connect_v1(&path).await;
    let hello = client.next_json().await;
    assert_eq!(hello["type"], "hello", "{hello}");
    (client, hello)
}

/// The cursor that comes with the next message. Before it come only cursors and the user's new device.
async fn message(client: &mut Client) -> String {
    loop {
        let frame = client.next_json().await;
        if frame["type"] == "message" {
            return frame["cursor"].as_str().unwrap().to_owned();
        }
        assert!(
            frame["type"] == "cursor" || frame["type"] == "device",
            "{frame}"
        );
    }
}

async fn users(db: &PgPool) -> (User, User) {
    (add_user(db).await, add_user(db).await)
}

#[tokio::test]
async fn an_old_prepared_transaction_resets_nobody() {
    let _alone = ALONE.lock().await;
    for way in [Ingest::Notify, Ingest::Tail, Ingest::Adaptive] {
        let database = Database::with_prepared_transactions().await;
        let db = database.pool().await;
        let mut connection = database.connect().await;
        let (alice, bob) = users(&db).await;
        let gid = format!("forgotten-{way:?}");
        let prepare = format!("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{gid}'");
        execute(&mut connection, &prepare).await;
        let start = async || {
            Server::start_on(database.clone(), |config| {
                config.ingest = Some(way);
                config.barrier_interval_ms = 50;
            })
            .await
        };
        let server = start().await;
        let (mut client, _) = connect(&server, &bob, None).await;
        for _ in 0..3 {
            insert_message(&db, None, &alice, &bob).await;
            message(&mut client).await;
        }
        // The cursor of a barrier that has seen all of them.
        let newest = names(
            &mut connection,
            "SELECT max(xid::text::bigint)::text FROM realtime.events",
        );
        let newest: u64 = newest.await[0].parse().unwrap();
        let mut cursor = String::new();
        until("a barrier has seen the messages", async || {
            let (_, hello) = connect(&server, &bob, None).await;
            hello["cursor"].as_str().unwrap().clone_into(&mut cursor);
            cursor.parse::<Cursor>().unwrap().snapshot.xmax() > newest
        })
        .await;
        age(&mut connection).await;
        drop_expired(&log_of(&database)).await;
        for _ in 0..3 {
            insert_message(&db, None, &alice, &bob).await;
            message(&mut client).await;
        }
        let resets = "hushnet_resets_total{reason=\"retention\"}";
        assert!(server.metric(resets).await < 1.0, "{way:?}");

        // Another server has nothing of it in memory.
        let other = start().await;
        let (mut client, hello) = connect(&other, &bob, Some(&cursor)).await;
        assert_eq!(hello["resumed"], true, "{way:?}");
        for _ in 0..3 {
            message(&mut client).await;
        }
        execute(&mut connection, &format!("ROLLBACK PREPARED '{gid}'")).await;
    }
}

#[tokio::test]
async fn a_client_that_was_away_during_a_drop_is_resumed() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = users(&db).await;
    let log = log_of(&database);
    insert_message(&db, None, &alice, &bob).await;
    let since = settled(&log, &mut connection).await;
    age(&mut connection).await;
    insert_message(&db, None, &alice, &bob).await;
    drop_expired(&log).await;
    let server = Server::start_on(database, |_| {}).await;
    let (mut client, hello) = connect(&server, &bob, Some(&since.to_string())).await;
    assert_eq!(
        (&hello["resumed"], &hello["replayed"]),
        (&true.into(), &1.into())
    );
    message(&mut client).await;
}

#[tokio::test]
async fn a_listener_whose_position_is_too_old_routes_what_is_left_and_resets_once() {
    let server = Server::start_with(|config| config.ingest = Some(Ingest::Tail)).await;
    let db = server.database().owner_pool().await;
    let (alice, bob) = users(&db).await;
    let (mut client, _) = connect(&server, &bob, None).await;
    let mut plain = server.connect(bob.id).await;
    // One transaction, so that no read comes between: as if events up to its own had been dropped.
    let mut writer = db.begin().await.unwrap();
    insert_message(&mut *writer, None, &alice, &bob).await;
    execute(
        &mut writer,
        "UPDATE realtime.state SET dropped_to = pg_current_xact_id()",
    )
    .await;
    writer.commit().await.unwrap();
    message(&mut client).await;
    let reset = loop {
        let frame = client.next_json().await;
        if frame["type"] != "cursor" {
            break frame;
        }
    };
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&"reset".into(), &"retention".into())
    );
    insert_message(&db, None, &alice, &bob).await;
    message(&mut client).await;
    for _ in 0..2 {
        plain.until_type("message").await;
    }
}

/// The partition, the blocker and the remedy of so many warnings.
async fn blocked_drops(server: &mut Program, count: usize) -> Vec<String> {
    let mut log = server.program.log.take().unwrap();
    let mut named = Vec::new();
    while named.len() < count {
        let line: Value = serde_json::from_str(&log.line().await).unwrap();
        let fields = &line["fields"];
        if fields["event"] == "log_partition_in_use" {
            assert_eq!(line["level"], "WARN");
            named.push(format!(
                "{} {} {}",
                fields["partition"], fields["blocker"], fields["remedy"]
            ));
        }
    }
    named
}

/// The service's role sees that another role's session is there, and not what it does.
const HIDDEN: &str = "(backup), state hidden without pg_read_all_stats";

#[tokio::test]
async fn what_blocks_a_drop_is_named_and_the_ring_goes_on() {
    let _alone = ALONE.lock().await;
    let database = Database::with_prepared_transactions().await;
    let mut connection = database.connect().await;
    // A writer that was prepared and forgotten.
    execute(
        &mut connection,
        "BEGIN; INSERT INTO realtime.events (user_id, kind, payload) VALUES (NULL, 'none', '{}');
         PREPARE TRANSACTION 'a forgotten writer'",
    )
    .await;
    age(&mut connection).await;
    // A backup reads the whole log.
    let mut backup = database.connect().await;
    execute(
        &mut backup,
        "SET application_name = 'backup'; BEGIN; LOCK TABLE realtime.events IN ACCESS SHARE MODE",
    )
    .await;
    age(&mut connection).await;
    execute(
        &mut connection,
        "UPDATE realtime.partitions SET opened_at = opened_at - interval '30 days' WHERE closed_at IS NULL",
    )
    .await;
    let mut command = program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--database-url", &database.url])
        .stderr(Stdio::piped());
    let mut server = Program::start(&mut command).await;
    let mut named = blocked_drops(&mut server, 3).await;
    named.sort();
    let pid = names(&mut backup, "SELECT pg_backend_pid()::text").await;
    let terminate = format!("SELECT pg_terminate_backend({})", pid[0]);
    for (line, parts) in named.iter().zip([
        [
            "events_0",
            "prepared transaction 'a forgotten writer'",
            "ROLLBACK PREPARED 'a forgotten writer'",
        ],
        ["events_0", HIDDEN, &terminate],
        ["events_1", HIDDEN, &terminate],
    ]) {
        assert!(
            parts.iter().all(|part| line.contains(part)),
            "{line}: {parts:?}"
        );
    }
    // The third partition is open although the first two cannot be dropped.
    assert_eq!(names(&mut connection, super::OPEN).await, ["events_3"]);
    until("both are counted", async || {
        server.metric("hushnet_log_partitions_overdue").await >= 2.0
            && server
                .metric("hushnet_log_maintenance_failures_total")
                .await
                >= 2.0
    })
    .await;

    execute(&mut connection, "ROLLBACK PREPARED 'a forgotten writer'").await;
    execute(&mut backup, "COMMIT").await;
    drop_expired(&log_of(&database)).await;
    server.program.kill().await;
}
