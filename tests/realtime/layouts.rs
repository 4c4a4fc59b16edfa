//! The log keeps what an event is made of: whoever writes its JSON, the bytes are the same.

use hushnet_realtime::config::Ingest;
use hushnet_realtime::protocol::{Encoding, Snapshot};
use hushnet_realtime::store::{Log, PAGE_BYTES_MAX};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{
    Client, Database, Server, User, add_chat, add_user, execute, insert_message, soon,
};

/// A table whose names and values need escapes in JSON, with a source.
const LINES: &str = r#"
    CREATE TABLE "Order ""Lines""" (number int, "line.No" text, buyer uuid, note text, at timestamptz, data jsonb,
        PRIMARY KEY ("line.No", number));
    SELECT realtime.add_source('order.line', '"Order ""Lines"""', 'buyer', fields => '{note,at,data}')"#;

/// One event of each kind, and more of those whose JSON may differ: of bob, the second user.
async fn cause_events(database: &Database, owner: &mut PgConnection, alice: &User, bob: &User) {
    let db = database.pool().await;
    let chat = add_chat(&db, alice, bob).await;
    insert_message(&db, Some(chat), alice, bob).await;
    insert_message(&db, None, alice, bob).await;
    let (from, to, user) = (alice.device_id, bob.device_id, bob.id);
    let statements = format!(
        r#"SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET synchronous_commit = on;
           INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ('{from}', '{to}');
           UPDATE devices SET device_label = 'renamed' WHERE id = '{to}';
           INSERT INTO pending_sessions (sender_device_id, recipient_device_id, ephemeral_pubkey, sender_prekey_pub,
                                         otpk_used, ciphertext) VALUES ('{from}', '{to}', 'e', 's', 'o', 'c');
           INSERT INTO "Order ""Lines""" VALUES (1, 'é"\', '{user}', E'\t"\u001f\U0001F600', now(), '{{"a" : [1.50, null]}}'),
                                                (2, '', '{user}', NULL, 'infinity', NULL);
           UPDATE "Order ""Lines""" SET note = '' WHERE number = 1;
           DELETE FROM "Order ""Lines""" WHERE number = 2;
           SET synchronous_commit = off;
           UPDATE devices SET device_label = 'renamed again' WHERE id = '{to}';"#
    );
    execute(owner, &statements).await;
}

/// The JSON in the view of each of the user's events after this snapshot, without what only the service reads.
async fn in_the_view(owner: &mut PgConnection, user: &User, from: &str) -> Vec<String> {
    let query = format!(
        "SELECT replace(payload, ', \"asynchronous\" : true', '') FROM realtime.events
         WHERE user_id = '{}' AND NOT pg_visible_in_snapshot(xid, '{from}') ORDER BY id",
        user.id
    );
    let query = sqlx::query_scalar(AssertSqlSafe(query));
    query.fetch_all(owner).await.unwrap()
}

/// So many events as a client without the subprotocol is sent them, and none of those that were there before.
async fn sent_to(client: &mut Client, count: usize, before: &[String]) -> Vec<String> {
    let mut events = Vec::new();
    while events.len() < count {
        let event = client.next_text().await;
        events.extend(Some(event).filter(|event| !before.contains(event)));
    }
    events
}

/// The events that a client of v1 is sent after `hello`, as one without the subprotocol would be.
async fn replayed_to(client: &mut Client, count: usize) -> Vec<String> {
    client.until_type("hello").await;
    let mut events = Vec::new();
    while events.len() < count {
        // From the log they come without a cursor of their own.
        events.push(client.next_without_cursor().await);
    }
    events
}

/// The events that the log's read for one user finds.
async fn read_from(log: &Log, user: &User, from: &Snapshot) -> Vec<String> {
    let page = soon("a page", log.read_user(user.id, from, false).next()).await;
    let signals = page.unwrap().signals.into_iter();
    let frames = signals.map(|signal| signal.frame(Encoding::Plain).unwrap());
    frames.map(|frame| frame.as_text().to_owned()).collect()
}

#[tokio::test]
async fn a_frame_is_the_same_bytes_notified_and_from_the_log_live_and_replayed_and_in_the_view() {
    for ingest in [Ingest::Notify, Ingest::Tail] {
        let database = Database::migrated().await;
        let mut owner = database.connect().await;
        execute(&mut owner, LINES).await;
        let server = Server::start_on(database.clone(), |config| {
            config.ingest = Some(ingest);
        })
        .await;
        let db = server.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let all = format!("/ws?user_id={}&kinds=*", bob.id);
        let mut client = server.connect_v1(&all).await;
        let hello = client.next_json().await;
        let since = hello["cursor"].as_str().unwrap().to_owned();
        let (_, from) = since.split_once('.').unwrap();
        let already = in_the_view(&mut owner, &bob, from).await.len();
        let mut live = server.connect_to(&all).await;
        cause_events(&database, &mut owner, &alice, &bob).await;

        let expected = in_the_view(&mut owner, &bob, from).await;
        let (before, new) = expected.split_at(already);
        assert_eq!(new.len(), 10, "{new:?}");
        let query =
            "SELECT count(*) FROM realtime.events WHERE NOT is_composed AND kind <> 'revocation'";
        let stored: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut owner)
            .await
            .unwrap();
        assert_eq!(stored, 0, "the log has JSON");
        let mut sent = sent_to(&mut live, new.len(), before).await;
        // What commits without waiting for the disk may come last.
        sent.sort_by_key(|event| new.iter().position(|other| other == event));
        assert_eq!(sent, new, "{ingest:?}");
        let read = server.metric("hushnet_events_caught_up_total").await;
        assert_eq!(read > 0.0, ingest == Ingest::Tail, "{read} from the log");

        let snapshot = from.parse().unwrap();
        assert_eq!(read_from(&database.log(1), &bob, &snapshot).await, expected);
        let other = Server::start_on(database.clone(), |_| {}).await;
        for server in [&server, &other] {
            let mut back = server.connect_v1(&format!("{all}&since={since}")).await;
            assert_eq!(replayed_to(&mut back, expected.len()).await, expected);
        }
        let from_log = "hushnet_replays_total{cause=\"resume\",source=\"log\"}";
        assert!(other.metric(from_log).await >= 1.0);
    }
}

