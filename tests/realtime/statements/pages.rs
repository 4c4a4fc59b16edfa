//! A long read of the log, page by page.

use hushnet_realtime::protocol::Snapshot;
use hushnet_realtime::store::{Chunk, Chunks, may_pass};
use sqlx::{PgConnection, PgPool};
use tokio::time::{Duration, sleep};
use uuid::Uuid;

use crate::long_replay::{ANALYZE, entries_read};
use crate::support::{Database, execute, soon};

/// An index that an older schema lacks.
pub(super) const WITHOUT_INDEX: &str = "DROP INDEX realtime.events_id";
const LOCK: &str = "BEGIN; LOCK TABLE realtime.events IN ACCESS EXCLUSIVE MODE";

async fn write(connection: &mut PgConnection, events: u32) {
    let events_of = format!(
        "INSERT INTO realtime.events (id, user_id, kind, payload)
         SELECT id, '{user}', 'device', json_build_object('type', 'device', 'user_id', '{user}', 'id', id)
         FROM (SELECT nextval('realtime.events_id_seq') AS id FROM generate_series(1, {events})) AS next",
        user = Uuid::nil()
    );
    execute(connection, &events_of).await;
}

pub(super) async fn snapshot(db: &PgPool) -> Snapshot {
    let text: String = sqlx::query_scalar("SELECT pg_current_snapshot()::text")
        .fetch_one(db)
        .await
        .unwrap();
    text.parse().unwrap()
}

/// The ids of what is visible now and is not in the snapshot, in their order.
async fn unseen(db: &PgPool, from: &Snapshot) -> Vec<i64> {
    sqlx::query_scalar(
        "SELECT id FROM realtime.events
         WHERE NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot) ORDER BY id",
    )
    .bind(from.to_string())
    .fetch_all(db)
    .await
    .unwrap()
}

/// A log that a position has seen half of: with transactions that ran then, and have ended since, of which some have
/// older and newer events than that. Returns the position, and a transaction that is still open.
pub(super) async fn half_seen(
    database: &Database,
    db: &PgPool,
    events: u32,
) -> (Snapshot, PgConnection) {
    let mut writer = database.connect().await;
    let mut running = Vec::new();
    for _ in 0..3 {
        let mut connection = database.connect().await;
        execute(&mut connection, "BEGIN").await;
        write(&mut connection, 40).await;
        write(&mut writer, 700).await;
        running.push(connection);
    }
    let from = snapshot(db).await;
    for connection in &mut running {
        write(&mut writer, events).await;
        write(connection, events).await;
    }
    let open = running.pop().unwrap();
    for connection in &mut running {
        execute(connection, "COMMIT").await;
    }
    write(&mut writer, 10).await;
    (from, open)
}

async fn until_lock_is_asked_for(db: &PgPool) {
    let asked = "SELECT EXISTS (SELECT FROM pg_locks
        WHERE relation = to_regclass('realtime.events') AND mode = 'AccessExclusiveLock')";
    let asked_for = async {
        while !sqlx::query_scalar::<_, bool>(asked)
            .fetch_one(db)
            .await
            .unwrap()
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the lock", asked_for).await;
}

async fn read(chunks: &mut Chunks, ids: &mut Vec<i64>) -> Option<bool> {
    let chunk = soon("a chunk", chunks.next()).await.unwrap()?;
    ids.extend(chunk.rows.iter().map(|row| row.id));
    Some(chunk.reading.retained)
}

#[tokio::test]
async fn a_read_of_any_length_brings_every_unseen_event_once_and_in_order() {
    for (events, change) in [
        (1, ""),
        (300, ""),
        (9_000, ""),
        (300, WITHOUT_INDEX),
        (9_000, WITHOUT_INDEX),
    ] {
        let database = Database::migrated().await;
        let db = database.owner_pool().await;
        execute(&mut database.connect().await, change).await;
        let (from, mut open) = half_seen(&database, &db, events).await;
        let expected = unseen(&db, &from).await;
        let log = database.log(1);
        let mut chunks = log.read_all(&from);
        let mut ids = Vec::new();
        assert_eq!(read(&mut chunks, &mut ids).await, Some(true));
        // What is committed during the read is not of its snapshot.
        execute(&mut open, "COMMIT").await;
        while read(&mut chunks, &mut ids).await.is_some() {}
        assert!(ids == expected, "{} of {}", ids.len(), expected.len());

        let (until, mut rest) = (snapshot(&db).await, Vec::new());
        let mut chunks = log.read_all(&until);
        while read(&mut chunks, &mut rest).await.is_some() {}
        assert!(rest.is_empty());
    }
}

