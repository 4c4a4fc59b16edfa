//! PostgreSQL sends what is flushed, which is before others see it. A synchronous standby that does not answer makes that
//! time as long as a test needs.

use hushnet_devdb::Cluster;
use sqlx::PgConnection;
use tokio::task::JoinHandle;

use super::scene::{STREAMING, Scene};
use crate::support::{Database, User, execute, insert_message, until};

/// Rows that are flushed and not visible.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'";

async fn set(name: &str) -> (Database, Cluster) {
    Database::with_logical_wal_and(name, &[("synchronous_commit", "on")]).await
}

async fn set_standbys(scene: &Scene, names: &str) {
    let mut admin = scene.server.database().admin().await;
    let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
    execute(&mut admin, &alter).await;
    execute(&mut admin, "SELECT pg_reload_conf()").await;
    until("the setting is read", async || {
        let read: String = scene.ask("SHOW synchronous_standby_names").await;
        read == names
    })
    .await;
}

/// Commits an event, and returns when that is flushed and waits for the standby.
async fn commit_unseen(scene: &Scene) -> JoinHandle<()> {
    let (db, alice) = (scene.db.clone(), copy(&scene.alice));
    let before: i64 = scene.ask(WAITING).await;
    let committing = tokio::spawn(async move {
        insert_message(&db, None, &alice, &alice).await;
    });
    until("the commit waits for the standby", async || {
        let now: i64 = scene.ask(WAITING).await;
        now > before
    })
    .await;
    committing
}

/// An event of a transaction that waits for no standby.
async fn event_at_once(scene: &mut Scene) {
    let mut own = scene.db.begin().await.unwrap();
    execute(&mut own, "SET LOCAL synchronous_commit = local").await;
    insert_message(&mut *own, None, &scene.alice, &scene.alice).await;
    own.commit().await.unwrap();
    let event = scene.next_event().await;
    assert_visible(scene, &event["id"].to_string()).await;
}

fn copy(user: &User) -> User {
    let User { id, device_id } = *user;
    User { id, device_id }
}

async fn assert_visible(scene: &Scene, id: &str) {
    let visible: bool = scene
        .ask(&format!(
            "SELECT EXISTS (SELECT FROM realtime.events WHERE id = {id})"
        ))
        .await;
    assert!(visible, "the event {id} came before its row could be read");
}

#[tokio::test]
async fn an_event_waits_until_others_see_its_row_and_delays_no_other() {
    let (database, cluster) = set("wal_sync").await;
    let mut scene = Scene::set_on(database, |_| {}).await;
    set_standbys(&scene, "gone").await;
    let unseen = commit_unseen(&scene).await;
    for _ in 0..3 {
        event_at_once(&mut scene).await;
    }
    until("/readyz says why", async || {
        let ready = scene.server.get("/readyz").await;
        ready.status == 503 && ready.body.contains("barrier_uncommitted")
    })
    .await;
    assert!(
        scene.server.metric(STREAMING).await >= 1.0,
        "the stream lives"
    );
    set_standbys(&scene, "").await;
    let event = scene.next_event().await;
    assert_visible(&scene, &event["id"].to_string()).await;
    unseen.await.unwrap();
    scene.event().await;
    until("the server is ready", async || {
        scene.server.get("/readyz").await.status == 200
    })
    .await;
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}

/// A transaction that holds a number.
async fn open(scene: &Scene) -> PgConnection {
    let mut session = scene.server.database().connect().await;
    let begin = "SET synchronous_commit = local; BEGIN; SELECT pg_current_xact_id();";
    execute(&mut session, begin).await;
    session
}

/// Waits until the slot that is being made waits for this session's transaction.
async fn until_slot_waits(scene: &Scene, session: &mut PgConnection) {
    let number: String = sqlx::query_scalar("SELECT pg_current_xact_id()::xid::text")
        .fetch_one(session)
        .await
        .unwrap();
    let waits = format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted
                        AND transactionid = '{number}')"
    );
    until("the slot waits", async || scene.ask(&waits).await).await;
}

/// A transaction whose commit is in the write-ahead log before the slot's beginning, and which others do not see when the
/// slot has been made: the slot does not bring it, so a poll must.
#[tokio::test]
async fn what_was_flushed_before_the_slot_and_seen_after_it_is_polled() {
    let (database, cluster) = set("wal_join").await;
    let mut first = database.connect().await;
    let begin = "SET synchronous_commit = local; BEGIN; SELECT pg_current_xact_id();";
    execute(&mut first, begin).await;
    let mut scene = Scene::unstreamed(database, |_| {}).await;
    until_slot_waits(&scene, &mut first).await;
    let mut second = open(&scene).await;
    execute(&mut first, "COMMIT").await;
    until_slot_waits(&scene, &mut second).await;
    set_standbys(&scene, "gone").await;
    let unseen = commit_unseen(&scene).await;
    execute(&mut second, "COMMIT").await;
    until("the slot is made", async || {
        let made = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE active AND confirmed_flush_lsn IS NOT NULL)";
        scene.ask::<bool>(made).await
    })
    .await;
    for _ in 0..20 {
        event_at_once(&mut scene).await;
    }
    assert!(
        scene.server.metric(STREAMING).await < 1.0,
        "it was joined too early"
    );
    set_standbys(&scene, "").await;
    scene.next_event().await;
    unseen.await.unwrap();
    scene.until_streaming().await;
    scene.event().await;
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}
