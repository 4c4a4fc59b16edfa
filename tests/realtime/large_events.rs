//! Events of any size: live and replayed the same bytes up to the setting, above it the key alone; the log has a body
//! once, and no queue has more than its bound.

use hushnet_realtime::config::{Config, Ingest};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::support::{Client, Database, Server, execute};

mod memory;

const OWNER: Uuid = Uuid::from_u128(7);
/// The longest event that any setting lets through.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// A table of texts for one user, and another for all members.
const TABLES: &str = "
    CREATE TABLE notes (id bigint, part text, owner uuid, body text, PRIMARY KEY (id, part));
    SELECT realtime.add_source('note', 'public.notes', 'owner', fields => '{body}');
    CREATE TABLE members (id uuid PRIMARY KEY);
    CREATE TABLE posts (id bigint PRIMARY KEY, body text);
    SELECT realtime.add_source('post', 'public.posts', 'SELECT id FROM public.members', fields => '{body}')";

struct Scene {
    server: Server,
    owner: PgConnection,
}

impl Scene {
    async fn set(change: impl FnOnce(&mut Config)) -> Self {
        let database = Database::migrated().await;
        let mut owner = database.connect().await;
        execute(&mut owner, TABLES).await;
        let server = Server::start_on(database, change).await;
        Self { server, owner }
    }

    async fn run(&mut self, statement: &str) {
        execute(&mut self.owner, statement).await;
    }

    async fn scalar<T>(&mut self, query: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        query.fetch_one(&mut self.owner).await.unwrap()
    }

    /// Inserts a note whose event has this length as JSON.
    async fn insert_note(&mut self, id: i64, bytes: usize) {
        // The ids of the log have one length for a long time.
        let empty = self.empty_bytes(id).await;
        let body = bytes.checked_sub(empty).unwrap();
        self.run(&format!(
            "INSERT INTO notes VALUES ({id}, '', '{OWNER}', repeat('x', {body}))"
        ))
        .await;
    }

    async fn empty_bytes(&mut self, id: i64) -> usize {
        let id_digits: i32 = self
            .scalar("SELECT length(last_value::text) FROM realtime.events_id_seq")
            .await;
        let event = format!(
            r#"{{"type" : "note", "op" : "insert", "user_id" : "{OWNER}", "key" : {{"id":{id},"part":""}}, "row" : {{"body":""}}, "id" : }}"#
        );
        event.len() + usize::try_from(id_digits).unwrap()
    }

    /// The user's events in the order of the view, as it shows them, without what only the service reads.
    async fn shown(&mut self, user: Uuid) -> Vec<String> {
        let query = format!(
            "SELECT replace(payload, ', \"asynchronous\" : true', '') FROM realtime.events
             WHERE user_id = '{user}' ORDER BY id"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        query.fetch_all(&mut self.owner).await.unwrap()
    }

    async fn since(&self, user: Uuid) -> String {
        let mut client = self.server.connect_v1(&path(user)).await;
        let hello = client.next_json().await;
        hello["cursor"].as_str().unwrap().to_owned()
    }
}

fn path(user: Uuid) -> String {
    format!("/ws?user_id={user}&kinds=*")
}

async fn texts(client: &mut Client, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(client.next_text().await);
    }
    texts
}

/// The events that a client of v1 is sent after `hello`, without their cursors.
async fn replayed(client: &mut Client, count: usize) -> Vec<String> {
    client.until_type("hello").await;
    let mut events = Vec::new();
    while events.len() < count {
        events.push(client.next_without_cursor().await);
    }
    events
}

/// So that a failure does not print megabytes.
fn lengths(events: &[String]) -> Vec<(usize, &str)> {
    let begin = |event: &'_ str| event.len().min(120);
    events
        .iter()
        .map(|event| (event.len(), &event[..begin(event)]))
        .collect()
}

fn assert_same(found: &[String], expected: &[String], what: &str) {
    assert!(
        found == expected,
        "{what}: {:?} and not {:?}",
        lengths(found),
        lengths(expected)
    );
}

