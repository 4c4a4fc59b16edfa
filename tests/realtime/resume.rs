//! A client that comes back with its cursor gets the events that it missed, from the replay buffer or from
//! the log, or a reset with its reason; in each way of ingest.

use std::collections::BTreeSet;

use hushnet_realtime::config::Ingest;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{Client, Database, Server, User, add_user, execute, insert_message, until};

/// A v1 client: it keeps its cursor and hands out each event once.
struct V1 {
    client: Client,
    cursor: String,
}

impl V1 {
    /// Connects and takes the `hello`.
    async fn connect(server: &Server, user_id: Uuid, since: Option<&str>) -> (Self, Value) {
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        let path = format!("/ws?user_id={user_id}{since}");
        let mut client = server.connect_v1(&path).await;
        let hello = client.next_json().await;
        assert_eq!(hello["type"], "hello", "{hello}");
        assert!(
            hello["connection_id"]
                .as_str()
                .unwrap()
                .parse::<Uuid>()
                .is_ok()
        );
        let cursor = hello["cursor"].as_str().unwrap_or_default().to_owned();
        (Self { client, cursor }, hello)
    }

    /// The next frame; its cursor is kept.
    async fn next(&mut self) -> Value {
        let frame = self.client.next_json().await;
        if let Some(cursor) = frame["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
        frame
    }

    /// The next event, past the notices of the cursor.
    async fn next_event(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] != "cursor" {
                return frame;
            }
        }
    }

    /// The ids of so many events.
    async fn ids(&mut self, count: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.next_event().await["id"].as_i64().unwrap());
        }
        ids
    }
}

/// A service with two users. The messages are for Bob.
struct Scene {
    server: Server,
    db: PgPool,
    alice: User,
    bob: User,
}

impl Scene {
    async fn set(ingest: Ingest) -> Self {
        Self::set_with(ingest, |_| {}).await
    }

    async fn set_with(
        ingest: Ingest,
        change: impl FnOnce(&mut hushnet_realtime::config::Config),
    ) -> Self {
        let database = Database::migrated().await;
        let db = database.pool().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let server = Server::start_on(database, |config| {
            config.ingest = Some(ingest);
            config.barrier_interval_ms = 100;
            change(config);
        })
        .await;
        Self {
            server,
            db,
            alice,
            bob,
        }
    }

    async fn insert(&self, count: usize) {
        for _ in 0..count {
            insert_message(&self.db, None, &self.alice, &self.bob).await;
        }
    }

    /// The ids of bob's messages in the log, in their order.
    async fn logged(&self) -> Vec<i64> {
        sqlx::query_scalar(
            "SELECT id FROM realtime.events WHERE user_id = $1 AND kind = 'message' ORDER BY id",
        )
        .bind(self.bob.id)
        .fetch_all(&mut self.server.database().connect().await)
        .await
        .unwrap()
    }

    /// The cursor that a client gets when it connects now.
    async fn present(&self) -> String {
        let (v1, _) = V1::connect(&self.server, self.bob.id, None).await;
        v1.cursor
    }

    async fn replays(&self, source: &str) -> f64 {
        let series = format!("hushnet_replays_total{{cause=\"resume\",source=\"{source}\"}}");
        self.server.metric(&series).await
    }
}

const WAYS: [Ingest; 3] = [Ingest::Notify, Ingest::Tail, Ingest::Adaptive];

#[tokio::test]
async fn a_client_that_was_away_gets_missed_events_and_then_new_ones() {
    for way in WAYS {
        let scene = Scene::set(way).await;
        let (mut before, hello) = V1::connect(&scene.server, scene.bob.id, None).await;
        assert_eq!(
            (&hello["resumed"], &hello["replayed"]),
            (&json!(false), &json!(0))
        );
        scene.insert(3).await;
        let first = before.ids(3).await;
        let cursor = before.cursor.clone();
        drop(before);
        scene.insert(5).await;

        let (mut after, hello) = V1::connect(&scene.server, scene.bob.id, Some(&cursor)).await;
        assert_eq!(hello["resumed"], json!(true), "{way:?}");
        assert_eq!(hello["cursor"], json!(cursor));
        scene.insert(2).await;
        let missed: BTreeSet<i64> = scene.logged().await.into_iter().collect();
        let mut seen: BTreeSet<i64> = first.into_iter().collect();
        while seen != missed {
            let event = after.next_event().await;
            assert_eq!(event["type"], "message", "{way:?}: {event}");
            seen.insert(event["id"].as_i64().unwrap());
        }
    }
}

#[tokio::test]
async fn a_recent_cursor_costs_no_query() {
    let scene = Scene::set(Ingest::Notify).await;
    let (mut client, _) = V1::connect(&scene.server, scene.bob.id, None).await;
    scene.insert(1).await;
    client.ids(1).await;
    let from_log = scene.replays("log").await;
    for _ in 0..5 {
        let (mut again, hello) =
            V1::connect(&scene.server, scene.bob.id, Some(&client.cursor)).await;
        assert_eq!(hello["resumed"], json!(true));
        assert!(again.ids(1).await.len() == 1);
    }
    assert!((scene.replays("log").await - from_log).abs() < f64::EPSILON);
    assert!(scene.replays("memory").await >= 5.0);
}