/// One transaction has written almost all of the log, and the planner knows that: it believes that any other has, too.
#[tokio::test]
async fn what_a_running_transaction_wrote_is_found_at_once_in_a_log_that_another_has_filled() {
    const LOG: u32 = 100_000;
    // PostgreSQL makes the plan that it keeps at the sixth time.
    const READS: i64 = 8;
    for (events, entries_max) in [(1, 1_000), (2_000, i64::from(LOG) / 2)] {
        let database = Database::migrated().await;
        let db = database.owner_pool().await;
        let mut writer = database.connect().await;
        write(&mut writer, LOG).await;
        execute(&mut writer, ANALYZE).await;
        execute(&mut writer, "BEGIN").await;
        write(&mut writer, 1).await;
        write(&mut database.connect().await, 1).await;
        let from = snapshot(&db).await;
        assert!(from.xmin() < from.xmax(), "{from}");
        write(&mut writer, events).await;
        execute(&mut writer, "COMMIT").await;
        let expected = unseen(&db, &from).await;
        let before = entries_read(&db).await;
        let log = database.log(1);
        for _ in 0..READS {
            let (mut chunks, mut ids) = (log.read_all(&from), Vec::new());
            while read(&mut chunks, &mut ids).await.is_some() {}
            assert!(ids == expected, "{} of {}", ids.len(), expected.len());
        }
        log.close().await;
        let entries = (entries_read(&db).await - before) / READS;
        assert!(entries < entries_max, "{entries} for {events}");
    }
}

#[tokio::test]
async fn a_statement_that_fails_is_tried_again_from_where_it_had_come_to() {
    for change in ["", WITHOUT_INDEX] {
        let database = Database::migrated().await;
        let db = database.owner_pool().await;
        execute(&mut database.connect().await, change).await;
        let (from, mut open) = half_seen(&database, &db, 9_000).await;
        // Its locks would keep the one below away.
        execute(&mut open, "COMMIT").await;
        let expected = unseen(&db, &from).await;
        let log = database.log(1);
        let mut chunks = log.read_all(&from);
        let (mut ids, mut failed) = (Vec::new(), 0);
        let mut take = |chunk: Result<Option<Chunk>, sqlx::Error>| match chunk {
            Ok(Some(chunk)) => {
                ids.extend(chunk.rows.iter().map(|row| row.id));
                true
            }
            Ok(None) => false,
            Err(error) => {
                assert!(may_pass(&error), "{error}");
                failed += 1;
                true
            }
        };
        assert!(take(chunks.next().await));
        if change == WITHOUT_INDEX {
            // The statement is still sending, and its lock would let nobody in.
            let end = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'WITH reading%' AND state = 'active'";
            execute(&mut database.admin().await, end).await;
        }
        let mut holder = database.connect().await;
        let mut locking = tokio::spawn(async move {
            execute(&mut holder, LOCK).await;
            holder
        });
        // Once it is asked for, no later statement of the read gets past it.
        until_lock_is_asked_for(&db).await;
        let holder = loop {
            tokio::select! {
                biased;
                holder = &mut locking => break holder.unwrap(),
                chunk = chunks.next() => assert!(take(chunk), "the read ended before the lock"),
            }
        };
        // The next statement waits for the lock, and is ended.
        assert!(take(soon("a chunk or an error", chunks.next()).await));
        drop(holder);
        while take(soon("a chunk", chunks.next()).await) {}
        assert!(failed > 0, "nothing failed");
        assert!(ids == expected, "{} of {}", ids.len(), expected.len());
    }
}

#[tokio::test]
async fn each_page_asks_again_whether_the_position_is_retained() {
    let database = Database::migrated().await;
    let db = database.owner_pool().await;
    let (from, _open) = half_seen(&database, &db, 9_000).await;
    let log = database.log(1);
    let mut chunks = log.read_all(&from);
    let mut ids = Vec::new();
    assert_eq!(read(&mut chunks, &mut ids).await, Some(true));
    execute(
        &mut database.connect().await,
        "UPDATE realtime.state SET dropped_to = pg_current_xact_id(), dropped_running = '{}'",
    )
    .await;
    let mut last = Some(true);
    while let Some(retained) = read(&mut chunks, &mut ids).await {
        last = Some(retained);
    }
    assert_eq!(last, Some(false));
}
