//! The migration of the log that was partitioned by time, with the service and the application at work.

use hushnet_realtime::protocol::Cursor;
use hushnet_realtime::store::migrate;

use super::{count, log_of, missed, names, present, settled};
use crate::support::{Database, Server, add_user, execute, insert_message, soon, until};

#[tokio::test]
async fn the_events_and_the_positions_of_before_stay_good() {
    let database = Database::migrated_to(1).await;
    let url = database.owner();
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    // The new program on the old schema.
    let first = present(&log).await;
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(missed(&log, &bob, &first.snapshot).await, Some(1));
    execute(
        &mut connection,
        &format!(
            "UPDATE realtime.state SET retained_from = '{}'",
            first.snapshot.xmin()
        ),
    )
    .await;
    assert_eq!(missed(&log, &bob, &first.snapshot).await, Some(1));
    let too_old: Cursor = "1-1.4:4:".parse().unwrap();
    assert_eq!(missed(&log, &bob, &too_old.snapshot).await, None);
    execute(
        &mut connection,
        "GRANT SELECT ON realtime.events TO pg_monitor",
    )
    .await;

    migrate::up(&url).await.unwrap();
    assert_eq!(missed(&log, &bob, &first.snapshot).await, Some(1));
    assert_eq!(missed(&log, &bob, &too_old.snapshot).await, None);
    insert_message(&db, None, &alice, &bob).await;
    assert_eq!(missed(&log, &bob, &first.snapshot).await, Some(2));
    let ids = "SELECT id::text FROM realtime.events ORDER BY xid, id";
    let ids = names(&mut connection, ids).await;
    let numbers: Vec<i64> = ids.iter().map(|id| id.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{ids:?}");
    let granted = "SELECT has_table_privilege('pg_monitor', 'realtime.events', 'SELECT')::text";
    assert_eq!(names(&mut connection, granted).await, ["true"]);
    migrate::down(&url).await.unwrap();
}

#[tokio::test]
async fn of_a_large_log_the_newest_events_are_kept_and_older_positions_are_reset() {
    let database = Database::migrated_to(1).await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let before = present(&log).await;
    insert_message(&db, None, &alice, &bob).await;
    let between = settled(&log, &mut connection).await;
    execute(
        &mut connection,
        "INSERT INTO realtime.events (user_id, kind, payload)
         SELECT '00000000-0000-0000-0000-000000000001', 'device', '{}' FROM generate_series(1, 100000)",
    )
    .await;
    database.up().await;
    assert_eq!(count(&mut connection, "realtime.events").await, 100_000);
    assert_eq!(missed(&log, &bob, &before.snapshot).await, None);
    assert_eq!(missed(&log, &bob, &between.snapshot).await, Some(0));
}

/// A writer that holds the lock of one of the two tables and wants that of the other.
#[tokio::test]
async fn the_migration_gives_way_to_a_writer_that_it_would_deadlock_with() {
    let database = Database::migrated_to(1).await;
    let url = database.owner();
    let db = database.owner_pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut writer = db.begin().await.unwrap();
    execute(&mut writer, "SELECT FROM realtime.state").await;
    let migrating = tokio::spawn(async move { migrate::up(&url).await });
    let waiting = "SELECT pid::text FROM pg_locks WHERE relation = 'realtime.state'::regclass
                   AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    until("the migration has locked the log", async || {
        !names(&mut connection, waiting).await.is_empty()
    })
    .await;
    insert_message(&mut *writer, None, &alice, &bob).await;
    writer.commit().await.unwrap();
    soon("the migration", migrating).await.unwrap().unwrap();
    assert_eq!(names(&mut connection, super::OPEN).await, ["events_0"]);
}

#[tokio::test]
async fn a_running_service_goes_on_over_the_migration() {
    let database = Database::migrated_to(1).await;
    let db = database.pool().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let server = Server::start_on(database.clone(), |config| config.barrier_interval_ms = 50).await;
    let mut client = server.connect_v1(&format!("/ws?user_id={}", bob.id)).await;
    client.until_type("hello").await;
    insert_message(&db, None, &alice, &bob).await;
    for migrate in [true, false] {
        loop {
            let frame = client.next_json().await;
            if frame["type"] == "message" {
                break;
            }
            assert_eq!(frame["type"], "cursor", "{frame}");
        }
        if migrate {
            database.up().await;
            insert_message(&db, None, &alice, &bob).await;
            // Histories are younger than the schema of before.
            let reset = loop {
                let frame = client.next_json().await;
                if frame["type"] == "reset" {
                    break frame;
                }
                assert!(
                    frame["type"] == "cursor" || frame["type"] == "message",
                    "{frame}"
                );
            };
            assert_eq!(reset["reason"], "history", "{reset}");
            insert_message(&db, None, &alice, &bob).await;
        }
    }
}

/// The triggers' functions run with their owner's rights.
#[tokio::test]
async fn the_owner_of_the_log_stays_its_owner() {
    let database = Database::migrated_to(1).await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let role = format!("t_owner_{}", uuid::Uuid::new_v4().simple());
    let give = format!(
        "CREATE ROLE {role};
         DO $$ DECLARE given text; BEGIN
             FOR given IN
                 SELECT format('ALTER TABLE %s OWNER TO {role}', oid::regclass) FROM pg_class
                 WHERE relnamespace = 'realtime'::regnamespace AND relkind IN ('r', 'p')
                 UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO {role}', oid::regprocedure) FROM pg_proc
                 WHERE pronamespace = 'realtime'::regnamespace
             LOOP EXECUTE given; END LOOP;
         END $$;
         ALTER SCHEMA realtime OWNER TO {role};
         GRANT SELECT ON devices TO {role};"
    );
    execute(&mut database.admin().await, &give).await;
    // An administrator may act as any owner.
    migrate::up(&database.admin_url()).await.unwrap();
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    insert_message(&db, None, &alice, &bob).await;
    let foreign = format!(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'realtime'::regnamespace
         AND relowner <> '{role}'::regrole"
    );
    let foreign: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(foreign))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(foreign.is_empty(), "{foreign:?}");
}
