//! Large events of users of each type.

use serde_json::{Value, json};

use super::{
    Ingest, NUMBERS, Server, TEXTS, UUIDS, Users, encoded, events, execute, in_the_view, quoted,
    shop,
};

/// The lengths of the notes: one that stands in each row, one that is kept once, one that is not notified, one that waits
/// in the log, and one of which clients are sent the key.
const NOTES: [usize; 5] = [10, 1_500, 20_000, 700_000, 1_100_000];
/// The id of the row with a key that is longer than the smaller setting.
const LONG_KEY: usize = NOTES.len();

fn posts(users: &Users) -> String {
    let (ann, ben) = (quoted(users.ann), quoted(users.ben));
    format!(
        "CREATE TABLE members (id {} PRIMARY KEY);
         INSERT INTO members VALUES ({ann}), ({ben});
         CREATE TABLE posts (id int, part text, note text, PRIMARY KEY (id, part));
         SELECT realtime.add_source('order', 'posts', 'SELECT id FROM public.members', fields => '{{note}}')",
        users.column
    )
}

/// What a client is sent of each, where events of so many bytes are sent whole.
fn expected(user_id: &str, bytes_max: usize) -> Vec<Value> {
    let long_key = std::iter::once((LONG_KEY, 20));
    let rows = NOTES.into_iter().enumerate().chain(long_key);
    rows.map(|(id, note)| {
        let is_long_key = id == LONG_KEY && bytes_max < 9_000;
        let part = "k".repeat(if id == LONG_KEY { 9_000 } else { 0 });
        let mut event = json!({"type": "order", "op": "insert", "user_id": user_id});
        event["key"] = if is_long_key {
            json!({"id": null, "part": null})
        } else {
            json!({"id": id, "part": part})
        };
        if note > bytes_max || is_long_key {
            event["truncated"] = json!(true);
        } else {
            event["row"] = json!({"note": "x".repeat(note)});
        }
        event
    })
    .collect()
}

fn values(texts: &[String]) -> Vec<Value> {
    texts.iter().map(|text| super::without_id(text)).collect()
}

#[tokio::test]
async fn large_events_reach_users_of_each_type() {
    for users in [UUIDS, NUMBERS, TEXTS] {
        for ingest in [Ingest::Notify, Ingest::Tail] {
            let (database, mut owner) = shop(users.column).await;
            execute(&mut owner, &posts(&users)).await;
            let server = Server::start_on(database.clone(), |config| {
                config.ingest = Some(ingest);
            })
            .await;
            let mut live = Vec::new();
            for id in [users.ann, users.ben] {
                let path = format!("/ws?user_id={}&kinds=order", encoded(id));
                let hello = server.connect_v1(&path).await.next_json().await;
                let since = hello["cursor"].as_str().unwrap().to_owned();
                live.push((
                    id,
                    format!("{path}&since={since}"),
                    server.connect_to(&path).await,
                ));
            }
            for (id, note) in NOTES.into_iter().enumerate() {
                let insert = format!("INSERT INTO posts VALUES ({id}, '', repeat('x', {note}))");
                execute(&mut owner, &insert).await;
            }
            let insert = format!(
                "INSERT INTO posts VALUES ({LONG_KEY}, repeat('k', 9000), repeat('x', 20))"
            );
            execute(&mut owner, &insert).await;
            let count = LONG_KEY + 1;
            let smaller = Server::start_on(database.clone(), |config| {
                config.event_bytes_max = 8_192;
            })
            .await;
            for (id, back, mut live) in live {
                let shown = in_the_view(&mut owner, users.key(id)).await;
                let wanted = expected(id, 1 << 20);
                assert!(values(&shown) == wanted, "{ingest:?} {id}");
                assert!(events(&mut live, count).await == shown, "{ingest:?} {id}");
                let mut replayed = server.connect_v1(&back).await;
                assert!(events(&mut replayed, count).await == shown, "{id}");
                let mut shortened = smaller.connect_v1(&back).await;
                let shortened = events(&mut shortened, count).await;
                assert!(values(&shortened) == expected(id, 8_192), "{id}");
            }
        }
    }
}

/// Each row has its own user's id; all share the rest. The bodies are read from the log by reference, live and replayed,
/// and are exact to the byte against each one's own limit.
#[tokio::test]
async fn a_body_for_many_users_of_text_is_in_the_log_once() {
    const USERS: usize = 300;
    for (bytes, ingest) in [
        (300_000, Ingest::Tail),
        (5_000, Ingest::Notify),
        (1_200_000, Ingest::Notify),
    ] {
        let (database, mut owner) = shop("text").await;
        let members = format!(
            "CREATE TABLE members (id text PRIMARY KEY);
             INSERT INTO members SELECT repeat('\"é', n % 7) || n FROM generate_series(1, {USERS}) AS n;
             CREATE TABLE posts (id int PRIMARY KEY, note text);
             SELECT realtime.add_source('order', 'posts', 'SELECT id FROM public.members', fields => '{{note}}')"
        );
        execute(&mut owner, &members).await;
        let server = Server::start_on(database.clone(), |config| {
            config.ingest = Some(ingest);
        })
        .await;
        let mut clients = Vec::new();
        for user in ["\"é1", "\"é\"é\"é\"é\"é\"é20", "7"] {
            let path = format!("/ws?user_id={}&kinds=order", encoded(user));
            let hello = server.connect_v1(&path).await.next_json().await;
            let since = hello["cursor"].as_str().unwrap().to_owned();
            clients.push((
                user,
                format!("{path}&since={since}"),
                server.connect_to(&path).await,
            ));
        }
        let size = "SELECT sum(pg_total_relation_size('realtime.' || name))::bigint FROM realtime.partitions";
        let before: i64 = scalar(&mut owner, size).await;
        // It does not compress.
        let insert = format!(
            "INSERT INTO posts SELECT 1, left(string_agg(md5(random()::text), ''), {bytes})
             FROM generate_series(1, {bytes} / 32 + 1)"
        );
        execute(&mut owner, &insert).await;
        let grown = scalar(&mut owner, size).await - before;
        assert!(grown < 3 * bytes + 400_000, "{grown}");
        let note: String = sqlx::query_scalar("SELECT note FROM posts")
            .fetch_one(&mut owner)
            .await
            .unwrap();
        for (user, back, mut live) in clients {
            let mut expected =
                json!({"type": "order", "op": "insert", "user_id": user, "key": {"id": 1}});
            if note.len() > 1 << 20 {
                expected["truncated"] = json!(true);
            } else {
                expected["row"] = json!({ "note": note });
            }
            let live = events(&mut live, 1).await;
            assert!(values(&live) == [expected], "{ingest:?} {user}");
            let mut replayed = server.connect_v1(&back).await;
            assert!(events(&mut replayed, 1).await == live, "{user}");
        }
        let of_each = "SELECT count(*) FROM realtime.events AS e JOIN members AS m
             ON e.user_id = realtime.user_key(m.id) AND e.payload::jsonb ->> 'user_id' = m.id";
        assert_eq!(scalar(&mut owner, of_each).await, 300);
    }
}

async fn scalar(owner: &mut sqlx::PgConnection, query: &str) -> i64 {
    let value = sqlx::query_scalar(sqlx::AssertSqlSafe(query));
    value.fetch_one(owner).await.unwrap()
}
