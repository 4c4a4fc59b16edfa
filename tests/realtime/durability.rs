//! Only what is on disk is a position: whatever cursor is handed out, a crash of PostgreSQL takes back nothing that it
//! has seen.
//!
//! Each test has a cluster of its own, in which an asynchronous commit reaches the disk only when something else makes
//! it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hushnet_devdb::Cluster;
use hushnet_realtime::config::Ingest;
use serde_json::json;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::support::{Database, Server, User, add_user, execute, insert_message, soon, until};

/// With `fsync` off, what PostgreSQL calls flushed is written to the kernel, which outlives PostgreSQL.
const SETTINGS: [(&str, &str); 5] = [
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("autovacuum", "off"),
    ("wal_writer_delay", "10s"),
    ("synchronous_commit", "off"),
];

/// A cluster with a migrated database and two users.
struct Scene {
    directory: PathBuf,
    cluster: Option<Cluster>,
    database: Database,
    alice: User,
    bob: User,
}

impl Scene {
    async fn set() -> Self {
        let name = format!("durability-{}", Uuid::new_v4().simple());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let cluster = Cluster::start_with(&directory, &SETTINGS).await.unwrap();
        let database = Database::made_in(&cluster, "hushnet").await;
        let db = database.pool().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        execute(&mut database.admin().await, "CHECKPOINT").await;
        Self {
            directory,
            cluster: Some(cluster),
            database,
            alice,
            bob,
        }
    }

    async fn serve(&self) -> Server {
        // No barrier flushes by chance.
        Server::start_on(self.database.clone(), |config| {
            config.barrier_interval_ms = 60_000;
        })
        .await
    }

    /// A change that makes no event, is visible and not on disk. Returns where the write-ahead log ends.
    async fn commit_asynchronously(&self, db: &PgPool) -> Unflushed {
        sqlx::query("INSERT INTO users (username) VALUES (gen_random_uuid()::text)")
            .execute(db)
            .await
            .unwrap();
        let unflushed = Unflushed::end(db).await;
        assert!(
            !unflushed.is_flushed(&self.database).await,
            "the test is of no use"
        );
        unflushed
    }

    async fn crash(&mut self) {
        let cluster = self.cluster.take().unwrap();
        let pid = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().trim().parse().unwrap();
        hushnet_testkit::program::signal("QUIT", pid).await;
        cluster.stop().await.unwrap();
    }

    async fn stop(&mut self) {
        self.cluster.take().unwrap().stop().await.unwrap();
    }

    async fn start(&mut self) {
        let cluster = Cluster::start_with(&self.directory, &SETTINGS).await;
        self.cluster = Some(cluster.unwrap());
    }

