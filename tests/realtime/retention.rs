//! The log's ring of partitions: it turns, old partitions are emptied whole, and writers do not wait for it.

mod positions;
mod service;
mod upgrade;

use std::time::Duration;

use hushnet_realtime::protocol::{Cursor, Snapshot};
use hushnet_realtime::store::{Log, Rotation};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::support::{Database, User, add_user, execute, insert_message, until};

/// Held by tests in the cluster of prepared transactions, whose positions no other test's transactions may be in.
static ALONE: Mutex<()> = Mutex::const_new(());

const WEEK: Duration = Duration::from_hours(7 * 24);
const PARTITIONS: usize = 16;
const OPEN: &str =
    "SELECT name::text FROM realtime.partitions WHERE opened_at IS NOT NULL AND closed_at IS NULL";
const CLOSED: &str =
    "SELECT name::text FROM realtime.partitions WHERE closed_at IS NOT NULL ORDER BY closed_at";

async fn names(connection: &mut PgConnection, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query)
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

fn log_of(database: &Database) -> Log {
    database.log(4)
}

async fn present(log: &Log) -> Cursor {
    log.state().await.unwrap().unwrap().cursor
}

/// A position with which no transaction runs that began before: those of other tests run in it too.
async fn settled(log: &Log, connection: &mut PgConnection) -> Cursor {
    let last = names(connection, "SELECT pg_current_xact_id()::text").await;
    let last: u64 = last[0].parse().unwrap();
    until("older transactions have ended", async || {
        present(log).await.snapshot.xmin() > last
    })
    .await;
    present(log).await
}

/// How many events the user has missed since the snapshot; `None` if it is too old.
async fn missed(log: &Log, user: &User, since: &Snapshot) -> Option<usize> {
    let page = log.read_user(user.id, since, false).next().await.unwrap();
    page.reading.retained.then_some(page.signals.len())
}

/// Closes the open partition, and makes all closed ones a month older.
async fn age(connection: &mut PgConnection) {
    until("the ring has turned", async || {
        names(connection, "SELECT realtime.rotate('0 s')").await == ["rotated"]
    })
    .await;
    execute(
        connection,
        "UPDATE realtime.partitions
         SET opened_at = opened_at - interval '30 days', closed_at = closed_at - interval '30 days'
         WHERE closed_at IS NOT NULL",
    )
    .await;
}