#[tokio::test]
async fn an_event_of_any_size_is_the_same_bytes_live_and_replayed_and_in_the_view() {
    const SIZES: [usize; 12] = [
        7_900,
        7_999,
        8_000,
        8_001,
        8_200,
        16_383,
        16_384,
        16_385,
        65_537,
        200_000,
        EVENT_BYTES_MAX - 1,
        EVENT_BYTES_MAX,
    ];
    for ingest in [Ingest::Notify, Ingest::Tail, Ingest::Adaptive] {
        let mut scene = Scene::set(|config| config.ingest = Some(ingest)).await;
        let since = scene.since(OWNER).await;
        let mut live = scene.server.connect_to(&path(OWNER)).await;
        let mut envelopes = scene
            .server
            .connect_to(&format!("/ws/{OWNER}?kinds=*"))
            .await;
        for (id, bytes) in (0..).zip(SIZES) {
            scene.insert_note(id, bytes).await;
        }
        // A short one behind them does not overtake them.
        scene.insert_note(99, 500).await;
        let expected = scene.shown(OWNER).await;
        let sizes: Vec<_> = expected.iter().map(String::len).collect();
        assert_eq!(sizes[..SIZES.len()], SIZES);
        let sent = texts(&mut live, expected.len()).await;
        assert_same(&sent, &expected, "live");
        let sent = texts(&mut envelopes, expected.len()).await;
        let wrapped: Vec<_> = expected
            .iter()
            .map(|event| format!(r#"{{"event_type":"note","payload":{event}}}"#))
            .collect();
        assert_same(&sent, &wrapped, "in envelopes");
        let other = Server::start_on(scene.server.database().clone(), |_| {}).await;
        for (server, what) in [(&scene.server, "from memory"), (&other, "from the log")] {
            let back = format!("{}&since={since}", path(OWNER));
            let mut back = server.connect_v1(&back).await;
            assert_same(&replayed(&mut back, expected.len()).await, &expected, what);
        }
    }
}

#[tokio::test]
async fn of_an_event_above_the_setting_clients_are_sent_the_key() {
    for (bytes_max, ingest) in [
        (8_192, Ingest::Notify),
        (100_000, Ingest::Tail),
        (EVENT_BYTES_MAX, Ingest::Notify),
    ] {
        let mut scene = Scene::set(|config| {
            config.ingest = Some(ingest);
            config.event_bytes_max = u32::try_from(bytes_max).unwrap();
        })
        .await;
        let since = scene.since(OWNER).await;
        let mut live = scene.server.connect_to(&path(OWNER)).await;
        let sizes = [
            bytes_max - 1,
            bytes_max,
            bytes_max + 1,
            2 * bytes_max,
            5 << 20,
        ];
        for (id, bytes) in (0..).zip(sizes) {
            scene.insert_note(id, bytes).await;
        }
        let shown = scene.shown(OWNER).await;
        let sent = texts(&mut live, sizes.len()).await;
        assert_same(&sent[..2], &shown[..2], "as long as the setting");
        for (id, text) in sent.iter().enumerate().skip(2) {
            let mut event: Value = serde_json::from_str(text).unwrap();
            assert!(
                event
                    .as_object_mut()
                    .unwrap()
                    .remove("id")
                    .unwrap()
                    .is_i64()
            );
            let expected = json!({"type": "note", "op": "insert", "user_id": OWNER,
                "key": {"id": id, "part": ""}, "truncated": true});
            assert_eq!(event, expected);
        }
        // The log keeps none that no setting lets through.
        assert_eq!(sent[4], shown[4]);
        let back = format!("{}&since={since}", path(OWNER));
        let mut back = scene.server.connect_v1(&back).await;
        assert_same(&replayed(&mut back, sent.len()).await, &sent, "from memory");
        let other = Server::start_on(scene.server.database().clone(), |config| {
            config.event_bytes_max = u32::try_from(bytes_max).unwrap();
        })
        .await;
        let mut back = other
            .connect_v1(&format!("{}&since={since}", path(OWNER)))
            .await;
        assert_same(
            &replayed(&mut back, sent.len()).await,
            &sent,
            "from the log",
        );
    }
}

#[tokio::test]
async fn a_key_that_is_too_long_is_sent_as_null() {
    let mut scene = Scene::set(|config| config.event_bytes_max = 8_192).await;
    let mut live = scene.server.connect_to(&path(OWNER)).await;
    // An index takes what it can compress.
    for body in [1, 100_000] {
        scene
            .run(&format!(
                "INSERT INTO notes VALUES ({body}, repeat('k', 9000), '{OWNER}', repeat('x', {body}))"
            ))
            .await;
        let event = live.next_json().await;
        assert_eq!(event["key"], json!({"id": null, "part": null}));
        assert_eq!(event["truncated"], json!(true));
        assert_eq!(event.get("row"), None);
    }
}

#[tokio::test]
async fn an_event_that_the_log_has_as_json_is_bounded_too() {
    let mut scene = Scene::set(|config| config.event_bytes_max = 100_000).await;
    let since = scene.since(OWNER).await;
    let mut live = scene.server.connect_to(&path(OWNER)).await;
    for bytes in [20_000, 200_000, 2 << 20] {
        scene
            .run(&format!(
                "SELECT realtime.emit('realtime_events', '{OWNER}', 'note', json_build_object('type', 'note',
                     'user_id', '{OWNER}', 'key', json_build_object('id', 7), 'row', repeat('x', {bytes})))"
            ))
            .await;
    }
    let shown = scene.shown(OWNER).await;
    let sent = texts(&mut live, 3).await;
    assert_eq!(sent[0], shown[0]);
    let events = sent.iter().map(|text| serde_json::from_str(text).unwrap());
    let events: Vec<Value> = events.collect();
    assert_eq!(events[1]["key"], json!({"id": 7}));
    for event in &events[1..] {
        assert_eq!(event["truncated"], json!(true));
        assert_eq!(event.get("row"), None);
    }
    let mut back = scene
        .server
        .connect_v1(&format!("{}&since={since}", path(OWNER)))
        .await;
    assert_same(&replayed(&mut back, sent.len()).await, &sent, "replayed");
}

