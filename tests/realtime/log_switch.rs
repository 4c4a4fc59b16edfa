//! `migrate up` and `migrate down` while the service runs: it goes over to the log and back by itself, and a client
//! that stays connected misses no event.

use std::collections::BTreeSet;

use hushnet_realtime::config::Ingest;
use hushnet_realtime::store::migrate;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{
    Client, Database, Server, User, add_user, execute, insert_message, soon, until,
};

/// A service on a database without a log, and an application that writes one message after another to Bob, each in a
/// chat of its own.
struct Scene {
    server: Server,
    bob: User,
    written: watch::Receiver<BTreeSet<String>>,
    stop: watch::Sender<bool>,
    writing: JoinHandle<()>,
}

impl Scene {
    async fn set(ingest: Option<Ingest>) -> Self {
        let server = Server::start_on(Database::hushnet().await, |config| {
            config.barrier_interval_ms = 200;
            config.ingest = ingest;
        })
        .await;
        let db = server.db().await;
        let bob = add_user(&db).await;
        let (written, reader) = watch::channel(BTreeSet::new());
        let (stop, stopped) = watch::channel(false);
        let writing = tokio::spawn(write(db, bob, written, stopped));
        Self {
            server,
            bob,
            written: reader,
            stop,
            writing,
        }
    }

    async fn up(&self) {
        self.server.database().up().await;
    }

    async fn down(&self) {
        let url = self.server.database().owner();
        migrate::down(&url).await.unwrap();
    }

    /// The cursor that a client is greeted with now; the service must be ready all the time.
    async fn cursor(&self) -> Option<String> {
        let ready = self.server.get("/readyz").await;
        assert_eq!(ready.status, 200, "{}", ready.body);
        let mut client = v1(&self.server, self.bob.id, None).await;
        client.next_json().await["cursor"]
            .as_str()
            .map(str::to_owned)
    }