/// Drops all expired partitions, as soon as their locks are to be had.
async fn drop_expired(log: &Log) {
    until("the old partitions are dropped", async || {
        let expired = log.expired(WEEK).await.unwrap();
        for partition in &expired {
            let _ = log.forget(partition).await;
        }
        expired.is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_ring_turns_when_its_open_partition_is_old_enough() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    assert_eq!(names(&mut connection, OPEN).await, ["events_0"]);
    assert_eq!(log.rotate(WEEK).await.unwrap(), Rotation::NotDue);
    execute(
        &mut connection,
        "UPDATE realtime.partitions SET opened_at = opened_at - interval '22 hours' WHERE slot = 0",
    )
    .await;
    insert_message(&db, None, &alice, &bob).await;
    let before = count(&mut connection, "realtime.events_0").await;
    assert_eq!(log.rotate(WEEK).await.unwrap(), Rotation::Rotated);
    assert_eq!(log.rotate(WEEK).await.unwrap(), Rotation::NotDue);
    assert_eq!(names(&mut connection, OPEN).await, ["events_1"]);
    assert_eq!(names(&mut connection, CLOSED).await, ["events_0"]);

    insert_message(&db, None, &alice, &bob).await;
    add_user(&db).await;
    assert_eq!(count(&mut connection, "realtime.events_0").await, before);
    assert_eq!(count(&mut connection, "realtime.events_1").await, 2);
    assert!(log.expired(WEEK).await.unwrap().is_empty());
    assert_eq!(log.maintain(WEEK).await.unwrap(), 0);
}

#[tokio::test]
async fn old_events_are_dropped_with_their_partition_and_their_cursors_are_reset() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let before = present(&log).await;
    insert_message(&db, None, &alice, &bob).await;
    let after = settled(&log, &mut connection).await;
    age(&mut connection).await;
    assert_eq!(missed(&log, &bob, &before.snapshot).await, Some(1));
    assert_eq!(log.maintain(WEEK).await.unwrap(), 1);
    assert_eq!(log.maintain(WEEK).await.unwrap(), 0);
    assert_eq!(count(&mut connection, "realtime.events").await, 0);
    assert!(names(&mut connection, CLOSED).await.is_empty());

    assert_eq!(missed(&log, &bob, &before.snapshot).await, None);
    assert_eq!(missed(&log, &bob, &after.snapshot).await, Some(0));
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(missed(&log, &bob, &after.snapshot).await, Some(1));

    // An empty partition takes nothing from anybody.
    let dropped = "SELECT dropped_to::text FROM realtime.state";
    let dropped_before = names(&mut connection, dropped).await;
    age(&mut connection).await;
    execute(&mut connection, "DELETE FROM realtime.events").await;
    drop_expired(&log).await;
    assert_eq!(names(&mut connection, dropped).await, dropped_before);
    assert_eq!(missed(&log, &bob, &after.snapshot).await, Some(0));
}

#[tokio::test]
async fn inserts_go_on_when_no_partition_is_free() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let cursor = present(&log).await;
    for filled in 1..PARTITIONS {
        insert_message(&db, None, &alice, &bob).await;
        age(&mut connection).await;
        assert_eq!(names(&mut connection, CLOSED).await.len(), filled);
    }
    execute(
        &mut connection,
        "UPDATE realtime.partitions SET opened_at = opened_at - interval '30 days' WHERE closed_at IS NULL",
    )
    .await;
    assert_eq!(log.rotate(WEEK).await.unwrap(), Rotation::Full);
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(missed(&log, &bob, &cursor.snapshot).await, Some(PARTITIONS));

    let oldest = log.expired(WEEK).await.unwrap().swap_remove(0);
    log.forget(&oldest).await.unwrap();
    assert_eq!(log.rotate(WEEK).await.unwrap(), Rotation::Rotated);
    assert_eq!(names(&mut connection, OPEN).await, [oldest]);

    // Not even a lost row of the state fails the application.
    execute(&mut connection, "DELETE FROM realtime.state").await;
    insert_message(&db, None, &alice, &bob).await;
    add_user(&db).await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_does_no_lasting_harm() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    let log = log_of(&database);
    age(&mut connection).await;
    execute(
        &mut connection,
        "UPDATE realtime.partitions SET opened_at = now() + interval '1 hour' WHERE opened_at IS NOT NULL;
         UPDATE realtime.partitions SET closed_at = now() + interval '1 hour' WHERE closed_at IS NOT NULL;",
    )
    .await;
    assert_eq!(log.rotate(WEEK).await.unwrap(), Rotation::NotDue);
    let ahead =
        "SELECT name::text FROM realtime.partitions WHERE opened_at > now() OR closed_at > now()";
    assert!(names(&mut connection, ahead).await.is_empty());
    age(&mut connection).await;
    drop_expired(&log).await;
    assert_eq!(names(&mut connection, CLOSED).await.len(), 0);
    assert_eq!(names(&mut connection, OPEN).await.len(), 1);
}

