//! Users of each type: uuid, bigint and text.

use std::str::FromStr;

use hushnet_realtime::config::Ingest;
use hushnet_realtime::protocol::{Encoding, UserKey, UserType};
use hushnet_testkit::client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::identity::{self, Key};
use crate::schema::assert_valid_frame;
use crate::support::{Client, Database, Server, execute, soon};

mod large;
mod refusals;

/// What a type of users is, and two of that type.
struct Users {
    user_type: UserType,
    /// The type of the application's column.
    column: &'static str,
    ann: &'static str,
    ben: &'static str,
}

const UUIDS: Users = Users {
    user_type: UserType::Uuid,
    column: "uuid",
    ann: "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    ben: "00000000-0000-0000-0000-00000000000b",
};
const NUMBERS: Users = Users {
    user_type: UserType::Bigint,
    column: "bigint",
    ann: "9223372036854775807",
    ben: "-42",
};
/// Each needs escapes: in JSON, in a URL, or in SQL.
const TEXTS: Users = Users {
    user_type: UserType::Text,
    column: "text",
    ann: "Zoë \"O'Hara\\\" %41+&=#?/. 雪 😀\t",
    ben: "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
};

impl Users {
    fn key(&self, id: &str) -> UserKey {
        self.user_type.parse(id).unwrap()
    }
}

fn encoded(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

fn quoted(id: &str) -> String {
    format!("'{}'", id.replace('\'', "''"))
}

/// A database with nothing of HushNet's and a table of orders, whose buyers are of this type.
async fn shop(column: &str) -> (Database, PgConnection) {
    let database = Database::empty().await;
    database.up().await;
    let mut owner = database.connect().await;
    let table = format!(
        "CREATE TABLE orders (id int PRIMARY KEY, buyer {column}, total int);
         SET synchronous_commit = on"
    );
    execute(&mut owner, &table).await;
    (database, owner)
}

const ADD_ORDERS: &str =
    "SELECT realtime.add_source('order', 'orders', 'buyer', fields => '{total}')";

/// Inserts an order of ann's, moves it to ben and deletes it.
async fn trade(owner: &mut PgConnection, users: &Users) {
    let (ann, ben) = (quoted(users.ann), quoted(users.ben));
    let statements = format!(
        "INSERT INTO orders VALUES (7, {ann}, 1); UPDATE orders SET buyer = {ben}, total = 2;
         DELETE FROM orders;
         INSERT INTO orders VALUES (8, NULL, 1); DELETE FROM orders"
    );
    execute(owner, &statements).await;
}

/// What the trade is to each: operation and total.
const ANN_S: [(&str, i32); 2] = [("insert", 1), ("delete", 1)];
const BEN_S: [(&str, i32); 2] = [("insert", 2), ("delete", 2)];

async fn scalar<T>(owner: &mut PgConnection, query: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let query = sqlx::query_scalar(AssertSqlSafe(query));
    query.fetch_one(owner).await.unwrap()
}

/// The JSON in the view of each of the user's events.
async fn in_the_view(owner: &mut PgConnection, key: UserKey) -> Vec<String> {
    let query = format!("SELECT payload FROM realtime.events WHERE user_id = '{key}' ORDER BY id");
    let query = sqlx::query_scalar(AssertSqlSafe(query));
    query.fetch_all(owner).await.unwrap()
}

/// The next events of the client without the cursors that come with them; other frames are passed over.
async fn events(client: &mut Client, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let text = client.next_without_cursor().await;
        if text.starts_with("{\"type\" : \"order\"") {
            events.push(text);
        }
    }
    events
}

fn expected(id: &str, (op, total): (&str, i32)) -> Value {
    let mut event = json!({"type": "order", "op": op, "user_id": id, "key": {"id": 7}});
    if op != "delete" {
        event["row"] = json!({"total": total});
    }
    event
}

fn without_id(text: &str) -> Value {
    let mut event = Value::from_str(text).unwrap();
    event.as_object_mut().unwrap().remove("id").unwrap();
    event
}

