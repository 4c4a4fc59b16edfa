//! The functions that read the application's tables: of one snapshot with the cursor, and by the tables' indexes.

use std::time::Duration;

use hushnet_testkit::database;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Database, add_user, execute, insert_message, until};

/// Rows that nobody asks for.
const OTHERS: i32 = 20_000;

#[tokio::test]
async fn state_and_cursor_are_of_the_snapshot_of_their_statement() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    let volatile = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace AND provolatile <> 's'
        AND proname IN ('pending_messages', 'pending_handshakes', 'devices_of', 'devices_with_key',
                        'existing_devices', 'existing_users', 'unflushed_cursor', 'cursor', 'history')";
    let volatile: i64 = sqlx::query_scalar(volatile)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert_eq!(volatile, 0);
    let (seen, is_one) = read_across_a_commit(&database).await;
    assert_eq!(
        (seen, is_one),
        (0, true),
        "the commit came after the snapshot"
    );
    // What the cursor does not see either. The test can fail:
    let part = "ALTER FUNCTION realtime.pending_messages(uuid, bigint) VOLATILE";
    execute(&mut owner, part).await;
    assert_eq!(read_across_a_commit(&database).await, (1, true));
}

/// A statement whose snapshot is older than a message, and which reads state afterwards. Returns how many messages it has
/// read, and whether the cursor is that of the statement's snapshot.
async fn read_across_a_commit(database: &Database) -> (i64, bool) {
    let db = database.pool().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut gate = database.connect().await;
    execute(&mut gate, "SELECT pg_advisory_lock(77)").await;
    let url = database.url.clone();
    let reading = tokio::spawn(async move {
        let mut service = database::connect(&url).await;
        let read = "SELECT (SELECT count(*) FROM realtime.pending_messages($1, 10)),
                    realtime.unflushed_cursor() = realtime.history() || '.' || pg_current_snapshot()::text
             FROM (SELECT pg_advisory_lock_shared(77) IS NULL OFFSET 0) AS waited (x) WHERE x IS NOT NULL";
        let read = sqlx::query_as::<_, (i64, bool)>(read).bind(bob.device_id);
        read.fetch_one(&mut service).await.unwrap()
    });
    until("the statement waits", async || {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database
            WHERE datname = current_database() AND locktype = 'advisory' AND objid = 77 AND NOT granted)";
        sqlx::query_scalar(waits).fetch_one(&mut gate).await.unwrap()
    })
    .await;
    insert_message(&db, None, &alice, &bob).await;
    execute(&mut gate, "SELECT pg_advisory_unlock(77)").await;
    tokio::time::timeout(Duration::from_mins(3), reading)
        .await
        .unwrap()
        .unwrap()
}

/// What this session has read of a table and not yet reported, which it does between transactions: sequential scans, and
/// rows fetched by an index.
async fn scans(connection: &mut PgConnection, table: &str) -> (i64, i64) {
    sqlx::query_as(
        "SELECT seq_scan, coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
         WHERE schemaname = 'public' AND relname = $1",
    )
    .bind(table)
    .fetch_optional(connection)
    .await
    .unwrap()
    .unwrap_or_default()
}

#[tokio::test]
async fn each_read_goes_by_an_index_and_reads_what_it_returns() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    insert_message(&db, None, &alice, &bob).await;
    let mut owner = database.connect().await;
    let many = format!(
        "INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, signed_prekey_sig,
                              one_time_prekeys)
         SELECT '{}', number::text, '', '', '', '[]' FROM generate_series(1, {OTHERS}) AS number;
         INSERT INTO messages (logical_msg_id, to_device_id, header, ciphertext)
         SELECT 'm', '{}', '{{}}', 'c' FROM generate_series(1, {OTHERS});
         INSERT INTO users (username) SELECT 'user ' || number FROM generate_series(1, {OTHERS}) AS number;
         ANALYZE devices; ANALYZE messages; ANALYZE users;",
        alice.id, alice.device_id
    );
    execute(&mut owner, &many).await;
    let mut service = database::connect(&database.url).await;
    let known = [bob.device_id, Uuid::new_v4()];
    let users = [bob.id, Uuid::new_v4()];
    let keys = ["17".to_owned(), "18 of nobody".to_owned()];
    for (table, call, rows) in [
        (
            "messages",
            "SELECT count(*) FROM realtime.pending_messages($1[1], 10)",
            1,
        ),
        (
            "devices",
            "SELECT count(*) FROM realtime.existing_devices($1)",
            1,
        ),
        (
            "users",
            "SELECT count(*) FROM realtime.existing_users($2)",
            1,
        ),
        (
            "devices",
            "SELECT count(*) FROM realtime.devices_with_key($3, $2[1], $1[1])",
            1,
        ),
    ] {
        // As often as a session may plan it anew, and once more by the plan that it keeps.
        for round in 0..7 {
            let mut reading = service.begin().await.unwrap();
            let before = scans(&mut reading, table).await;
            let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "SELECT ({call}) FROM (SELECT $1::uuid[], $2::uuid[], $3::text[]) AS given"
            )))
            .bind(&known[..])
            .bind(&users[..])
            .bind(&keys[..])
            .fetch_one(&mut *reading)
            .await
            .unwrap();
            assert_eq!(found, rows, "{call}");
            let after = scans(&mut reading, table).await;
            assert_eq!(after.0, before.0, "{call}, {round}");
            let fetched = after.1 - before.1;
            assert!(
                (1..=4).contains(&fetched),
                "{call}, {round}: {fetched} rows"
            );
            reading.rollback().await.unwrap();
        }
    }
}