#[tokio::test]
async fn maintenance_gives_way_to_writers_and_to_another_server() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let mut writer = db.begin().await.unwrap();
    insert_message(&mut *writer, None, &alice, &bob).await;
    age(&mut connection).await;
    let error = log.forget("events_0").await.unwrap_err().to_string();
    assert!(error.contains("lock timeout"), "{error}");
    let error = log.maintain(WEEK).await.unwrap_err().to_string();
    assert!(error.contains("is in use"), "{error}");
    // A partition that is in use holds up no other.
    age(&mut connection).await;
    assert_eq!(log.maintain(WEEK).await.unwrap(), 1);
    assert_eq!(names(&mut connection, CLOSED).await, ["events_0"]);
    writer.commit().await.unwrap();
    assert_eq!(log.maintain(WEEK).await.unwrap(), 1);
    // Another server was first.
    log.forget("events_0").await.unwrap();
    let open = names(&mut connection, OPEN).await;
    log.forget(&open[0]).await.unwrap();
    assert_eq!(names(&mut connection, OPEN).await, open);

    let mut other = database.connect().await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('realtime.maintain', 0))")
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(log.maintain(WEEK).await.unwrap(), 0);
    let rotated = names(&mut connection, "SELECT realtime.rotate('0 s')").await;
    assert_eq!(rotated, ["busy"]);
}

/// Drops the events of the open partition and returns how many pages of all tables and indexes were read
/// for it.
async fn pages_read_to_drop_it(connection: &mut PgConnection) -> u64 {
    age(connection).await;
    let explained: serde_json::Value = sqlx::query_scalar(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT realtime.maintain('7 days')",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    let left: i64 = count(connection, "realtime.events").await;
    assert_eq!(left, 0, "the partition is still there");
    let plan = &explained[0]["Plan"];
    let pages =
        ["Shared Hit Blocks", "Shared Read Blocks"].map(|name| plan[name].as_u64().unwrap());
    pages.iter().sum()
}

/// A writer waits for as long as the partition is being dropped. So the work must not depend on the number
/// of its events: none of them is read or deleted.
#[tokio::test]
async fn dropping_a_partition_does_not_read_its_events() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    // Autovacuum could hold a lock of a partition.
    for slot in 0..PARTITIONS {
        let off = format!("ALTER TABLE realtime.events_{slot} SET (autovacuum_enabled = false)");
        execute(&mut connection, &off).await;
    }
    let insert = async |connection: &mut PgConnection, events: u32| {
        let sql = format!(
            "INSERT INTO realtime.events (user_id, kind, payload)
             SELECT '00000000-0000-0000-0000-000000000001', 'device', '{{}}'
             FROM generate_series(1, {events});"
        );
        execute(connection, &sql).await;
    };
    insert(&mut connection, 1).await;
    let pages_of_one = pages_read_to_drop_it(&mut connection).await;
    insert(&mut connection, 50_000).await;
    let pages_of_events: i64 =
        sqlx::query_scalar("SELECT pg_relation_size('realtime.events_1') / 8192")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    let pages_of_many = pages_read_to_drop_it(&mut connection).await;
    println!(
        "{pages_of_one} pages for one event, {pages_of_many} for {pages_of_events} pages of events"
    );
    // The second drop may read some more pages of the index and the catalogs.
    assert!(pages_of_many < pages_of_one + pages_of_events.unsigned_abs() / 4);
}

#[tokio::test]
async fn a_partition_is_not_dropped_in_an_older_snapshot() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    age(&mut connection).await;
    let dropping = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT realtime.forget('events_0')";
    let refused = sqlx::raw_sql(dropping).execute(&mut connection).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("needs READ COMMITTED"), "{error}");
    execute(&mut connection, "ROLLBACK").await;
    // A role's default does not keep the service from it.
    let name = names(&mut connection, "SELECT current_database()::text").await;
    let name = &name[0];
    let by_default =
        format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'");
    execute(&mut connection, &by_default).await;
    log_of(&database).forget("events_0").await.unwrap();
    assert!(names(&mut connection, CLOSED).await.is_empty());
}

#[tokio::test]
async fn a_log_from_another_system_is_emptied_once() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    insert_message(&db, None, &alice, &bob).await;
    let log = log_of(&database);
    log.state().await.unwrap();
    assert!(
        count(&mut connection, "realtime.events").await > 0,
        "it is this system's own"
    );

    execute(
        &mut connection,
        "UPDATE realtime.state SET system_identifier = 1, dropped_to = '9000000000',
             retained_from = '9000000001'",
    )
    .await;
    let state = log.state().await.unwrap().unwrap();
    assert_eq!(count(&mut connection, "realtime.events").await, 0);
    insert_message(&db, None, &alice, &bob).await;
    log.state().await.unwrap();
    assert_eq!(missed(&log, &bob, &state.cursor.snapshot).await, Some(1));
}

