//! Replays of more events than one statement can read: of one transaction, and of many. What is measured is what
//! PostgreSQL read of the log's indexes, never a time.

use hushnet_realtime::config::Ingest;
use hushnet_testkit::client::{self, SUBPROTOCOL_HEADER};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{Client, Database, Server, execute, until};

/// More than are counted.
const EVENTS: usize = 120_000;
/// The planner knows the log.
pub const ANALYZE: &str = "ANALYZE realtime.log";
/// `replayed` in the `hello` is not more.
const COUNTED_MAX: usize = 100_000;

/// So many events of each of these users in one transaction, in turn, written straight into the log.
async fn write(db: &PgPool, users: &[Uuid], events: usize) {
    let insert = "INSERT INTO realtime.events (id, user_id, kind, payload)
        SELECT id, user_id, 'message', json_build_object(
            'type', 'message', 'chat_id', NULL, 'user_id', user_id, 'id', id)
        FROM (SELECT nextval('realtime.events_id_seq') AS id, user_id
              FROM generate_series(1, $2), unnest($1) AS user_id) AS next";
    let insert = sqlx::query(insert)
        .bind(users)
        .bind(i64::try_from(events).unwrap());
    insert.execute(db).await.unwrap();
}

async fn connect(server: &Server, user: Uuid, since: &str) -> (Client, Value) {
    let request = client::request(
        &format!("ws://{}/ws?user_id={user}&since={since}", server.address()),
        &[(SUBPROTOCOL_HEADER, "hushnet.v1")],
    );
    let (mut client, _) = Client::connect(request, None, |_| {}).await.unwrap();
    let hello = client.next_json().await;
    (client, hello)
}

/// Entries of the log's indexes that have been read, when no session of the service is left: each has said what it
/// read by its end.
pub async fn entries_read(db: &PgPool) -> i64 {
    until("every session of the service has ended", async || {
        let ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'hushnet-realtime')";
        sqlx::query_scalar(ended).fetch_one(db).await.unwrap()
    })
    .await;
    let entries = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
        WHERE schemaname = 'realtime' AND relname LIKE 'events\\_%'";
    sqlx::query_scalar(entries).fetch_one(db).await.unwrap()
}

/// A log that a client has not seen, and the cursor of that client.
struct Scene {
    database: Database,
    db: PgPool,
    cursor: String,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::migrated().await;
        let db = database.owner_pool().await;
        let mut server = Self::serve(&database).await;
        let user = Uuid::new_v4();
        let mut client = server.connect_v1(&format!("/ws?user_id={user}")).await;
        let hello = client.next_json().await;
        let cursor = hello["cursor"].as_str().unwrap().to_owned();
        drop(client);
        server.begin_stop();
        server.stopped().await.unwrap();
        Self {
            database,
            db,
            cursor,
        }
    }

    /// Every server has an empty replay buffer, and reads nothing of the log for itself.
    async fn serve(database: &Database) -> Server {
        Server::start_on(database.clone(), |config| {
            config.ingest = Some(Ingest::Notify);
        })
        .await
    }

    /// A client comes back and reads all of its user's events. Returns how many its `hello` counted, and the entries
    /// of indexes that were read for it.
    async fn replay(&self, user: Uuid) -> (usize, usize) {
        let ids = "SELECT id FROM realtime.events WHERE user_id = $1 ORDER BY id";
        let logged: Vec<i64> = sqlx::query_scalar(ids)
            .bind(user)
            .fetch_all(&self.db)
            .await
            .unwrap();
        // This session's own reads are counted by now, or never.
        execute(
            &mut self.database.connect().await,
            "SELECT pg_stat_force_next_flush()",
        )
        .await;
        self.db.close().await;
        let db = self.database.owner_pool().await;
        let before = entries_read(&db).await;
        let mut server = Self::serve(&self.database).await;
        let (mut client, hello) = connect(&server, user, &self.cursor).await;
        assert_eq!(hello["resumed"], json!(true), "{hello}");
        let counted = hello["replayed"].as_u64().unwrap();
        let mut ids = Vec::new();
        while ids.len() < logged.len() {
            let frame = client.next_json().await;
            assert_eq!(frame["type"], "message", "{frame}");
            ids.push(frame["id"].as_i64().unwrap());
        }
        assert!(ids == logged, "another order");
        let total = server.metric("hushnet_events_replayed_total").await;
        assert!((total - logged.len() as f64).abs() < 1.0, "{total}");
        drop(client);
        server.begin_stop();
        server.stopped().await.unwrap();
        (
            usize::try_from(counted).unwrap(),
            usize::try_from(entries_read(&db).await - before).unwrap(),
        )
    }
}

#[tokio::test]
async fn a_page_costs_what_it_returns_however_many_events_are_left() {
    // Of few transactions, each one's events are found by themselves. Of many, those of the others are read too. The
    // first page counts.
    for (transactions, bound, change) in [
        (1, 3 * EVENTS, ""),
        (1, 3 * EVENTS, ANALYZE),
        (150, 5 * EVENTS, ""),
        (150, 5 * EVENTS, ANALYZE),
    ] {
        let scene = Scene::set().await;
        let user = Uuid::new_v4();
        let users = [user, Uuid::new_v4(), Uuid::new_v4()];
        for _ in 0..transactions {
            write(&scene.db, &users, EVENTS / transactions).await;
        }
        execute(&mut scene.database.connect().await, change).await;
        let (counted, entries) = scene.replay(user).await;
        println!("{transactions} transactions: {entries} entries {change}");
        assert_eq!(counted, COUNTED_MAX);
        assert!(entries < bound, "{entries} entries, {bound} at most");
    }
}

#[tokio::test]
async fn few_events_cost_the_same_in_a_log_of_many() {
    for change in ["", ANALYZE] {
        let scene = Scene::set().await;
        let (user, other) = (Uuid::new_v4(), Uuid::new_v4());
        for _ in 0..10 {
            write(&scene.db, &[user], 1).await;
            write(&scene.db, &[other], EVENTS / 10).await;
        }
        execute(&mut scene.database.connect().await, change).await;
        let (counted, entries) = scene.replay(user).await;
        println!("{entries} entries {change}");
        assert_eq!(counted, 10);
        assert!(entries < 100, "{entries} entries");
    }
}

#[tokio::test]
async fn a_page_that_takes_too_long_is_read_again_and_the_client_is_not_closed() {
    let scene = Scene::set().await;
    let user = Uuid::new_v4();
    write(&scene.db, &[user], 3).await;
    let server = Scene::serve(&scene.database).await;
    let mut holder = scene.database.connect().await;
    execute(
        &mut holder,
        "BEGIN; LOCK TABLE realtime.events IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let admin = scene.database.admin_pool().await;
    let released = async {
        let reads = async || {
            let reads = "SELECT query_start::text FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'hushnet-realtime'
                      AND wait_event_type = 'Lock' AND query LIKE 'WITH reading%'";
            let reads: Vec<String> = sqlx::query_scalar(reads).fetch_all(&admin).await.unwrap();
            reads.into_iter().next()
        };
        let mut first = None;
        until("a page waits", async || {
            first = reads().await;
            first.is_some()
        })
        .await;
        until("it has been ended", async || reads().await != first).await;
        execute(&mut holder, "ROLLBACK").await;
    };
    let ((mut client, hello), ()) = tokio::join!(connect(&server, user, &scene.cursor), released);
    assert_eq!(hello["replayed"], json!(3), "{hello}");
    for _ in 0..3 {
        assert_eq!(client.next_json().await["type"], "message");
    }
}
