//! Kinds of one's own: a row of `realtime.sources`, its trigger, and its events in the log and in the notification.

use hushnet_realtime::config::{Config, Ingest};
use hushnet_realtime::store::Log;
use serde_json::{Value, json};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{Client, Database, Server, execute, soon};

mod changed;
mod definitions;
mod failed;
mod faults;
mod rights;
mod rows;

const ANN: &str = "00000000-0000-0000-0000-00000000000a";
const BEN: &str = "00000000-0000-0000-0000-00000000000b";

/// A table whose every name has to be quoted, in a database with nothing of HushNet's.
const LINES: &str = r#"
    CREATE SCHEMA "My Shop";
    CREATE TABLE "My Shop"."Order Lines" ("Order" int, "line.No" text, "buyer id" uuid, status text, "Qty" int,
        secret text DEFAULT 'never shown', PRIMARY KEY ("line.No", "Order"))"#;

struct Shop {
    database: Database,
    owner: PgConnection,
    listener: PgListener,
}

impl Shop {
    async fn open() -> Self {
        let database = Database::empty().await;
        database.up().await;
        let mut shop = Self::of(database).await;
        shop.run(LINES).await;
        shop
    }

    /// In a database that has the log.
    async fn of(database: Database) -> Self {
        let mut owner = database.connect().await;
        execute(&mut owner, "SET synchronous_commit = on").await;
        let mut listener = PgListener::connect(&database.owner_url()).await.unwrap();
        listener.listen("realtime_events").await.unwrap();
        Self {
            database,
            owner,
            listener,
        }
    }

    async fn run(&mut self, statements: &str) {
        execute(&mut self.owner, statements).await;
    }

    async fn number(&mut self, query: &str) -> i64 {
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        query.fetch_one(&mut self.owner).await.unwrap()
    }

    async fn refused(&mut self, statement: &str) -> String {
        let refused = sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.owner)
            .await;
        refused.expect_err(statement).to_string()
    }

    /// The events of the log after this one, each without its id; each was notified, to the letter.
    async fn events_after(&mut self, last: i64) -> Vec<(String, Value)> {
        let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
            "SELECT id, user_id::text, xid::text, payload FROM realtime.events WHERE id > $1 ORDER BY id",
        )
        .bind(last)
        .fetch_all(&mut self.owner)
        .await
        .unwrap();
        let mut events = Vec::new();
        for (id, user, xid, payload) in rows {
            let notification = soon("a notification", self.listener.recv()).await.unwrap();
            let body = payload.strip_suffix('}').unwrap();
            assert_eq!(notification.payload(), format!("{body}, \"xid\" : {xid}}}"));
            let mut event: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(event.as_object_mut().unwrap().remove("id"), Some(id.into()));
            assert_eq!(event["user_id"], user);
            events.push((payload, event));
        }
        events
    }

    async fn last_id(&mut self) -> i64 {
        self.number("SELECT coalesce(max(id), 0) FROM realtime.events")
            .await
    }

    async fn faults(&self) -> Vec<String> {
        let log = Log::new(self.database.owner().options(), 1);
        let faults = log.trigger_faults().await.unwrap();
        faults.iter().map(ToString::to_string).collect()
    }

    async fn kinds(&self) -> Vec<String> {
        let log = Log::new(self.database.owner().options(), 1);
        log.kinds().await.unwrap()
    }

    /// The names of the triggers of the application's tables.
    async fn triggers(&mut self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT tgname::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
             WHERE NOT tgisinternal AND relnamespace::regnamespace::text <> 'realtime' ORDER BY 1",
        )
        .fetch_all(&mut self.owner)
        .await
        .unwrap()
    }
}

const ADD_LINES: &str = r#"SELECT realtime.add_source('order.line', '"My Shop"."Order Lines"', 'buyer id',
    fields => '{status,Qty}', condition => 'NEW.status <> ''draft''')"#;

