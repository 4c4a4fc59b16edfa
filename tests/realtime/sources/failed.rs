//! Events that cannot be made: the application's statement goes on, the log says so, and clients fetch their state anew.

use std::time::{Duration, Instant};

use hushnet_realtime::config::{Config, Ingest};
use serde_json::Value;

use super::{ANN, Shop, next_but_cursors};
use crate::support::{Client, Server, execute, soon};

/// A table, whose readers another table has.
const POSTS: &str = "
    CREATE TABLE readers (post int, reader text);
    CREATE TABLE posts (id int PRIMARY KEY, author text, body text, mood text);
    CREATE FUNCTION public.readers_of(id int) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
    BEGIN
        ASSERT id <> 7;
        IF id = 8 THEN RAISE serialization_failure; END IF;
        RETURN QUERY SELECT reader::uuid FROM public.readers WHERE post = id;
    END $$;
    SELECT realtime.add_source('post', 'posts', 'SELECT public.readers_of(NEW.id) UNION ALL SELECT NEW.author::uuid',
        fields => '{body,mood}', condition => 'NEW.body::int > 0', users_max => 3)";

impl Shop {
    async fn posts() -> Self {
        let mut shop = Self::open().await;
        shop.run(POSTS).await;
        shop
    }

    /// Runs the statement; returns the SQLSTATEs of the events that failed, and how many others there are.
    async fn failed(&mut self, statement: &str) -> (Vec<String>, i64) {
        let last = self.last_id().await;
        self.run(statement).await;
        let failed = sqlx::query_scalar(
            "SELECT payload::json ->> 'sqlstate' FROM realtime.events
             WHERE id > $1 AND user_id IS NULL AND kind = 'event_failed' ORDER BY id",
        );
        let failed = failed.bind(last).fetch_all(&mut self.owner).await.unwrap();
        let others = format!(
            "SELECT count(*) FROM realtime.events WHERE id > {last} AND user_id IS NOT NULL"
        );
        (failed, self.number(&others).await)
    }
}

#[tokio::test]
async fn what_fails_for_us_does_not_fail_for_the_application() {
    let mut shop = Shop::posts().await;
    for (statement, failed, others) in [
        ("INSERT INTO posts VALUES (1, NULL, '1')", "", 0),
        // The audience, the condition, an assertion, too many users.
        ("INSERT INTO posts VALUES (2, 'nobody', '1')", "22P02", 0),
        ("INSERT INTO posts VALUES (3, NULL, 'text')", "22P02", 0),
        ("INSERT INTO posts VALUES (7, NULL, '1')", "P0004", 0),
        (
            "INSERT INTO readers SELECT 4, gen_random_uuid() FROM generate_series(1, 3);
             INSERT INTO posts VALUES (4, NULL, '1')",
            "",
            3,
        ),
        (
            "INSERT INTO readers VALUES (4, gen_random_uuid()); UPDATE posts SET mood = 'x' WHERE id = 4",
            "54000",
            0,
        ),
        // Of a statement of many rows, one is enough.
        (
            "DELETE FROM readers; INSERT INTO posts SELECT n, gen_random_uuid(), CASE n WHEN 99 THEN 'x' ELSE '1' END
             FROM generate_series(90, 100) AS n",
            "22P02",
            0,
        ),
        // What the source names is there no longer.
        ("ALTER TABLE posts RENAME mood TO humor; UPDATE posts SET humor = 'y' WHERE id = 1", "42703", 0),
        ("ALTER TABLE posts RENAME humor TO mood; UPDATE posts SET mood = 'z' WHERE id = 1", "", 0),
        (
            "ALTER TABLE readers RENAME TO others;
             INSERT INTO posts VALUES (5, NULL, '1'); ALTER TABLE others RENAME TO readers",
            "42P01",
            0,
        ),
        ("DELETE FROM posts WHERE id = 2", "22P02", 0),
    ] {
        let (found, events) = shop.failed(statement).await;
        assert_eq!(found.join(" "), failed, "{statement}");
        assert_eq!(events, others, "{statement}");
    }
    assert_eq!(shop.number("SELECT count(*) FROM posts").await, 16);
}

