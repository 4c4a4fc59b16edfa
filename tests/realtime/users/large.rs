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
