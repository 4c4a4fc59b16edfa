//! How old events are: live deliveries in one histogram, replays in another.

use hushnet_realtime::config::Config;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Client, Database, Server, User, add_user, insert_message, until};

const DELIVERIES: &str = "hushnet_delivery_latency_seconds";
const REPLAYS: &str = "hushnet_replay_age_seconds";
/// In seconds. No other time gives an event this age.
const HOUR: f64 = 3_600.0;

/// A service with two users. The messages are for Bob.
struct Scene {
    server: Server,
    db: PgPool,
    alice: User,
    bob: User,
}

impl Scene {
    async fn set(change: impl FnOnce(&mut Config)) -> Self {
        let database = Database::migrated().await;
        let db = database.pool().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let server = Server::start_on(database, change).await;
        Self {
            server,
            db,
            alice,
            bob,
        }
    }

    /// Messages in one transaction, whose rows say that they are an hour old when they are committed.
    async fn insert_aged(&self, count: usize) {
        let owner = self.server.database().owner_pool().await;
        let mut transaction = owner.begin().await.unwrap();
        for _ in 0..count {
            insert_message(&mut *transaction, None, &self.alice, &self.bob).await;
        }
        let aged = "UPDATE realtime.events SET created_at = created_at - interval '1 hour'
                    WHERE user_id = $1 AND xid = pg_current_xact_id()";
        sqlx::query(aged)
            .bind(self.bob.id)
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    /// Bob connects to this server, with a cursor if he has one, and takes the `hello`. Returns the cursor in it.
    async fn connect(&self, server: &Server, since: Option<&str>) -> (Client, String) {
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        let path = format!("/ws?user_id={}{since}", self.bob.id);
        let mut client = server.connect_v1(&path).await;
        let hello = client.next_json().await;
        assert_eq!(hello["type"], json!("hello"), "{hello}");
        (client, hello["cursor"].as_str().unwrap().to_owned())
    }
}

/// Takes so many messages.
async fn take(client: &mut Client, mut count: usize) {
    while count > 0 {
        if client.next_json().await["type"] == "message" {
            count -= 1;
        }
    }
}

async fn sum(server: &Server, histogram: &str) -> f64 {
    server.metric(&format!("{histogram}_sum")).await
}

async fn count(server: &Server, histogram: &str) -> f64 {
    server.metric(&format!("{histogram}_count")).await
}

#[tokio::test]
async fn a_replay_is_no_latency_and_has_a_histogram_of_its_own() {
    let scene = Scene::set(|_| {}).await;
    let (away, cursor) = scene.connect(&scene.server, None).await;
    drop(away);
    scene.insert_aged(20).await;
    scene
        .server
        .until_metric("hushnet_events_received_total{kind=\"message\"}", 20.0)
        .await;
    // Another server has nothing of it in its replay buffer.
    let other = Server::start_on(scene.server.database().clone(), |_| {}).await;
    // The message that is inserted in the first round is missed in the second.
    for (server, source, missed) in [(&scene.server, "memory", 20), (&other, "log", 21)] {
        let (mut back, _) = scene.connect(server, Some(&cursor)).await;
        take(&mut back, missed).await;
        let replays = format!("hushnet_replays_total{{cause=\"resume\",source=\"{source}\"}}");
        assert!(server.metric(&replays).await >= 1.0, "{source}");
        server.until_metric(&format!("{REPLAYS}_count"), 1.0).await;
        let age = sum(server, REPLAYS).await;
        assert!(age >= HOUR, "{source}: {age} s");
        // A replay is no backlog of the user's channel either.
        let backlog = server.metric("hushnet_channel_backlog_max").await;
        assert!(backlog < 20.0, "{source}: {backlog}");

        insert_message(&scene.db, None, &scene.alice, &scene.bob).await;
        take(&mut back, 1).await;
        server
            .until_metric(&format!("{DELIVERIES}_count"), 1.0)
            .await;
        let latency = sum(server, DELIVERIES).await;
        assert!(latency < HOUR, "{source}: {latency} s");
    }
}

/// The client was connected when the events were committed: that they came late is latency.
#[tokio::test]
async fn events_that_repair_a_lag_count_as_late_deliveries() {
    let scene = Scene::set(|config| config.user_channel_capacity = 1).await;
    let (mut bob, _) = scene.connect(&scene.server, None).await;
    let mut inserted = 0;
    until("a lag", async || {
        scene.insert_aged(200).await;
        inserted += 200;
        scene.server.metric("hushnet_lags_total").await >= 1.0
    })
    .await;
    take(&mut bob, inserted).await;
    let sampled = count(&scene.server, DELIVERIES).await;
    insert_message(&scene.db, None, &scene.alice, &scene.bob).await;
    take(&mut bob, 1).await;
    scene
        .server
        .until_metric(&format!("{DELIVERIES}_count"), sampled + 1.0)
        .await;
    assert!(sum(&scene.server, DELIVERIES).await >= HOUR);
    let replays = count(&scene.server, REPLAYS).await;
    assert!(replays < 1.0, "{replays}");
}