#[tokio::test]
async fn a_server_goes_on_when_migrate_up_has_the_log_keep_parts() {
    for ingest in [Ingest::Notify, Ingest::Tail] {
        let database = Database::migrated_to(8).await;
        let mut owner = database.connect().await;
        let server = Server::start_on(database.clone(), |config| {
            config.ingest = Some(ingest);
        })
        .await;
        let db = server.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let all = format!("/ws?user_id={}&kinds=message", bob.id);
        let hello = server.connect_v1(&all).await.next_json().await;
        let since = hello["cursor"].as_str().unwrap().to_owned();
        let mut live = server.connect_to(&all).await;
        insert_message(&db, None, &alice, &bob).await;
        let mut sent = sent_to(&mut live, 1, &[]).await;
        database.up().await;
        insert_message(&db, None, &alice, &bob).await;
        // While the log is migrated an event may come twice.
        let second = sent_to(&mut live, 1, &sent).await;
        sent.extend(second);

        let query = "SELECT is_composed FROM realtime.events WHERE kind = 'message' ORDER BY id";
        let query = sqlx::query_scalar(query);
        let composed: Vec<bool> = query.fetch_all(&mut owner).await.unwrap();
        assert_eq!(composed, [false, true]);
        let (_, from) = since.split_once('.').unwrap();
        let mut shown = in_the_view(&mut owner, &bob, from).await;
        shown.retain(|event| event.contains("message"));
        assert_eq!(sent, shown);
        let other = Server::start_on(database.clone(), |_| {}).await;
        for server in [&server, &other] {
            let mut back = server.connect_v1(&format!("{all}&since={since}")).await;
            assert_eq!(replayed_to(&mut back, 2).await, sent);
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_counted_and_shown_and_stops_no_other() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    execute(&mut owner, LINES).await;
    // As a newer release might write it.
    execute(
        &mut owner,
        r#"ALTER TABLE realtime.sources DISABLE TRIGGER check_source;
           UPDATE realtime.sources SET layout = '{"{","newer","}"}' WHERE kind = 'order.line'"#,
    )
    .await;
    let server = Server::start_on(database.clone(), |config| {
        config.ingest = Some(Ingest::Tail);
    })
    .await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let all = format!("/ws?user_id={}&kinds=message,order.line", bob.id);
    let hello = server.connect_v1(&all).await.next_json().await;
    let since = hello["cursor"].as_str().unwrap().to_owned();
    let mut live = server.connect_to(&all).await;

    let user = bob.id;
    let rows = format!(
        r#"INSERT INTO "Order ""Lines""" VALUES (1, 'a', '{user}');
           INSERT INTO realtime.log (user_key, kind, payload) VALUES ('{user}', 'message', 'no JSON')"#
    );
    execute(&mut owner, &rows).await;
    insert_message(&db, None, &alice, &bob).await;
    let sent = sent_to(&mut live, 1, &[]).await;
    assert!(sent[0].contains("\"message\""), "{sent:?}");
    let skipped = |reason| format!("hushnet_log_rows_skipped_total{{reason=\"{reason}\"}}");
    for reason in ["unknown_source", "malformed"] {
        server.until_metric(&skipped(reason), 1.0).await;
    }
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 200);
    for part in ["degraded", "events_skipped", "of the log: malformed"] {
        assert!(ready.body.contains(part), "{part}: {}", ready.body);
    }

    let other = Server::start_on(database.clone(), |config| {
        config.ingest = Some(Ingest::Tail);
    })
    .await;
    let mut back = other.connect_v1(&format!("{all}&since={since}")).await;
    assert_eq!(replayed_to(&mut back, 1).await, sent);
    for reason in ["unknown_source", "malformed"] {
        other.until_metric(&skipped(reason), 1.0).await;
    }
    assert!(other.get("/readyz").await.body.contains("events_skipped"));
}

#[tokio::test]
async fn a_page_of_the_log_is_bounded_by_the_json_of_its_events() {
    const EVENTS: usize = 60;
    const LONG: usize = 7_000;
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    execute(&mut owner, LINES).await;
    let user = User {
        id: uuid::Uuid::from_u128(7),
        device_id: uuid::Uuid::nil(),
    };
    let query = "SELECT pg_current_snapshot()::text";
    let from: String = sqlx::query_scalar(query)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    // PostgreSQL stores them compressed.
    let lines = format!(
        r#"INSERT INTO "Order ""Lines""" SELECT n, 'a', '{}', repeat('x', {LONG}) FROM generate_series(1, {EVENTS}) AS n"#,
        user.id
    );
    execute(&mut owner, &lines).await;
    let log = database.log(1);
    let mut pages = log.read_user(user.id, &from.parse().unwrap(), false);
    let mut events = Vec::new();
    loop {
        let page = soon("a page", pages.next()).await.unwrap();
        let frames = page
            .signals
            .iter()
            .map(|signal| signal.frame(Encoding::Plain).unwrap());
        let texts: Vec<_> = frames.map(|frame| frame.as_text().to_owned()).collect();
        let bytes: usize = texts.iter().map(String::len).sum();
        assert!(bytes < PAGE_BYTES_MAX + 2 * LONG, "{bytes}");
        assert!(!texts.is_empty());
        events.extend(texts);
        if !page.more {
            break;
        }
    }
    assert!(events == in_the_view(&mut owner, &user, &from).await);
    assert_eq!(events.len(), EVENTS);
}
