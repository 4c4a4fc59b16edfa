//! The log's partitions: they are made ahead, old ones are dropped whole, and writers do not wait for it.

use std::time::Duration;

use hushnet_realtime::protocol::Cursor;
use hushnet_realtime::store::Log;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Database, add_user, execute, insert_message, until};

const WEEK: Duration = Duration::from_hours(7 * 24);

async fn partitions(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE inhparent = 'realtime.events'::regclass ORDER BY 1",
    )
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
    Log::new(database.url.parse().unwrap(), 4)
}

#[tokio::test]
async fn partitions_are_made_ahead_and_events_fall_into_them() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(count(&mut connection, "realtime.events_default").await, 0);
    // Today's and tomorrow's, at least.
    assert!(partitions(&mut connection).await.len() >= 3);
    let before = partitions(&mut connection).await;
    log_of(&database).maintain(WEEK).await.unwrap();
    assert_eq!(
        partitions(&mut connection).await,
        before,
        "there is nothing to do twice"
    );
}

#[tokio::test]
async fn old_events_are_dropped_with_their_partition_and_their_cursors_are_reset() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let cursor = async || log.state().await.unwrap().unwrap().cursor;
    let before: Cursor = cursor().await;
    insert_message(&db, None, &alice, &bob).await;
    let newest: String =
        sqlx::query_scalar("SELECT max(xid::text::bigint)::text FROM realtime.events")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    let newest: u64 = newest.parse().unwrap();
    // Other tests' transactions, older than the event, may be running.
    until("they have ended", async || {
        cursor().await.snapshot.xmin() > newest
    })
    .await;
    let after = cursor().await;
    // Make all events and partitions a month older.
    execute(
        &mut connection,
        "ALTER TABLE realtime.events_default RENAME TO kept;
         DO $$ DECLARE p record; BEGIN
             FOR p IN SELECT * FROM realtime.partitions LOOP
                 EXECUTE format('ALTER TABLE realtime.events DETACH PARTITION realtime.%I', p.name);
                 EXECUTE format('UPDATE realtime.%I SET created_at = created_at - interval ''30 days''', p.name);
                 EXECUTE format('ALTER TABLE realtime.events ATTACH PARTITION realtime.%I FOR VALUES FROM (%L) TO (%L)',
                     p.name, p.lower_bound - interval '30 days', p.upper_bound - interval '30 days');
             END LOOP;
         END $$;
         UPDATE realtime.partitions SET lower_bound = lower_bound - interval '30 days',
             upper_bound = upper_bound - interval '30 days';
         ALTER TABLE realtime.kept RENAME TO events_default;",
    )
    .await;
    assert!(log.maintain(WEEK).await.unwrap() >= 2);
    assert_eq!(count(&mut connection, "realtime.events").await, 0);

    let old = log
        .read_user(bob.id, &before.snapshot, 0, None, false)
        .await
        .unwrap();
    assert!(!old.reading.retained, "its events are gone");
    let young = log
        .read_user(bob.id, &after.snapshot, 0, None, false)
        .await
        .unwrap();
    assert!(young.reading.retained && young.signals.is_empty());
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(
        log.read_user(bob.id, &after.snapshot, 0, None, false)
            .await
            .unwrap()
            .signals
            .len(),
        1
    );
}

#[tokio::test]
async fn inserts_without_a_partition_go_to_the_default_one_until_there_is_one() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    execute(
        &mut connection,
        "DO $$ DECLARE p record; BEGIN
             FOR p IN SELECT name FROM realtime.partitions LOOP
                 EXECUTE format('DROP TABLE realtime.%I', p.name);
             END LOOP;
         END $$;
         DELETE FROM realtime.partitions;",
    )
    .await;
    let log = log_of(&database);
    let cursor = log.state().await.unwrap().unwrap().cursor;
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(count(&mut connection, "realtime.events_default").await, 1);
    assert_eq!(
        log.read_user(bob.id, &cursor.snapshot, 0, None, false)
            .await
            .unwrap()
            .signals
            .len(),
        1
    );

    log.maintain(WEEK).await.unwrap();
    assert!(partitions(&mut connection).await.len() >= 3);
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(
        log.read_user(bob.id, &cursor.snapshot, 0, None, false)
            .await
            .unwrap()
            .signals
            .len(),
        2
    );

    // The events of the default partition are dropped when all of them are old.
    execute(
        &mut connection,
        "UPDATE realtime.events_default SET created_at = now() - interval '30 days'",
    )
    .await;
    log.maintain(WEEK).await.unwrap();
    assert_eq!(count(&mut connection, "realtime.events_default").await, 0);
    assert!(
        !log.read_user(bob.id, &cursor.snapshot, 0, None, false)
            .await
            .unwrap()
            .reading
            .retained
    );
}

