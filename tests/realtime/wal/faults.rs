//! Each way in which a stream fails: a clear line, polling, and a stream again where that can be. No event is lost.

use std::collections::HashMap;
use std::future::pending;

use super::scene::Scene;
use crate::support::{Database, execute, insert_message, until};

/// The slots of this server's database.
const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";

#[tokio::test]
async fn a_walsender_that_is_ended_is_replaced() {
    let mut scene = Scene::set().await;
    for _ in 0..2 {
        scene
            .admin(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                 WHERE database = current_database()",
            )
            .await;
        scene.event().await;
        scene.until_polling().await;
        scene.event().await;
        scene.until_streaming().await;
        scene.event().await;
    }
    let slots: i64 = scene.ask(SLOTS).await;
    assert_eq!(slots, 1, "the others went with their sessions");
    let of_cause = async |cause| {
        let failures = format!("hushnet_wal_stream_failures_total{{cause=\"{cause}\"}}");
        scene.server.metric(&failures).await
    };
    assert!(of_cause("unreachable").await >= 2.0);
    let others = of_cause("wal_sender_timeout").await + of_cause("invalidated").await;
    assert!(others < 1.0, "PostgreSQL has said why");
}

#[tokio::test]
async fn a_publication_that_is_dropped_is_named_and_taken_up_again() {
    let mut scene = Scene::set().await;
    scene.admin("DROP PUBLICATION realtime_log").await;
    scene.event().await;
    scene.until_cause("no_publication").await;
    scene.event().await;
    scene
        .admin(
            "CREATE PUBLICATION realtime_log FOR TABLE realtime.log
             WITH (publish = 'insert', publish_via_partition_root = true)",
        )
        .await;
    scene.until_streaming().await;
    scene.event().await;
}

#[tokio::test]
async fn a_publication_that_is_altered_is_not_trusted() {
    let mut scene = Scene::set().await;
    for alter in [
        "ALTER PUBLICATION realtime_log SET TABLE realtime.log WHERE (slot < 0)",
        "ALTER PUBLICATION realtime_log SET (publish = 'delete')",
        "ALTER PUBLICATION realtime_log SET (publish_via_partition_root = false)",
        "ALTER PUBLICATION realtime_log SET TABLE realtime.log (slot, id)",
    ] {
        scene.admin(alter).await;
        for _ in 0..3 {
            scene.event().await;
        }
        scene.until_cause("publication_altered").await;
        scene
            .admin(
                "DROP PUBLICATION realtime_log;
                 CREATE PUBLICATION realtime_log FOR TABLE realtime.log
                     WITH (publish = 'insert', publish_via_partition_root = true)",
            )
            .await;
        scene.until_streaming().await;
        scene.event().await;
    }
}

/// The barrier behind it sees the publication as it is to be, and an event that the stream does not have.
#[tokio::test]
async fn a_publication_that_is_altered_for_a_moment_loses_no_event() {
    let mut scene = Scene::set().await;
    let mut admin = scene.server.database().admin().await;
    for (away, back) in [
        (
            "ALTER PUBLICATION realtime_log SET (publish = 'delete')",
            "ALTER PUBLICATION realtime_log SET (publish = 'insert')",
        ),
        (
            "ALTER PUBLICATION realtime_log SET TABLE realtime.log WHERE (slot < 0)",
            "ALTER PUBLICATION realtime_log SET TABLE realtime.log",
        ),
    ] {
        execute(&mut admin, away).await;
        insert_message(&mut admin, None, &scene.alice, &scene.alice).await;
        execute(&mut admin, back).await;
        scene.next_event().await;
        let altered = "hushnet_wal_stream_failures_total{cause=\"publication_altered\"}";
        scene.event().await;
        scene.until_streaming().await;
        scene.event().await;
        assert!(scene.server.metric(altered).await >= 1.0, "{away}");
    }
}

#[tokio::test]
async fn a_transaction_that_runs_keeps_the_slot_away_and_no_event() {
    let database = Database::with_logical_wal().await;
    let mut writer = database.connect().await;
    execute(
        &mut writer,
        "SET application_name = 'long'; BEGIN; SELECT pg_current_xact_id();",
    )
    .await;
    let mut scene = Scene::unstreamed(database, |_| {}).await;
    scene.event().await;
    let detail = scene.until_cause("blocked").await;
    assert!(
        detail.contains("(long)") && detail.contains("pg_terminate_backend"),
        "{detail}"
    );
    scene.event().await;
    execute(&mut writer, "COMMIT").await;
    scene.until_streaming().await;
    scene.event().await;
}