#[tokio::test]
async fn a_body_for_many_users_is_in_the_log_once_and_reaches_each() {
    const USERS: u128 = 300;
    const CONNECTED: u128 = 20;
    const BYTES: usize = 500_000;
    for ingest in [Ingest::Notify, Ingest::Tail] {
        let mut scene = Scene::set(|config| config.ingest = Some(ingest)).await;
        let user = |number: u128| Uuid::from_u128(1_000 + number);
        scene
            .run(&format!(
                "INSERT INTO members
                 SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(1000 + n), 12, '0'))::uuid
                 FROM generate_series(0, {USERS} - 1) AS n"
            ))
            .await;
        let size = "SELECT sum(pg_total_relation_size('realtime.' || name))::bigint FROM realtime.partitions";
        let before: i64 = scene.scalar(size).await;
        let since = scene.since(user(0)).await;
        let mut clients = Vec::new();
        for number in 0..CONNECTED {
            clients.push(scene.server.connect_to(&path(user(number))).await);
        }
        // It does not compress.
        scene
            .run(&format!(
                "INSERT INTO posts SELECT 1, left(string_agg(md5(random()::text), ''), {BYTES})
                 FROM generate_series(1, {BYTES} / 32 + 1)"
            ))
            .await;
        let grown = scene.scalar::<i64>(size).await - before;
        assert!(grown < 3 * i64::try_from(BYTES).unwrap(), "{grown}");
        let mut live = Vec::new();
        for client in &mut clients {
            live.push(client.next_text().await);
        }
        for (number, text) in (0..).zip(live) {
            assert_same(&[text], &scene.shown(user(number)).await, "live");
        }
        let expected = scene.shown(user(0)).await;
        let back = format!("{}&since={since}", path(user(0)));
        let mut back = scene.server.connect_v1(&back).await;
        assert_same(&replayed(&mut back, 1).await, &expected, "replayed");
        let complete = format!(
            "SELECT count(DISTINCT user_id) FROM realtime.events WHERE kind = 'post' AND octet_length(payload) > {BYTES}"
        );
        assert_eq!(
            scene.scalar::<i64>(&complete).await,
            i64::try_from(USERS).unwrap()
        );
    }
}

/// Retention drops each partition alone.
#[tokio::test]
async fn a_body_is_kept_again_in_a_partition_that_was_opened_meanwhile() {
    let mut scene = Scene::set(|_| {}).await;
    let number: i16 = scene
        .scalar("SELECT number FROM realtime.sources WHERE kind = 'post'")
        .await;
    let emit = |kept: &str| {
        format!(
            "SELECT realtime.emit({number}::smallint, '{OWNER}', 'i', ARRAY['1', to_json(repeat('x', 20000))::text], {kept}, false)"
        )
    };
    let kept: Vec<i64> = scene.scalar(&emit("NULL")).await;
    let same: Vec<i64> = scene
        .scalar(&emit(&format!("ARRAY{kept:?}::bigint[]")))
        .await;
    assert_eq!(same, kept);
    // The server may be at it itself.
    while scene.scalar::<String>("SELECT realtime.rotate('0')").await == "busy" {}
    let other: Vec<i64> = scene
        .scalar(&emit(&format!("ARRAY{kept:?}::bigint[]")))
        .await;
    assert_ne!(other[..2], kept[..2]);
    let alone: i64 = scene
        .scalar(
            "SELECT count(*) FROM realtime.log AS of WHERE body IS NULL OR EXISTS (
                 SELECT FROM realtime.log AS kept
                 WHERE kept.slot = of.slot AND kept.xid = of.xid AND kept.id = of.body)",
        )
        .await;
    // Each statement of this test is a transaction of its own.
    assert_eq!(alone, 2);
    let shown = scene.shown(OWNER).await;
    assert_eq!(shown.len(), 3);
    let bodies: Vec<_> = shown
        .iter()
        .map(|event| {
            event
                .split_once("\"row\"")
                .unwrap()
                .1
                .rsplit_once(',')
                .unwrap()
                .0
        })
        .collect();
    assert!(
        bodies
            .iter()
            .all(|body| *body == bodies[0] && body.len() > 20_000)
    );
    let mut client = scene.server.connect_to(&path(OWNER)).await;
    let changed = "INSERT INTO notes VALUES (1, '', '00000000-0000-0000-0000-000000000007', '')";
    scene.run(changed).await;
    // What was committed before may be on its way.
    while client.next_json().await["type"] != "note" {}
}