#[tokio::test]
async fn maintenance_gives_way_to_writers_and_to_another_server() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    execute(
        &mut connection,
        "CREATE TABLE realtime.old (LIKE realtime.events INCLUDING DEFAULTS);
         ALTER TABLE realtime.events ATTACH PARTITION realtime.old
             FOR VALUES FROM ('2001-01-01') TO ('2001-01-02');
         INSERT INTO realtime.partitions VALUES ('old', '2001-01-01', '2001-01-02');",
    )
    .await;
    let mut writer = db.begin().await.unwrap();
    insert_message(&mut *writer, None, &alice, &bob).await;
    let error = log.maintain(WEEK).await.unwrap_err().to_string();
    assert!(error.contains("lock timeout"), "{error}");
    writer.commit().await.unwrap();
    assert_eq!(log.maintain(WEEK).await.unwrap(), 1);

    let mut other = database.connect().await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('realtime.maintain', 0))")
        .execute(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(log.maintain(WEEK).await.unwrap(), 0);
}

/// Adds an old partition with so many events.
async fn add_old_partition(connection: &mut PgConnection, events: u32) {
    // Autovacuum could hold a lock of the partition.
    let sql = format!(
        "CREATE TABLE realtime.old (LIKE realtime.events INCLUDING DEFAULTS)
             WITH (autovacuum_enabled = false);
         ALTER TABLE realtime.events ATTACH PARTITION realtime.old
             FOR VALUES FROM ('2001-01-01') TO ('2001-01-02');
         INSERT INTO realtime.partitions VALUES ('old', '2001-01-01', '2001-01-02');
         INSERT INTO realtime.events (user_id, kind, payload, created_at)
         SELECT '00000000-0000-0000-0000-000000000001', 'device', '{{}}', '2001-01-01'
         FROM generate_series(1, {events});"
    );
    execute(connection, &sql).await;
}

/// Drops the old partition and returns how many pages of all tables and indexes were read for it.
async fn pages_read_to_drop_it(connection: &mut PgConnection) -> u64 {
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
    add_old_partition(&mut connection, 1).await;
    let pages_of_one = pages_read_to_drop_it(&mut connection).await;
    add_old_partition(&mut connection, 50_000).await;
    let pages_of_events: i64 = sqlx::query_scalar("SELECT pg_relation_size('realtime.old') / 8192")
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
        "UPDATE realtime.state SET system_identifier = 1",
    )
    .await;
    let state = log.state().await.unwrap().unwrap();
    assert_eq!(count(&mut connection, "realtime.events").await, 0);
    insert_message(&db, None, &alice, &bob).await;
    log.state().await.unwrap();
    assert_eq!(
        log.read_user(bob.id, &state.cursor.snapshot, 0, None, false)
            .await
            .unwrap()
            .signals
            .len(),
        1
    );
}

#[tokio::test]
async fn any_role_may_read_a_cursor_and_none_may_end_the_log() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    let role = format!("t_reader_{}", Uuid::new_v4().simple());
    execute(
        &mut connection,
        &format!("CREATE ROLE {role}; SET ROLE {role}; SET search_path = pg_temp, public;"),
    )
    .await;
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
        "SELECT realtime.forget('events_default')",
        "CREATE TEMP TABLE forged (chat_id uuid, to_user_id uuid);
         CREATE TRIGGER forge AFTER INSERT ON forged REFERENCING NEW TABLE AS inserted
         FOR EACH STATEMENT EXECUTE FUNCTION realtime.on_messages()",
        "SELECT realtime.emit('messages_channel', gen_random_uuid(), 'message', '{}')",
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
    execute(&mut connection, &format!("RESET ROLE; DROP ROLE {role};")).await;
}

#[tokio::test]
async fn a_cursor_with_many_open_transactions_is_in_its_short_form() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let mut open = Vec::new();
    let both = "SELECT realtime.cursor(), realtime.epoch() || '.', pg_current_snapshot()::text";
    until("the cursor is in its short form", async || {
        let mut transaction = database.connect().await;
        execute(&mut transaction, "BEGIN; SELECT pg_current_xact_id();").await;
        open.push(transaction);
        // Every second transaction ends, so that the running ones are not a range of numbers.
        let mut ended = database.connect().await;
        execute(&mut ended, "BEGIN; SELECT pg_current_xact_id(); COMMIT;").await;
        let (cursor, epoch, snapshot): (String, String, String) =
            sqlx::query_as(both).fetch_one(&db).await.unwrap();
        assert!(cursor.len() <= 256 + epoch.len(), "{cursor}");
        let full = Cursor {
            snapshot: snapshot.parse().unwrap(),
            ..cursor.parse().unwrap()
        };
        assert_eq!(format!("{cursor}~"), full.for_clients().to_string());
        snapshot.len() > 256 && cursor.split(',').count() == 10
    })
    .await;
    // The short form repeats more events and loses none.
    let cursor = log.state().await.unwrap().unwrap().cursor;
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(
        log.read_user(bob.id, &cursor.snapshot, 0, None, false)
            .await
            .unwrap()
            .signals
            .len(),
        1
    );
}