/// The one of these transactions that somebody has waited for, for so long that two more of them take PostgreSQL beyond the
/// time for a slot, and not so long that it gives up.
const WAITED_FOR: &str =
    "SELECT transactionid::text FROM pg_locks WHERE NOT granted AND transactionid::text = ANY ($1)
    AND clock_timestamp() - waitstart > interval '3 s' LIMIT 1";

#[tokio::test]
async fn transactions_that_keep_the_slot_away_one_after_another_are_no_lost_connection() {
    let database = Database::with_logical_wal().await;
    let (mut admin, mut writers) = (database.admin().await, HashMap::new());
    for _ in 0..6 {
        let mut writer = database.connect().await;
        execute(&mut writer, "BEGIN").await;
        let xid = sqlx::query_scalar("SELECT pg_current_xact_id()::xid::text");
        let xid: String = xid.fetch_one(&mut writer).await.unwrap();
        writers.insert(xid, writer);
    }
    let scene = Scene::unstreamed(database, |_| {}).await;
    let ending = async {
        while !writers.is_empty() {
            let xids: Vec<_> = writers.keys().cloned().collect();
            let mut found: Option<String> = None;
            until("a transaction has been waited for", async || {
                let waited = sqlx::query_scalar(WAITED_FOR).bind(&xids);
                found = waited.fetch_optional(&mut admin).await.unwrap();
                found.is_some()
            })
            .await;
            let mut writer = writers.remove(&found.unwrap()).unwrap();
            execute(&mut writer, "COMMIT").await;
        }
        pending::<()>().await;
    };
    tokio::select! {
        () = ending => {}
        _ = scene.until_cause("blocked") => {}
    }
    let failures = "hushnet_wal_stream_failures_total{cause=\"unreachable\"}";
    assert!(scene.server.metric(failures).await < 1.0);
}

#[tokio::test]
async fn a_role_that_may_not_stream_is_named() {
    let database = Database::with_logical_wal().await;
    let service = database.url.parse().unwrap();
    let mut scene =
        Scene::unstreamed(database, |config| config.replication_url = Some(service)).await;
    scene.event().await;
    scene.until_cause("privilege").await;
    scene.event().await;
}

#[tokio::test]
async fn a_wal_level_that_does_not_do_is_named() {
    let database = Database::migrated().await;
    let url = database.owner();
    let mut scene = Scene::unstreamed(database, |config| config.replication_url = Some(url)).await;
    scene.event().await;
    let detail = scene.until_cause("wal_level").await;
    assert!(detail.contains("replica"), "{detail}");
    scene.event().await;
}

#[tokio::test]
async fn a_credential_of_another_database_is_not_taken() {
    let (database, other) = (
        Database::with_logical_wal().await,
        Database::with_logical_wal().await,
    );
    let url = other.replication();
    let mut scene = Scene::unstreamed(database, |config| config.replication_url = Some(url)).await;
    scene.event().await;
    scene.until_cause("elsewhere").await;
    scene.event().await;
}

/// The rows of a transaction that take longer than a second to come: the log is read.
#[tokio::test]
async fn many_events_of_one_transaction_keep_no_other_waiting() {
    let mut scene = Scene::set().await;
    let many = "INSERT INTO realtime.log (user_key, source, fields)
        SELECT gen_random_uuid(), 1, ARRAY['1'] FROM generate_series(1, 400000)";
    let mut owner = scene.server.database().connect().await;
    execute(&mut owner, many).await;
    for _ in 0..3 {
        scene.event().await;
    }
    scene.until_streaming().await;
    scene.event().await;
}

/// What PostgreSQL keeps for the slot is bounded.
#[tokio::test]
async fn a_slot_that_keeps_too_much_is_given_up() {
    let database = Database::with_logical_wal().await;
    let mut scene = Scene::set_on(database, |config| config.wal_lag_bytes_max = 1 << 20).await;
    // It pins the slot where it began.
    let mut writer = scene.server.database().connect().await;
    execute(&mut writer, "BEGIN; SELECT pg_current_xact_id()").await;
    until("the slot was given up", async || {
        scene
            .admin("SELECT pg_logical_emit_message(false, 'filling', repeat('x', 1000000))")
            .await;
        insert_message(&scene.db, None, &scene.alice, &scene.alice).await;
        scene.next_event().await;
        let given_up = "hushnet_wal_stream_failures_total{cause=\"lag\"}";
        scene.server.metric(given_up).await >= 1.0
    })
    .await;
    let slots: i64 = scene.ask(SLOTS).await;
    assert!(slots <= 1);
    scene.event().await;
    execute(&mut writer, "COMMIT").await;
    scene.event().await;
}
