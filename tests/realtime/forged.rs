//! Notifications of a role that may connect and has no other right.

use hushnet_realtime::config::{Config, Ingest};
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use std::time::Instant;
use uuid::Uuid;

use crate::support::{
    Client, Database, Server, User, add_user, execute, insert_message, soon, until,
};

const EACH_INGEST: [Ingest; 3] = [Ingest::Notify, Ingest::Tail, Ingest::Adaptive];

/// A server, a user with a client, and a role without rights.
struct Scene {
    /// Serves until the scene ends.
    server: Server,
    db: sqlx::PgPool,
    bob: User,
    client: Client,
    stranger: PgConnection,
}

impl Scene {
    async fn set(change: impl FnOnce(&mut Config)) -> Self {
        let database = Database::migrated().await;
        let db = database.pool().await;
        let bob = add_user(&db).await;
        let mut stranger = database.admin().await;
        let role = format!("t_stranger_{}", Uuid::new_v4().simple());
        execute(
            &mut stranger,
            &format!("CREATE ROLE {role}; SET ROLE {role}"),
        )
        .await;
        let server = Server::start_on(database, change).await;
        let mut client = server.connect_v1(&format!("/ws?user_id={}", bob.id)).await;
        client.until_type("hello").await;
        Self {
            server,
            db,
            bob,
            client,
            stranger,
        }
    }

    async fn with(ingest: Ingest) -> Self {
        Self::set(|config| config.ingest = Some(ingest)).await
    }

    async fn insert_message(&self) {
        insert_message(&self.db, None, &self.bob, &self.bob).await;
    }

    /// Notifies as the role without rights.
    async fn forge(&mut self, channel: &str, payload: &str) {
        sqlx::query("SELECT pg_notify($1, $2)")
            .bind(channel)
            .bind(payload)
            .execute(&mut self.stranger)
            .await
            .unwrap();
    }

    /// The client's next message. Frames of other types may come before it.
    async fn next_message(&mut self) -> Value {
        loop {
            let frame = self.client.next_json().await;
            if frame["type"] == "message" {
                return frame;
            }
        }
    }

    /// The id of the newest event of the user, in the log.
    async fn newest_id(&self) -> i64 {
        sqlx::query_scalar("SELECT max(id) FROM realtime.events WHERE user_id = $1")
            .bind(self.bob.id)
            .fetch_one(&mut self.server.database().connect().await)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn ids_that_were_notified_in_advance_hide_no_event() {
    for ingest in EACH_INGEST {
        let mut scene = Scene::with(ingest).await;
        scene.insert_message().await;
        scene.next_message().await;
        let next_id = scene.newest_id().await + 1;
        let nobody = Uuid::new_v4();
        for id in next_id..next_id + 20 {
            let event = json!({"type": "message", "chat_id": null, "user_id": nobody, "id": id});
            scene.forge("messages_channel", &event.to_string()).await;
        }
        for _ in 0..10 {
            scene.insert_message().await;
            let event = scene.next_message().await;
            assert_eq!(event["id"], scene.newest_id().await, "{ingest:?}");
        }
    }
}

#[tokio::test]
async fn a_notified_revocation_closes_nothing() {
    for ingest in EACH_INGEST {
        let mut scene = Scene::with(ingest).await;
        let user = scene.bob.id;
        for channel in ["realtime_revocations", "messages_channel"] {
            for id in ["", r#","id":1000000"#] {
                let revocation =
                    format!(r#"{{"type":"revocation","user_id":"{user}","device_id":null{id}}}"#);
                scene.forge(channel, &revocation).await;
            }
        }
        // Notifications come in order: the forged ones have been received before this event.
        scene.insert_message().await;
        scene.next_message().await;
        // The true one closes.
        sqlx::query("DELETE FROM users WHERE id = $1")
            .bind(user)
            .execute(&scene.db)
            .await
            .unwrap();
        assert_eq!(scene.client.close_code().await, 4003, "{ingest:?}");
    }
}

/// Every server's barrier can be read by who listens. Notified again with another snapshot, it moves no
/// position, or clients would miss what their next cursor has not seen.
#[tokio::test]
async fn a_notified_barrier_moves_no_position() {
    let mut scene = Scene::set(|config| {
        config.ingest = Some(Ingest::Notify);
        config.barrier_interval_ms = 100;
    })
    .await;
    let mut control = PgListener::connect_with(&scene.db).await.unwrap();
    control.listen("realtime_control").await.unwrap();
    for _ in 0..5 {
        let barrier = soon("a barrier", control.recv()).await.unwrap();
        let mut words: Vec<&str> = barrier.payload().split(' ').collect();
        words[3] = "99999999:99999999:";
        scene.forge("realtime_control", &words.join(" ")).await;
        words[1] = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        scene.forge("realtime_control", &words.join(" ")).await;
    }
    scene.insert_message().await;
    let event = scene.next_message().await;
    let cursor = event["cursor"].as_str().unwrap();
    assert!(!cursor.contains("99999999"), "{cursor}");
}

/// A role that notifies without end makes the server read the log at most once each 5 ms.
#[tokio::test]
async fn a_storm_of_notifications_is_no_storm_of_reads() {
    let mut scene = Scene::with(Ingest::Notify).await;
    let begun = Instant::now();
    sqlx::query(
        "SELECT pg_notify('messages_channel', json_build_object(
             'type', 'message', 'user_id', $1::uuid, 'id', id, 'by_reference', true)::text)
         FROM generate_series(1000000, 1020000) AS id",
    )
    .bind(scene.bob.id)
    .execute(&mut scene.stranger)
    .await
    .unwrap();
    scene.insert_message().await;
    scene.next_message().await;
    let reads_max = begun.elapsed().as_millis() / 5 + 10;
    let mut scans: i64 = 0;
    until("the statistics to show a read", async || {
        scans = sqlx::query_scalar(
            "SELECT coalesce(max(idx_scan), 0) FROM pg_stat_user_indexes
             WHERE indexrelname LIKE 'events%xid_id%'",
        )
        .fetch_one(&scene.db)
        .await
        .unwrap();
        scans > 0
    })
    .await;
    // A read looks twice into an index: for what is newer, and for what was running.
    assert!(
        u128::from(scans.unsigned_abs()) <= 2 * reads_max,
        "{scans} scans in the time of {reads_max} reads"
    );
}