    async fn end(mut self) {
        self.stop().await;
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// A position in the write-ahead log.
struct Unflushed(String);

impl Unflushed {
    /// Where the write-ahead log ends.
    async fn end<'e>(db: impl PgExecutor<'e>) -> Self {
        let written = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text");
        Self(written.fetch_one(db).await.unwrap())
    }

    async fn is_flushed(&self, database: &Database) -> bool {
        sqlx::query_scalar("SELECT realtime.is_flushed($1::pg_lsn)")
            .bind(&self.0)
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn what_a_barrier_has_seen_is_on_disk_when_it_has_committed() {
    let scene = Scene::set().await;
    let db = scene.database.pool().await;
    let log = scene.database.log(1);
    // The first transactions may flush because PostgreSQL tidies up a page that they read.
    for nonce in ["7", "8", "9"] {
        let written = scene.commit_asynchronously(&db).await;
        log.send_barrier(nonce).await.unwrap();
        assert!(written.is_flushed(&scene.database).await, "barrier {nonce}");
    }
    // The position that a listener begins with.
    let written = scene.commit_asynchronously(&db).await;
    log.state().await.unwrap();
    assert!(written.is_flushed(&scene.database).await);
    scene.end().await;
}

#[tokio::test]
async fn the_cursor_function_waits_and_then_says_what_to_do() {
    let scene = Scene::set().await;
    let db = scene.database.pool().await;
    scene.commit_asynchronously(&db).await;
    let read = || sqlx::query_scalar::<_, String>("SELECT realtime.cursor()").fetch_one(&db);
    let error = read().await.unwrap_err();
    let error = error.as_database_error().unwrap();
    assert_eq!(error.code().unwrap(), "55000");
    assert!(error.message().contains("not on disk"), "{error}");
    let log = scene.database.log(1);
    let (cursor, flushed) = tokio::join!(read(), log.flush());
    flushed.unwrap();
    assert!(cursor.unwrap().contains('.'));
    scene.end().await;
}

#[tokio::test]
async fn every_cursor_that_the_service_hands_out_has_seen_only_what_is_on_disk() {
    let scene = Scene::set().await;
    let log = scene.database.log(1);
    let before = log.state().await.unwrap().unwrap().cursor.to_string();
    let db = scene.database.pool().await;
    // The replay buffer of a server that starts later does not reach back to it.
    scene.commit_asynchronously(&db).await;
    let mut server = scene.serve().await;
    let (epoch, _) = before.split_once('.').unwrap();
    let path = format!("/ws?user_id={}", scene.bob.id);

    let written = scene.commit_asynchronously(&db).await;
    let state = format!("/messages/pending/{}", scene.bob.device_id);
    let response = server.get(&state).await;
    assert_eq!(response.status, 200, "{}", response.body);
    assert!(written.is_flushed(&scene.database).await, "a read of state");

    // A replay is the client's position too, and so is the cursor of a reset.
    for since in [before.clone(), format!("{epoch}.900000000:900000000:")] {
        let written = scene.commit_asynchronously(&db).await;
        let mut client = server.connect_v1(&format!("{path}&since={since}")).await;
        client.next_json().await;
        assert!(written.is_flushed(&scene.database).await, "since {since}");
    }
    server.begin_stop();
    server.stopped().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_crash_takes_back_nothing_that_a_cursor_has_seen() {
    let mut scene = Scene::set().await;
    let mut server = scene.serve().await;
    let db = server.db().await;
    let users = async |db: &PgPool| {
        let users = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM users");
        users.fetch_one(db).await.unwrap()
    };
    let before = users(&db).await;
    for _ in 0..20 {
        scene.commit_asynchronously(&db).await;
    }
    let path = format!("/messages/pending/{}", scene.bob.device_id);
    let response = server.get(&path).await;
    let cursor = response.headers["realtime-cursor"].clone();
    scene.commit_asynchronously(&db).await;
    scene.crash().await;
    scene.start().await;
    let db = scene.database.pool().await;
    assert_eq!(
        users(&db).await,
        before + 20,
        "the last one was written after the cursor"
    );
    until("the service is ready", async || {
        server.get("/readyz").await.status == 200
    })
    .await;
    for _ in 0..5 {
        insert_message(&db, None, &scene.alice, &scene.bob).await;
    }
    let path = format!("/ws?user_id={}&since={cursor}", scene.bob.id);
    let mut client = server.connect_v1(&path).await;
    let hello = client.next_json().await;
    assert_eq!(hello["resumed"], json!(true), "{hello}");
    for _ in 0..5 {
        client.until_type("message").await;
    }
    drop(client);
    server.begin_stop();
    server.stopped().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn an_event_that_was_committed_asynchronously_is_sent_when_it_is_on_disk() {
    let scene = Scene::set().await;
    let db = scene.database.pool().await;
    for way in [Ingest::Notify, Ingest::Tail, Ingest::Adaptive] {
        let log = scene.database.log(1);
        log.set_ingest(way).await.unwrap();
        let mut server = scene.serve().await;
        let mut client = server.connect(scene.bob.id).await;
        for _ in 0..3 {
            // Before its commit, which is on disk when the event is sent.
            let mut transaction = db.begin().await.unwrap();
            insert_message(&mut *transaction, None, &scene.alice, &scene.bob).await;
            let written = Unflushed::end(&mut *transaction).await;
            transaction.commit().await.unwrap();
            let sent = client.next_text().await;
            assert!(written.is_flushed(&scene.database).await, "{way:?}: {sent}");
            assert!(
                !sent.contains("asynchronous") && !sent.contains("xid"),
                "{sent}"
            );
        }
        drop(client);
        server.begin_stop();
        server.stopped().await.unwrap();
    }
    scene.end().await;
}

/// Longer than one statement of the service may take.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(11);
const LOCK: &str = "LOCK TABLE realtime.events IN ACCESS EXCLUSIVE MODE";

/// The flush for a notified event has begun, and the listener turns to the log for longer than a statement may take.
#[tokio::test]
async fn a_read_of_the_log_that_takes_long_ends_no_flush_by_its_deadline() {
    let scene = Scene::set().await;
    let mut server = scene.serve().await;
    let path = format!("/ws?user_id={}", scene.bob.id);
    let mut client = server.connect_v1(&path).await;
    client.until_type("hello").await;
    let db = scene.database.pool().await;

    let (mut writer, mut other) = (scene.database.admin().await, scene.database.admin().await);
    for statement in ["BEGIN", LOCK] {
        execute(&mut writer, statement).await;
    }
    insert_message(&mut writer, None, &scene.alice, &scene.bob).await;
    execute(
        &mut writer,
        "SELECT pg_notify('realtime_control', 'changed')",
    )
    .await;
    // A flush that needs a new connection has to be looked at more than once.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE usename = 'hushnet_serve' AND query NOT ILIKE 'LISTEN %'";
    execute(&mut scene.database.admin().await, end).await;
    let waiting = tokio::spawn(async move {
        execute(&mut other, "BEGIN").await;
        execute(&mut other, LOCK).await;
        other
    });
    until("the lock is waited for", async || {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'realtime.events'::regclass)";
        sqlx::query_scalar(waits).fetch_one(&mut scene.database.admin().await).await.unwrap()
    })
    .await;
    execute(&mut writer, "COMMIT").await;
    let mut other = waiting.await.unwrap();
    until("a read has taken too long", async || {
        server.metric("hushnet_feed_live").await < 1.0
    })
    .await;
    // The read ends and is tried again; the time of a flush ends in between.
    tokio::time::sleep(STATEMENT_DEADLINE).await;
    execute(&mut other, "ROLLBACK").await;
    for _ in 0..2 {
        client.until_type("message").await;
        insert_message(&db, None, &scene.alice, &scene.bob).await;
    }
    let reconnects = server.metric("hushnet_listener_reconnects_total").await;
    assert!(reconnects < 1.0, "the flush was taken for a loss");
    drop(client);
    server.begin_stop();
    server.stopped().await.unwrap();
    db.close().await;
    scene.end().await;
}

/// Nothing in the database tells that its disk was put back to an earlier state, but a server knows what it has
/// delivered.
#[tokio::test]
async fn a_server_that_is_ahead_of_the_database_begins_a_new_history() {
    let mut scene = Scene::set().await;
    scene.stop().await;
    let (data, image) = (scene.directory.join("data"), scene.directory.join("image"));
    copy(&data, &image).await;
    scene.start().await;
    let mut server = Server::start_on(scene.database.clone(), |config| {
        config.barrier_interval_ms = 100;
    })
    .await;
    let db = server.db().await;
    let path = format!("/ws?user_id={}", scene.bob.id);
    let mut client = server.connect_v1(&path).await;
    let hello = client.next_json().await;
    insert_message(&db, None, &scene.alice, &scene.bob).await;
    let event = client.next_json().await;
    assert_eq!(event["type"], "message", "{event}");
    // A barrier proves that the event is on disk.
    let told = soon("a cursor", client.next_json()).await;
    assert_ne!(told["cursor"], hello["cursor"], "{told}");
    db.close().await;

    scene.crash().await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&image, &data).unwrap();
    scene.start().await;
    let reset = soon("a reset", client.next_json()).await;
    assert_eq!(reset["type"], "reset", "{reset}");
    assert_eq!(reset["reason"], json!("history"), "{reset}");
    let db = scene.database.pool().await;
    insert_message(&db, None, &scene.alice, &scene.bob).await;
    let id = |event: &serde_json::Value| event["id"].as_i64().unwrap();
    let next = client.next_json().await;
    assert!(id(&next) > id(&event), "{next} after {event}");
    drop(client);
    server.begin_stop();
    server.stopped().await.unwrap();
    scene.end().await;
}

async fn copy(from: &Path, to: &Path) {
    let mut command = hushnet_testkit::program::command("cp");
    let copied = command.arg("-a").arg(from).arg(to).status().await.unwrap();
    assert!(copied.success());
}