    async fn until_cursor(&self) -> String {
        let mut found = None;
        until("clients have cursors", async || {
            found = self.cursor().await;
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    async fn until_no_cursor(&self) {
        until("clients have no cursor", async || {
            self.cursor().await.is_none()
        })
        .await;
    }

    /// Waits until so many more messages have been written.
    async fn more(&mut self, count: usize) {
        let wanted = self.written.borrow().len() + count;
        let reached = self.written.wait_for(|written| written.len() >= wanted);
        soon("more messages", reached).await.unwrap();
    }
}

async fn write(
    db: PgPool,
    bob: User,
    written: watch::Sender<BTreeSet<String>>,
    stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let chat: Uuid =
            sqlx::query_scalar("INSERT INTO chats (chat_type) VALUES ('group') RETURNING id")
                .fetch_one(&db)
                .await
                .unwrap();
        insert_message(&db, Some(chat), &bob, &bob).await;
        written.send_modify(|written| {
            written.insert(chat.to_string());
        });
    }
}

async fn v1(server: &Server, user_id: Uuid, since: Option<&str>) -> Client {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    server
        .connect_v1(&format!("/ws?user_id={user_id}{since}"))
        .await
}

/// Reads until all these chats have had their message. Returns the frames.
async fn read_all(client: &mut Client, mut wanted: BTreeSet<String>) -> Vec<Value> {
    let mut frames = Vec::new();
    while !wanted.is_empty() {
        let frame = client.next_json().await;
        if let Some(chat) = frame["chat_id"].as_str() {
            wanted.remove(chat);
        }
        frames.push(frame);
    }
    frames
}

fn count(frames: &[Value], kind: &str) -> usize {
    frames.iter().filter(|frame| frame["type"] == kind).count()
}

#[tokio::test]
async fn no_event_is_lost_while_the_log_comes_goes_and_comes_again() {
    let mut scene = Scene::set(Some(Ingest::Notify)).await;
    assert_eq!(scene.cursor().await, None);
    let mut plain = scene.server.connect(scene.bob.id).await;
    let mut client = v1(&scene.server, scene.bob.id, None).await;
    let before = scene.written.borrow().clone();
    scene.more(20).await;
    scene.up().await;
    scene.until_cursor().await;
    scene.more(20).await;
    scene.down().await;
    scene.more(20).await;
    scene.until_no_cursor().await;
    scene.more(20).await;
    scene.up().await;
    scene.until_cursor().await;
    scene.more(20).await;
    scene.stop.send(true).unwrap();
    scene.writing.await.unwrap();

    // A message of the time when the client connected may or may not be its own.
    let mut wanted = scene.written.borrow().clone();
    wanted.retain(|chat| !before.contains(chat));
    let first = wanted.len();
    let frames = read_all(&mut plain, wanted.clone()).await;
    let with_id = frames.iter().filter(|frame| frame["id"].is_number());
    let with_id = with_id.count();
    assert!(
        40 <= with_id && with_id + 40 <= first,
        "{with_id} of {first}"
    );
    // The v1 client is reset once, when its cursors are worth nothing any more.
    let frames = read_all(&mut client, wanted).await;
    assert_eq!(count(&frames, "reset"), 1);
    let reset = frames.iter().find(|frame| frame["type"] == "reset");
    assert_eq!(reset.unwrap()["reason"], "no_log");
    assert!(frames.last().unwrap()["cursor"].is_string());
    assert!(
        scene
            .server
            .metric("hushnet_listener_reconnects_total")
            .await
            < 1.0
    );
}

#[tokio::test]
async fn a_client_that_comes_back_with_its_first_cursor_is_resumed_and_gets_nothing_of_before_the_log()
 {
    let mut scene = Scene::set(None).await;
    let mut client = v1(&scene.server, scene.bob.id, None).await;
    scene.more(20).await;
    scene.up().await;
    let history: String = sqlx::query_scalar("SELECT realtime.history()")
        .fetch_one(&mut scene.server.database().connect().await)
        .await
        .unwrap();
    let cursor = loop {
        // Between the migrations the log had another history.
        if let Some(cursor) = client.next_json().await["cursor"].as_str()
            && cursor.starts_with(&history)
        {
            break cursor.to_owned();
        }
    };
    drop(client);
    let before = scene.written.borrow().clone();
    scene.more(20).await;
    scene.stop.send(true).unwrap();
    scene.writing.await.unwrap();
    let mut wanted = scene.written.borrow().clone();
    wanted.retain(|chat| !before.contains(chat));
    let mut back = v1(&scene.server, scene.bob.id, Some(&cursor)).await;
    let frames = read_all(&mut back, wanted).await;
    assert_eq!(frames[0]["resumed"], true, "{}", frames[0]);
    for event in frames.iter().filter(|frame| frame["type"] == "message") {
        assert!(event["id"].is_number(), "{event}");
    }
}

/// With the log read in a loop, the service finds out by a read that the log has gone.
#[tokio::test]
async fn each_way_of_ingest_goes_over_to_the_log_and_back() {
    for way in [Ingest::Notify, Ingest::Adaptive, Ingest::Tail] {
        let mut scene = Scene::set(Some(way)).await;
        for _ in 0..2 {
            scene.up().await;
            scene.until_cursor().await;
            let stored: String = sqlx::query_scalar("SELECT ingest FROM realtime.state")
                .fetch_one(&mut scene.server.database().connect().await)
                .await
                .unwrap();
            assert_eq!(stored, way.as_str());
            let mut client = scene.server.connect(scene.bob.id).await;
            scene.more(5).await;
            while !client.next_json().await["id"].is_number() {}
            scene.down().await;
            scene.until_no_cursor().await;
            scene.more(5).await;
            while client.next_json().await["id"].is_number() {}
        }
        assert!(
            scene
                .server
                .metric("hushnet_listener_reconnects_total")
                .await
                < 1.0
        );
        scene.stop.send(true).unwrap();
        scene.writing.await.unwrap();
    }
}

/// A log whose schema `migrate up` has not completed is not used, and events come as before.
#[tokio::test]
async fn an_incomplete_log_is_waited_for() {
    let mut scene = Scene::set(None).await;
    let mut session = scene.server.database().connect().await;
    let mut client = scene.server.connect(scene.bob.id).await;
    execute(
        &mut session,
        "CREATE SCHEMA realtime; CREATE TABLE realtime.state (ingest text)",
    )
    .await;
    scene.more(20).await;
    assert_eq!(scene.cursor().await, None);
    execute(&mut session, "DROP SCHEMA realtime CASCADE").await;
    scene.up().await;
    scene.until_cursor().await;
    // What was written before the client came does not come to it.
    let before = scene.written.borrow().clone();
    scene.more(1).await;
    let wanted = &*scene.written.borrow() - &before;
    read_all(&mut client, wanted).await;
    assert!(
        scene
            .server
            .metric("hushnet_listener_reconnects_total")
            .await
            < 1.0
    );
    scene.stop.send(true).unwrap();
    scene.writing.await.unwrap();
}

/// Such a transaction cannot see the way of ingest, which is a row that is younger than its snapshot.
#[tokio::test]
async fn events_of_a_transaction_that_is_older_than_the_log_notify() {
    let database = Database::hushnet().await;
    let db = database.pool().await;
    let bob = add_user(&db).await;
    let mut older = database.connect().await;
    // `migrate up` would wait for the older transaction before it has built the index.
    let index = "CREATE INDEX realtime_devices_identity_pubkey ON devices (identity_pubkey)";
    execute(&mut older, index).await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_snapshot()";
    execute(&mut older, begin).await;
    database.up().await;
    let server = Server::start_on(database, |_| {}).await;
    let mut client = server.connect(bob.id).await;
    let device = bob.device_id;
    let insert = format!(
        "INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ('{device}', '{device}');
         COMMIT"
    );
    execute(&mut older, &insert).await;
    let event = client.next_json().await;
    assert_eq!(event["type"], "session");
    assert!(event["id"].is_i64(), "{event}");
}