/// What PostgreSQL raises for the statement itself is not for us to keep from it.
#[tokio::test]
async fn what_postgresql_raises_for_the_statement_goes_through() {
    let mut shop = Shop::posts().await;
    let refused = shop
        .refused("INSERT INTO posts VALUES (8, NULL, '1')")
        .await;
    assert!(refused.contains("serialization"), "{refused}");
    let mut other = shop.database.connect().await;
    execute(&mut other, "BEGIN; LOCK TABLE readers").await;
    for (timeout, expected) in [
        ("lock_timeout", "lock timeout"),
        ("statement_timeout", "statement timeout"),
    ] {
        let statement = format!(
            "BEGIN; SET LOCAL {timeout} = '100ms'; INSERT INTO posts VALUES (1, NULL, '1')"
        );
        let refused = shop.refused(&statement).await;
        assert!(refused.contains(expected), "{refused}");
        shop.run("ROLLBACK").await;
    }
    assert_eq!(shop.number("SELECT count(*) FROM posts").await, 0);
}

async fn connect(server: &Server, since: Option<&Value>) -> (Client, Value) {
    let since = since.map_or(String::new(), |since| {
        format!("&since={}", since.as_str().unwrap())
    });
    let mut client = server
        .connect_v1(&format!("/ws?user_id={ANN}{since}"))
        .await;
    let hello = client.next_json().await;
    assert_eq!(hello["type"], "hello");
    (client, hello)
}

/// The first failure resets the clients at once, and the next within ten seconds do at the end of these. Who leaves before
/// has a cursor that has not seen them.
#[tokio::test]
async fn clients_are_reset_at_once_and_then_every_ten_seconds() {
    for ingest in [Ingest::Notify, Ingest::Tail, Ingest::Adaptive] {
        let mut shop = Shop::posts().await;
        let change = |config: &mut Config| config.ingest = Some(ingest);
        let server = Server::start_on(shop.database.clone(), change).await;
        let (mut stays, _) = connect(&server, None).await;
        let begun = Instant::now();
        shop.run("INSERT INTO posts VALUES (1, 'nobody', '1')")
            .await;
        let reset = next_but_cursors(&mut stays).await;
        assert_eq!(reset["reason"], "event_failed", "{ingest:?}: {reset}");
        let (mut leaves, hello) = connect(&server, None).await;
        let cursor = hello["cursor"].clone();

        shop.run("INSERT INTO posts VALUES (2, 'nobody', '1'), (3, 'nobody', '1')")
            .await;
        shop.run("INSERT INTO posts VALUES (4, 'nobody', '1')")
            .await;
        // Barriers come and go, and the events after them carry the cursor of before.
        for id in 5..8 {
            let insert = format!("INSERT INTO posts VALUES ({id}0, '{ANN}', '1')");
            shop.run(&insert).await;
            let event = next_but_cursors(&mut leaves).await;
            assert_eq!(event["type"], "post", "{ingest:?}: {event}");
            assert_eq!(event["cursor"], cursor, "{ingest:?}");
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
        drop(leaves);
        let mut events = 0;
        let reset = loop {
            let frame = next_but_cursors(&mut stays).await;
            if frame["type"] == "reset" {
                break frame;
            }
            events += 1;
        };
        assert_eq!((events, &reset["reason"]), (3, &"event_failed".into()));
        assert!(begun.elapsed() >= Duration::from_secs(10), "{ingest:?}");
        let (mut back, hello) = connect(&server, Some(&cursor)).await;
        assert_eq!(hello["resumed"], false, "{ingest:?}: {hello}");
        let reset = next_but_cursors(&mut back).await;
        assert_eq!(reset["reason"], "event_failed", "{ingest:?}: {reset}");

        let failed = server.metric("hushnet_events_failed_total{kind=\"post\"}");
        assert!((failed.await - 3.0).abs() < f64::EPSILON, "one a statement");
        let ready = server.get("/readyz").await;
        for part in ["degraded", "events_failed", "post: SQLSTATE 22P02"] {
            assert!(ready.body.contains(part), "{}", ready.body);
        }
        // The stream goes on.
        shop.run(&format!("INSERT INTO posts VALUES (9, '{ANN}', '1')"))
            .await;
        for client in [&mut stays, &mut back] {
            let event = soon("an event", next_but_cursors(client)).await;
            assert_eq!(event["key"]["id"], 9, "{ingest:?}: {event}");
        }
    }
}