#[tokio::test]
async fn an_old_cursor_is_served_from_the_log_page_by_page_without_repeats() {
    for way in WAYS {
        let scene = Scene::set(way).await;
        let cursor = scene.present().await;
        sqlx::query(
            "INSERT INTO messages (logical_msg_id, to_user_id, header, ciphertext)
             SELECT 'm', $1, '{}', 'c' FROM generate_series(1, 2500)",
        )
        .bind(scene.bob.id)
        .execute(&scene.db)
        .await
        .unwrap();
        // Another server has nothing of it in its replay buffer.
        let database = scene.server.database().clone();
        let other = Server::start_on(database, |config| config.ingest = Some(way)).await;
        let (mut client, hello) = V1::connect(&other, scene.bob.id, Some(&cursor)).await;
        assert_eq!(hello["replayed"], json!(2500), "{way:?}");
        assert_eq!(client.ids(2500).await, scene.logged().await);
        let arrived = client.next().await;
        assert_eq!(arrived["type"], "cursor", "{arrived}");
        assert_ne!(arrived["cursor"], json!(cursor));
        scene.insert(1).await;
        let live = client.next_event().await;
        assert_eq!(live["id"].as_i64(), scene.logged().await.last().copied());
        let series = "hushnet_replays_total{cause=\"resume\",source=\"log\"}";
        assert!(other.metric(series).await >= 1.0);
    }
}

#[tokio::test]
async fn an_invalid_cursor_is_answered_with_a_reset() {
    let scene = Scene::set(Ingest::Notify).await;
    let cursor = scene.present().await;
    let (epoch, snapshot) = cursor.split_once('.').unwrap();
    let (system, timeline) = epoch.split_once('-').unwrap();
    execute(
        &mut scene.server.database().connect().await,
        "UPDATE realtime.state SET dropped_to = '4'",
    )
    .await;
    for (since, reason) in [
        ("nonsense".to_owned(), "malformed"),
        ("1-1.5:4:".to_owned(), "malformed"),
        (String::new(), "malformed"),
        ("%00".to_owned(), "malformed"),
        (
            format!("{}9-{timeline}.{snapshot}", &system[..10]),
            "history",
        ),
        (format!("{system}-{timeline}9.{snapshot}"), "history"),
        (format!("{epoch}.900000000:900000000:"), "future"),
        (
            format!("{epoch}.9223372036854775807:9223372036854775807:"),
            "future",
        ),
        (format!("{epoch}.4:4:"), "retention"),
    ] {
        let (mut client, hello) = V1::connect(&scene.server, scene.bob.id, Some(&since)).await;
        assert_eq!(hello["resumed"], json!(false), "{since}");
        let reset = client.next().await;
        assert_eq!(
            (&reset["type"], &reset["reason"]),
            (&json!("reset"), &json!(reason)),
            "{since}"
        );
        // The client continues from the reset's cursor.
        scene.insert(1).await;
        assert_eq!(client.next_event().await["type"], "message");
        let (_, hello) = V1::connect(&scene.server, scene.bob.id, Some(&client.cursor)).await;
        assert_eq!(hello["resumed"], json!(true));
    }
    assert!(
        scene
            .server
            .metric("hushnet_resets_total{reason=\"future\"}")
            .await
            >= 2.0
    );
}

#[tokio::test]
async fn an_event_that_commits_late_is_not_lost() {
    for way in WAYS {
        let scene = Scene::set(way).await;
        let mut late = scene.db.begin().await.unwrap();
        insert_message(&mut *late, None, &scene.alice, &scene.bob).await;
        // Later ids commit first, and the cursor goes past them.
        let (mut client, _) = V1::connect(&scene.server, scene.bob.id, None).await;
        scene.insert(1).await;
        client.ids(1).await;
        let position = client.cursor.clone();
        until("the position has moved", async || {
            scene.present().await != position
        })
        .await;
        let cursor = scene.present().await;
        drop(client);
        late.commit().await.unwrap();

        let (mut client, _) = V1::connect(&scene.server, scene.bob.id, Some(&cursor)).await;
        let wanted = scene.logged().await[0];
        while client.next_event().await["id"] != json!(wanted) {}
    }
}

#[tokio::test]
async fn events_that_a_lag_dropped_are_replayed() {
    for way in WAYS {
        // The replay buffer holds some hundred events: the others come from the log.
        let scene = Scene::set_with(way, |config| {
            config.user_channel_capacity = 1;
            config.recent_bytes_max = 65_536;
        })
        .await;
        let mut plain = scene.server.connect(scene.bob.id).await;
        let (mut v1, _) = V1::connect(&scene.server, scene.bob.id, None).await;
        until("a lag", async || {
            sqlx::query(
                "INSERT INTO messages (logical_msg_id, to_user_id, header, ciphertext)
                 SELECT 'm', $1, '{}', 'c' FROM generate_series(1, 1000)",
            )
            .bind(scene.bob.id)
            .execute(&scene.db)
            .await
            .unwrap();
            scene.server.metric("hushnet_lags_total").await >= 1.0
        })
        .await;
        let wanted: BTreeSet<i64> = scene.logged().await.into_iter().collect();
        let (mut on_plain, mut on_v1) = (BTreeSet::new(), BTreeSet::new());
        while on_plain != wanted {
            on_plain.insert(plain.next_json().await["id"].as_i64().unwrap());
        }
        while on_v1 != wanted {
            on_v1.insert(v1.next_event().await["id"].as_i64().unwrap());
        }
    }
}