#[tokio::test]
async fn users_of_each_type_get_their_events_live_and_replayed() {
    for users in [UUIDS, NUMBERS, TEXTS] {
        for ingest in [Ingest::Notify, Ingest::Tail] {
            let (database, mut owner) = shop(users.column).await;
            execute(&mut owner, ADD_ORDERS).await;
            let server = Server::start_on(database.clone(), |config| {
                config.ingest = Some(ingest);
            })
            .await;
            let mut live = Vec::new();
            for (id, theirs) in [(users.ann, ANN_S), (users.ben, BEN_S)] {
                let path = format!("/ws?user_id={}&kinds=order", encoded(id));
                let mut v1 = server.connect_v1(&path).await;
                let hello = v1.next_json().await;
                let since = hello["cursor"].as_str().unwrap().to_owned();
                let plain = server.connect_to(&path).await;
                live.push((id, theirs, path, since, v1, plain));
            }
            trade(&mut owner, &users).await;
            let other = Server::start_on(database.clone(), |_| {}).await;
            for (id, theirs, path, since, mut v1, mut plain) in live {
                let shown = in_the_view(&mut owner, users.key(id)).await;
                let values: Vec<_> = shown.iter().map(|event| without_id(event)).collect();
                assert_eq!(values, theirs.map(|of| expected(id, of)), "{ingest:?}");
                assert_eq!(events(&mut v1, 2).await, shown);
                assert_eq!(events(&mut plain, 2).await, shown);
                for server in [&server, &other] {
                    let path = format!("{path}&since={since}");
                    let mut back = server.connect_v1(&path).await;
                    assert_eq!(events(&mut back, 2).await, shown);
                }
                // The log's own read for one user.
                let (_, snapshot) = since.split_once('.').unwrap();
                let (log, snapshot) = (database.log(1), snapshot.parse().unwrap());
                let mut pages = log.read_user(users.key(id), &snapshot, false);
                let page = soon("a page", pages.next()).await.unwrap();
                let frames = page.signals.into_iter();
                let frames = frames.map(|signal| signal.frame(Encoding::Plain).unwrap());
                let read: Vec<_> = frames.map(|frame| frame.as_text().to_owned()).collect();
                assert_eq!(read, shown);
            }
        }
    }
}

#[tokio::test]
async fn an_event_that_is_too_long_to_be_notified_comes_from_the_log() {
    for users in [NUMBERS, TEXTS] {
        let (database, mut owner) = shop(users.column).await;
        let add = "ALTER TABLE orders ADD note text;
            SELECT realtime.add_source('order', 'orders', 'buyer', fields => '{note}')";
        execute(&mut owner, add).await;
        let server = Server::start_on(database.clone(), |config| {
            config.ingest = Some(Ingest::Notify);
        })
        .await;
        let path = format!("/ws?user_id={}&kinds=order", encoded(users.ann));
        let mut client = server.connect_to(&path).await;
        // Around the longest that is notified.
        let lengths = (7_600..8_100).step_by(7).chain([20_000]);
        let mut count = 0;
        for (number, length) in lengths.enumerate() {
            let order = format!(
                "INSERT INTO orders VALUES ({number}, {}, 1, repeat('x', {length}))",
                quoted(users.ann)
            );
            execute(&mut owner, &order).await;
            count += 1;
        }
        let shown = in_the_view(&mut owner, users.key(users.ann)).await;
        assert_eq!(shown.len(), count);
        assert_eq!(events(&mut client, count).await, shown);
    }
}

