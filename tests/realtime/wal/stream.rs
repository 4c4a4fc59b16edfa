//! What the stream brings, and what it does not.

use std::collections::BTreeSet;

use sqlx::Executor;

use super::scene::Scene;
use crate::support::{Database, insert_message, until};

const STREAMED: &str = "hushnet_events_streamed_total";
const READ: &str = "hushnet_events_caught_up_total";

#[tokio::test]
async fn events_come_from_the_write_ahead_log_and_are_not_read() {
    let mut scene = Scene::set().await;
    let read = scene.server.metric(READ).await;
    for _ in 0..5 {
        scene.event().await;
    }
    assert!(scene.server.metric(STREAMED).await >= 5.0);
    let read_since = scene.server.metric(READ).await - read;
    assert!(read_since < 1.0, "{read_since} events were read");
}

#[tokio::test]
async fn barriers_come_as_rows_and_no_client_and_no_read_sees_them() {
    let mut scene = Scene::set().await;
    scene.event().await;
    let mut cursors = BTreeSet::new();
    until("the cursor has moved twice", async || {
        insert_message(&scene.db, None, &scene.alice, &scene.alice).await;
        let event = scene.next_event().await;
        cursors.insert(event["cursor"].to_string());
        cursors.len() > 2
    })
    .await;
    let barriers: i64 = scene
        .ask("SELECT count(*) FROM realtime.log_barriers")
        .await;
    assert!(barriers > 1);
    let seen: i64 = scene
        .ask("SELECT count(*) FROM realtime.events WHERE kind = 'barrier'")
        .await;
    assert_eq!(seen, 0);
    let ready = scene.server.get("/readyz").await;
    assert_eq!(ready.json()["status"], "ready", "{}", ready.body);
}

/// As those of a trigger that the application has beside the log's.
#[tokio::test]
async fn a_notification_without_an_id_is_not_held_beyond_the_next_barrier() {
    let scene = Scene::set().await;
    let alice = scene.alice.id;
    scene
        .admin(&format!(
            r#"SELECT pg_notify('devices_channel', '{{"type" : "device", "user_id" : "{alice}"}}')"#
        ))
        .await;
    let dropped = "hushnet_notifications_without_id_total{channel=\"devices_channel\"}";
    scene.server.until_metric(dropped, 1.0).await;
}

/// PostgreSQL sends the rows of a transaction that others do not see yet.
#[tokio::test]
async fn a_transaction_that_is_open_delays_no_other() {
    let mut scene = Scene::set().await;
    let mut open = scene.db.begin().await.unwrap();
    insert_message(&mut *open, None, &scene.alice, &scene.alice).await;
    for _ in 0..3 {
        scene.event().await;
    }
    open.commit().await.unwrap();
    scene.next_event().await;
    scene.event().await;
}

#[tokio::test]
async fn what_is_rolled_back_never_comes() {
    let mut scene = Scene::set().await;
    let mut open = scene.db.begin().await.unwrap();
    insert_message(&mut *open, None, &scene.alice, &scene.alice).await;
    open.execute("SAVEPOINT one").await.unwrap();
    insert_message(&mut *open, None, &scene.alice, &scene.alice).await;
    open.execute("ROLLBACK TO one").await.unwrap();
    open.commit().await.unwrap();
    scene.next_event().await;
    let mut open = scene.db.begin().await.unwrap();
    insert_message(&mut *open, None, &scene.alice, &scene.alice).await;
    open.rollback().await.unwrap();
    scene.event().await;
    assert!(scene.server.metric(STREAMED).await < 20.0);
}

/// The rows of a TRUNCATE and of an event that failed are read from the log, where the clients' new cursor is made.
#[tokio::test]
async fn a_truncation_resets_the_clients_of_a_stream() {
    let mut scene = Scene::set().await;
    scene.event().await;
    scene.admin("TRUNCATE messages CASCADE").await;
    scene.client.until_type("reset").await;
    scene.event().await;
    scene.until_streaming().await;
}

/// Every event while the stream begins is read or streamed, and none twice.
#[tokio::test]
async fn nothing_is_lost_or_repeated_while_a_stream_is_joined() {
    let database = Database::with_logical_wal().await;
    let mut scene = Scene::unstreamed(database, |_| {}).await;
    let mut written = 0;
    while scene.server.metric(super::scene::STREAMING).await < 1.0 {
        insert_message(&scene.db, None, &scene.alice, &scene.alice).await;
        written += 1;
    }
    for _ in 0..20 {
        insert_message(&scene.db, None, &scene.alice, &scene.alice).await;
        written += 1;
    }
    for _ in 0..written {
        scene.next_event().await;
    }
    scene.event().await;
}