#[tokio::test]
async fn a_kind_of_one_s_own_is_in_the_log_and_in_the_notification() {
    let mut shop = Shop::open().await;
    shop.run(ADD_LINES).await;
    shop.run(&format!(
        r#"INSERT INTO "My Shop"."Order Lines" VALUES (1, 'a', '{ANN}', 'new', 3), (2, 'a', '{ANN}', 'draft', 1),
           (3, 'a', NULL, 'new', 1)"#
    ))
    .await;
    let key = json!({"line.No": "a", "Order": 1});
    let events = shop.events_after(0).await;
    let inserted = json!({"type": "order.line", "op": "insert", "user_id": ANN, "key": key,
        "row": {"status": "new", "Qty": 3}});
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1, inserted);
    assert!(
        events[0].0.starts_with(&format!(
            r#"{{"type" : "order.line", "op" : "insert", "user_id" : "{ANN}", "key" : {{"line.No":"a","Order":1}}, "row" : "#
        )),
        "{}",
        events[0].0
    );
    // The row changes hands: who had it is not shown what it has become.
    let last = shop.last_id().await;
    shop.run(&format!(
        r#"UPDATE "My Shop"."Order Lines" SET "buyer id" = '{BEN}', "Qty" = 4 WHERE "Order" = 1"#
    ))
    .await;
    let events = shop.events_after(last).await;
    let gained = json!({"type": "order.line", "op": "insert", "user_id": BEN, "key": key,
        "row": {"status": "new", "Qty": 4}});
    let gone = json!({"type": "order.line", "op": "delete", "user_id": ANN, "key": key});
    assert_eq!(
        events.iter().map(|event| &event.1).collect::<Vec<_>>(),
        [&gained, &gone]
    );
    let last = shop.last_id().await;
    shop.run(r#"DELETE FROM "My Shop"."Order Lines""#).await;
    let events = shop.events_after(last).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0].1["op"], &events[0].1["user_id"]),
        (&"delete".into(), &BEN.into())
    );
    // A table with a source is truncated for all.
    shop.run(r#"TRUNCATE "My Shop"."Order Lines""#).await;
    let truncated =
        "SELECT count(*) FROM realtime.events WHERE kind = 'truncated' AND source IS NULL";
    assert_eq!(shop.number(truncated).await, 1);
    assert_eq!(shop.kinds().await, ["order.line"]);
}

#[tokio::test]
async fn an_audience_that_is_a_query_names_each_user_once() {
    let mut shop = Shop::open().await;
    shop.run(
        "CREATE TABLE posts (id int PRIMARY KEY, realtime_user text, u text);
         CREATE TABLE readers (post int, reader uuid, u int)",
    )
    .await;
    shop.run(&format!(
        "INSERT INTO readers VALUES (1, '{ANN}'), (1, '{BEN}'), (1, '{BEN}'), (1, NULL), (2, '{ANN}');
         SELECT realtime.add_source('post', 'posts', $$
             SELECT reader FROM public.readers WHERE post = NEW.id -- whoever reads it
         $$, '{{insert,delete}}')"
    ))
    .await;
    shop.run("INSERT INTO posts VALUES (1)").await;
    shop.run("UPDATE posts SET u = 'x'").await;
    shop.run("DELETE FROM posts").await;
    let events = shop.events_after(0).await;
    let mut short: Vec<_> = events
        .iter()
        .map(|(_, event)| {
            format!(
                "{} {} {}",
                event["op"], event["user_id"], event["key"]["id"]
            )
        })
        .collect();
    short[..2].sort();
    short[2..].sort();
    let expected =
        ["insert", "delete"].map(|op| [ANN, BEN].map(|user| format!("\"{op}\" \"{user}\" 1")));
    assert_eq!(short, expected.concat());
    assert!(events[0].1.get("row").is_none(), "no fields were named");
}

async fn next_but_cursors(client: &mut Client) -> Value {
    loop {
        let frame = client.next_json().await;
        if frame["type"] != "cursor" {
            return frame;
        }
    }
}

/// In each way of ingest a server delivers a kind that it did not know when it was started.
#[tokio::test]
async fn a_kind_that_comes_while_a_server_runs_reaches_its_user() {
    for ingest in [Ingest::Notify, Ingest::Tail, Ingest::Adaptive] {
        let mut shop = Shop::open().await;
        let change = |config: &mut Config| config.ingest = Some(ingest);
        let server = Server::start_on(shop.database.clone(), change).await;
        let mut client = server.connect_v1(&format!("/ws?user_id={ANN}")).await;
        assert_eq!(client.next_json().await["type"], "hello");
        shop.run(ADD_LINES).await;
        shop.run(&format!(
            r#"INSERT INTO "My Shop"."Order Lines" VALUES (1, 'a', '{ANN}', 'new', 3)"#
        ))
        .await;
        let event = next_but_cursors(&mut client).await;
        assert_eq!(event["type"], "order.line", "{event}");
        assert_eq!(event["key"], json!({"line.No": "a", "Order": 1}));
        assert_eq!(event["row"], json!({"status": "new", "Qty": 3}));
        shop.run(r#"TRUNCATE "My Shop"."Order Lines""#).await;
        assert_eq!(next_but_cursors(&mut client).await["reason"], "truncated");
    }
}