#[tokio::test]
async fn a_lost_listener_is_caught_up_from_the_log() {
    for way in WAYS {
        let scene = Scene::set(way).await;
        let (mut client, _) = V1::connect(&scene.server, scene.bob.id, None).await;
        let mut wanted = BTreeSet::new();
        for _ in 0..5 {
            scene.insert(20).await;
            scene.server.database().end_listener().await;
            scene.insert(20).await;
        }
        wanted.extend(scene.logged().await);
        let mut seen = BTreeSet::new();
        while seen != wanted {
            let id = client.next_event().await["id"].as_i64().unwrap();
            assert!(seen.insert(id), "{way:?}: {id} came twice");
        }
        assert!(scene.server.metric("hushnet_events_caught_up_total").await >= 1.0);
    }
}

#[tokio::test]
async fn an_event_that_is_too_long_to_be_notified_comes_from_the_log() {
    for way in WAYS {
        let scene = Scene::set(way).await;
        let (mut client, _) = V1::connect(&scene.server, scene.bob.id, None).await;
        let emit = "SELECT realtime.emit('messages_channel', $1, 'message', json_build_object(
                        'type', 'message', 'user_id', $1, 'pad', repeat('é', $2)))";
        for length in [10, 20_000, 10] {
            sqlx::query(emit)
                .bind(scene.bob.id)
                .bind(length)
                .execute(&mut scene.server.database().connect().await)
                .await
                .unwrap();
        }
        for length in [10, 20_000, 10] {
            let event = client.next_event().await;
            assert_eq!(
                event["pad"].as_str().unwrap().chars().count(),
                length,
                "{way:?}"
            );
        }
    }
}

#[tokio::test]
async fn without_a_log_a_v1_client_gets_a_reset_after_every_gap() {
    let server = Server::start_on(Database::hushnet().await, |_| {}).await;
    let db = server.db().await;
    let user = add_user(&db).await;
    let (mut client, hello) = V1::connect(&server, user.id, None).await;
    assert_eq!(hello["cursor"], Value::Null);
    server.database().end_listener().await;
    // The user's device may still be on its way.
    let mut reset = client.next_event().await;
    while reset["type"] == "device" {
        reset = client.next_event().await;
    }
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&json!("reset"), &json!("no_log"))
    );
    let (mut with_cursor, _) = V1::connect(&server, user.id, Some("1-1.5:5:")).await;
    assert_eq!(with_cursor.next().await["reason"], json!("no_log"));
}

#[tokio::test]
async fn the_way_of_ingest_can_be_changed_while_the_service_runs() {
    let scene = Scene::set(Ingest::Notify).await;
    let (mut client, _) = V1::connect(&scene.server, scene.bob.id, None).await;
    let mut connection = scene.server.database().connect().await;
    for way in ["tail", "adaptive", "notify", "tail", "notify"] {
        execute(
            &mut connection,
            &format!("UPDATE realtime.state SET ingest = '{way}'"),
        )
        .await;
        for _ in 0..3 {
            scene.insert(10).await;
            let mut ids = BTreeSet::new();
            while ids.len() < 10 {
                assert!(
                    ids.insert(client.next_event().await["id"].as_i64().unwrap()),
                    "{way}"
                );
            }
        }
    }
    let wanted = scene.logged().await;
    assert_eq!(wanted.len(), 150);
}

#[tokio::test]
async fn adaptive_ingest_takes_the_wake_lock_while_it_is_busy() {
    let scene = Scene::set(Ingest::Adaptive).await;
    let (mut client, _) = V1::connect(&scene.server, scene.bob.id, None).await;
    let mut connection = scene.server.database().connect().await;
    execute(&mut connection, "LISTEN messages_channel").await;
    let mut owner = scene.server.database().connect().await;
    until("the server holds the wake lock", async || {
        // In one statement: 50 statements may take longer than the rate admits.
        sqlx::query(
            "INSERT INTO messages (logical_msg_id, to_user_id, header, ciphertext)
             SELECT 'm', $1, '{}', 'c' FROM generate_series(1, 500)",
        )
        .bind(scene.bob.id)
        .execute(&scene.db)
        .await
        .unwrap();
        client.ids(500).await;
        sqlx::query_scalar("SELECT NOT pg_try_advisory_xact_lock_shared(realtime.doorbell())")
            .fetch_one(&mut owner)
            .await
            .unwrap()
    })
    .await;
}