#[tokio::test]
async fn the_audience_may_be_a_query_and_a_column_of_a_narrower_type_or_a_domain() {
    for (column, ids) in [
        ("smallint", ["7", "-7"]),
        ("int", ["7", "-7"]),
        ("varchar(20)", ["7", "Æ"]),
        ("number", ["7", "-7"]),
        ("name", ["7", "Æ"]),
        ("owner", [UUIDS.ann, UUIDS.ben]),
    ] {
        let (database, mut owner) = shop("uuid").await;
        let add =
            "CREATE SCHEMA shop; CREATE DOMAIN shop.number AS int CHECK (value <> 0);
             CREATE DOMAIN shop.long_name AS varchar; CREATE DOMAIN shop.name AS shop.long_name;
             CREATE DOMAIN shop.owner AS uuid; SET search_path = shop, public;
             DROP TABLE orders; CREATE TABLE public.orders (id int PRIMARY KEY, buyer shop_type, buyers shop_type[]);
             SELECT realtime.add_source('order', 'orders', 'buyer');
             SELECT realtime.add_source('group', 'orders', 'SELECT unnest(NEW.buyers) UNION ALL SELECT NEW.buyer')";
        let of_schema = ["number", "name", "owner"].contains(&column);
        let of_type = if of_schema {
            format!("shop.{column}")
        } else {
            column.to_owned()
        };
        execute(&mut owner, &add.replace("shop_type", &of_type)).await;
        let [one, two] = ids;
        let order = format!(
            "INSERT INTO orders VALUES (1, '{one}', ARRAY['{one}', '{two}', NULL, '{two}']::{of_type}[]);
             UPDATE orders SET buyer = '{two}', buyers = NULL"
        );
        execute(&mut owner, &order).await;
        let query = "SELECT string_agg(concat_ws(' ', payload::json ->> 'type', payload::json ->> 'op',
                payload::json ->> 'user_id'), ', ' ORDER BY payload::json ->> 'type', payload::json ->> 'op',
                payload::json ->> 'user_id' COLLATE \"C\" DESC) FROM realtime.events";
        let found: String = scalar(&mut owner, query).await;
        let mut both = ids;
        both.sort_unstable_by(|a, b| b.cmp(a));
        let [first, last] = both;
        assert_eq!(
            found,
            format!(
                "group delete {one}, group insert {first}, group insert {last}, group update {two}, order delete {one}, \
                 order insert {first}, order insert {last}"
            ),
            "{column}"
        );
        drop(database);
    }
}

#[tokio::test]
async fn the_key_is_the_same_in_the_database_and_in_the_server() {
    let (database, mut owner) = shop("uuid").await;
    let mut random = StdRng::seed_from_u64(3);
    let mut cases: Vec<(UserType, String)> = Vec::new();
    for round in 0..400 {
        let id = Uuid::from_u128(random.random());
        cases.push((UserType::Uuid, id.to_string()));
        let number = random.random::<i64>() >> (round % 64);
        cases.push((UserType::Bigint, number.to_string()));
        let length = random.random_range(1..60);
        let text: String = (0..length).map(|_| random.random::<char>()).collect();
        cases.push((UserType::Text, text.replace('\0', " ")));
    }
    for number in [i64::MIN, -1, 0, 1, i64::MAX] {
        cases.push((UserType::Bigint, number.to_string()));
    }
    for text in [
        "x".repeat(255),
        "é".repeat(127),
        "e\u{301}".into(),
        "é".into(),
        " ".into(),
    ] {
        cases.push((UserType::Text, text));
    }
    for (user_type, id) in cases {
        let query = format!("SELECT realtime.user_key($1::text::{})", user_type.name());
        let query = sqlx::query_scalar(AssertSqlSafe(query)).bind(&id);
        let key: Uuid = query.fetch_one(&mut owner).await.unwrap();
        assert_eq!(user_type.parse(&id), Ok(key.into()), "{user_type:?} {id:?}");
    }
    drop(database);
}

#[tokio::test]
async fn a_type_that_the_first_source_fixes_is_served_without_a_restart() {
    for ingest in [Ingest::Notify, Ingest::Adaptive, Ingest::Tail] {
        for users in [NUMBERS, TEXTS] {
            let (database, mut owner) = shop(users.column).await;
            let server = Server::start_on(database.clone(), |config| {
                config.ingest = Some(ingest);
            })
            .await;
            // Taken for a user whose id is a uuid.
            let mut before = server
                .connect_v1(&format!("/ws?user_id={}", UUIDS.ann))
                .await;
            before.until_type("hello").await;
            let path = format!("/ws?user_id={}&kinds=order", encoded(users.ann));
            let refused = server.get(&path).await;
            assert_eq!(refused.status, 400);
            assert!(refused.body.contains("must be a UUID"), "{}", refused.body);
            execute(&mut owner, ADD_ORDERS).await;
            assert_eq!(before.close_code().await, 1013);
            let mut client = server.connect_to(&path).await;
            trade(&mut owner, &users).await;
            let shown = in_the_view(&mut owner, users.key(users.ann)).await;
            assert_eq!(events(&mut client, 2).await, shown, "{ingest:?}");
        }
    }
}