/// Flushes the write-ahead log as a server does it with its barriers, where a test has none. PostgreSQL may tidy up a
/// page for the statement that reads a cursor, and what that writes is not on disk before the statement's end.
fn keep_flushing(log: Log) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            log.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

#[tokio::test]
async fn a_backend_may_read_a_cursor_and_not_end_the_log() {
    let database = Database::migrated().await;
    let flushing = keep_flushing(log_of(&database));
    let mut connection = database.pool().await.acquire().await.unwrap().detach();
    execute(&mut connection, "SET search_path = pg_temp, public;").await;
    let mut snapshot = connection.begin().await.unwrap();
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let read = "SELECT realtime.cursor(), pg_current_snapshot()::text";
    let (cursor, own): (String, String) = sqlx::query_as(read)
        .fetch_one(&mut *snapshot)
        .await
        .unwrap();
    assert!(cursor.parse::<Cursor>().is_ok(), "{cursor}");
    assert!(cursor.ends_with(&format!(".{own}")), "{cursor} of {own}");
    snapshot.commit().await.unwrap();
    for forbidden in [
        "SELECT realtime.maintain('1 hour')",
        "SELECT realtime.claim_history()",
        "SELECT realtime.begin_history()",
        "SELECT realtime.renew_history()",
        "SELECT realtime.barrier('')",
        "SELECT realtime.pending_messages(gen_random_uuid(), 1)",
        "SELECT realtime.devices_with_key('{}', NULL, NULL)",
        "SELECT realtime.forget('events_0')",
        "SELECT realtime.rotate('1 hour')",
        "CREATE TEMP TABLE forged (chat_id uuid, to_user_id uuid);
         CREATE TRIGGER forge AFTER INSERT ON forged REFERENCING NEW TABLE AS inserted
         FOR EACH STATEMENT EXECUTE FUNCTION realtime.on_messages()",
        "SELECT realtime.emit(1::smallint, gen_random_uuid(), NULL::\"char\", '{null}'::text[])",
        "SELECT realtime.set_ingest('tail')",
        "SELECT * FROM realtime.events",
        "UPDATE realtime.state SET ingest = 'tail'",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut connection).await;
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("permission denied"),
            "{forbidden}"
        );
    }
    flushing.abort();
}

#[tokio::test]
async fn a_cursor_with_many_open_transactions_is_in_its_short_form() {
    let database = Database::with_open_transactions().await;
    let db = database.pool().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let flushing = keep_flushing(log.clone());
    let mut open = Vec::new();
    let both = "SELECT realtime.cursor(), realtime.history() || '.', pg_current_snapshot()::text";
    until("the cursor is in its short form", async || {
        let mut transaction = database.connect().await;
        execute(&mut transaction, "BEGIN; SELECT pg_current_xact_id();").await;
        open.push(transaction);
        // Every second transaction ends, so that the running ones are not a range of numbers.
        let mut ended = database.connect().await;
        execute(&mut ended, "BEGIN; SELECT pg_current_xact_id(); COMMIT;").await;
        let (cursor, epoch, snapshot): (String, String, String) =
            sqlx::query_as(both).fetch_one(&mut ended).await.unwrap();
        assert!(cursor.len() <= 256 + epoch.len(), "{cursor}");
        let full = Cursor {
            snapshot: snapshot.parse().unwrap(),
            ..cursor.parse().unwrap()
        };
        assert_eq!(cursor, full.for_clients().to_string());
        snapshot.len() > 256 && cursor.split(',').count() < snapshot.split(',').count()
    })
    .await;
    flushing.abort();
    // The short form repeats more events and loses none.
    let cursor = log.state().await.unwrap().unwrap().cursor;
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(missed(&log, &bob, &cursor.snapshot).await, Some(1));
}