#[tokio::test]
async fn a_token_s_sub_is_the_user_s_own_id() {
    let key = Key::p256();
    for (users, wrong) in [
        (UUIDS, json!("42")),
        (NUMBERS, json!("042")),
        (TEXTS, json!("x".repeat(256))),
    ] {
        let (database, mut owner) = shop(users.column).await;
        execute(&mut owner, ADD_ORDERS).await;
        let server =
            Server::start_on(database, |config| identity::takes_tokens(config, &key)).await;
        let request = |claims: &Value, named: &str| {
            let token = identity::token(&key, claims);
            format!(
                "GET /ws{named} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            )
        };
        let mut claims = identity::claims_of(&json!(users.ann));
        let query = |id: &str| format!("?user_id={}", encoded(id));
        let other_user = server
            .first_response(&request(&claims, &query(users.ben)))
            .await;
        assert!(
            other_user.body.contains("other_user"),
            "{}",
            other_user.body
        );
        claims["sub"] = wrong;
        let refused = server.first_response(&request(&claims, "")).await;
        assert!(refused.body.contains("token_subject"), "{}", refused.body);
        claims = identity::claims_of(&json!(users.ann));
        let token = identity::token(&key, &claims);
        let url = format!("ws://{}/ws?kinds=order", server.address());
        let bearer = format!("Bearer {token}");
        let request = client::request(&url, &[("authorization", &bearer)]);
        let connected = Client::connect(request, None, assert_valid_frame).await;
        let (mut client, _) = connected.unwrap();
        trade(&mut owner, &users).await;
        let shown = in_the_view(&mut owner, users.key(users.ann)).await;
        assert_eq!(events(&mut client, 2).await, shown);
    }
}

#[tokio::test]
async fn the_path_with_the_envelope_takes_an_encoded_id() {
    for users in [UUIDS, NUMBERS, TEXTS] {
        let (database, mut owner) = shop(users.column).await;
        execute(&mut owner, ADD_ORDERS).await;
        let server = Server::start_on(database, |_| {}).await;
        let path = format!("/ws/{}?kinds=order", encoded(users.ann));
        let mut client = server.connect_to(&path).await;
        trade(&mut owner, &users).await;
        let frame: Value = client.next_json().await;
        assert_eq!(frame["payload"]["user_id"], users.ann, "{frame}");
    }
}

#[tokio::test]
async fn two_spellings_of_a_text_are_two_users() {
    let (database, mut owner) = shop("text").await;
    execute(&mut owner, ADD_ORDERS).await;
    let server = Server::start_on(database, |_| {}).await;
    let spellings = [
        "Zo\u{eb}",
        "Zoe\u{308}",
        "zo\u{eb}",
        "Zo\u{eb} ",
        "雪",
        "שלום",
        "🏳️‍🌈",
        "x",
    ];
    let mut clients = Vec::new();
    for id in spellings {
        let path = format!("/ws?user_id={}&kinds=order", encoded(id));
        clients.push(server.connect_to(&path).await);
    }
    for (number, id) in spellings.iter().enumerate() {
        let order = format!("INSERT INTO orders VALUES ({number}, {}, 1)", quoted(id));
        execute(&mut owner, &order).await;
    }
    execute(
        &mut owner,
        "INSERT INTO orders SELECT id + 100, buyer, 2 FROM orders",
    )
    .await;
    for (id, mut client) in spellings.iter().zip(clients) {
        for text in events(&mut client, 2).await {
            assert_eq!(without_id(&text)["user_id"], *id);
        }
    }
}
