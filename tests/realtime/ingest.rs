//! The listener's database sessions, and what the listener does where events were missed.

use hushnet_realtime::config::Ingest;
use hushnet_realtime::store::HeldWakeLock;
use sqlx::postgres::PgListener;
use uuid::Uuid;

use crate::support::{Database, Server, execute, soon, until};

/// Makes every barrier note the `synchronous_commit` of its session.
const NOTING_BARRIER: &str = "
    CREATE TABLE public.noted (synchronous_commit text);
    CREATE OR REPLACE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
        INSERT INTO public.noted VALUES (current_setting('synchronous_commit'));
        SELECT pg_notify('realtime_control', 'barrier ' || nonce)
    $$;";

async fn synchronous_commit_of_barriers(configured: &str) -> String {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let configure = format!("ALTER DATABASE {name} SET synchronous_commit = {configured}");
    execute(&mut connection, &configure).await;
    execute(&mut connection, NOTING_BARRIER).await;
    let log = database.log(1);
    log.send_barrier("7/1").await.unwrap();
    let of_requests: String = sqlx::query_scalar("SELECT current_setting('synchronous_commit')")
        .fetch_one(&log.requests())
        .await
        .unwrap();
    let of_barriers: String = sqlx::query_scalar("SELECT synchronous_commit FROM public.noted")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(of_requests, of_barriers);
    of_barriers
}

/// Clients are given a barrier's snapshot as their position. A crash must not take back what it saw.
#[tokio::test]
async fn barriers_reach_the_disk_although_the_database_does_not_ask_for_it() {
    assert_eq!(synchronous_commit_of_barriers("off").await, "on");
}

/// `local` and above reach the disk; the operator chose what standbys have to confirm.
#[tokio::test]
async fn sessions_keep_a_synchronous_commit_that_reaches_the_disk() {
    assert_eq!(synchronous_commit_of_barriers("local").await, "local");
}

#[tokio::test]
async fn a_listener_that_was_away_beyond_the_retention_resets_its_clients() {
    let server = Server::start().await;
    let db = server.database().owner_pool().await;
    let path = format!("/ws?user_id={}", Uuid::new_v4());
    let mut client = server.connect_v1(&path).await;
    client.until_type("hello").await;
    // As if every event up to a transaction of the future had been dropped.
    sqlx::query(
        "UPDATE realtime.state
         SET dropped_to = (pg_current_xact_id()::text::bigint + 1000000)::text::xid8",
    )
    .execute(&db)
    .await
    .unwrap();
    server.database().end_listener().await;
    let reset = client.next_json().await;
    assert_eq!(reset["type"], "reset");
    assert_eq!(reset["reason"], "retention");
}

/// A server elsewhere sleeps and would wait for a notification that never comes.
#[tokio::test]
async fn the_wake_lock_is_announced_before_it_is_waited_for() {
    let database = Database::migrated().await;
    let log = database.log(1);
    let mut other = PgListener::connect(&database.owner_url()).await.unwrap();
    other.listen("realtime_control").await.unwrap();
    let mut writer = database.connect().await;
    execute(
        &mut writer,
        "BEGIN; SELECT pg_advisory_xact_lock_shared(realtime.doorbell());",
    )
    .await;
    let taking = tokio::spawn(async move { HeldWakeLock::take(&log).await });
    let announced = soon("the announcement", other.recv()).await.unwrap();
    assert_eq!(announced.payload(), "awake");
    assert!(!taking.is_finished(), "an event is being written");
    execute(&mut writer, "COMMIT;").await;
    let mut lock = soon("the lock", taking).await.unwrap().unwrap();
    lock.check().await.unwrap();
    let shared = "SELECT pg_try_advisory_lock_shared(realtime.doorbell())";
    let is_free = async |connection: &mut sqlx::PgConnection| {
        let query = sqlx::query_scalar::<_, bool>(shared);
        query.fetch_one(connection).await.unwrap()
    };
    assert!(!is_free(&mut writer).await);
    drop(lock);
    until("the lock is free", async || is_free(&mut writer).await).await;
}

/// What the next barrier says: how events reach the servers, and whether some may be silent.
pub async fn told_by_barrier(database: &Database, listener: &mut PgListener) -> (String, bool) {
    database.log(1).send_barrier("7/1").await.unwrap();
    loop {
        let notified = soon("the barrier", listener.recv()).await.unwrap();
        let words: Vec<_> = notified.payload().split(' ').collect();
        if let ["barrier", _, _, _, way, silent, ..] = words[..] {
            return (way.to_owned(), silent == "t");
        }
    }
}

/// A statement that runs has no number yet, and may go by the functions of before the change.
#[tokio::test]
async fn events_count_as_silent_until_whatever_ran_at_a_change_has_ended() {
    let database = Database::migrated().await;
    let log = database.log(1);
    let mut listener = PgListener::connect(&database.owner_url()).await.unwrap();
    listener.listen("realtime_control").await.unwrap();
    for statement in ["SELECT 1", "SELECT pg_current_xact_id()"] {
        log.set_ingest(Ingest::Tail).await.unwrap();
        let (way, silent) = told_by_barrier(&database, &mut listener).await;
        assert_eq!((way.as_str(), silent), ("tail", true));
        let mut running = database.connect().await;
        execute(&mut running, &format!("BEGIN; {statement}")).await;
        log.set_ingest(Ingest::Notify).await.unwrap();
        // One that began after the change is not waited for.
        let mut later = None;
        for _ in 0..4 {
            let (way, silent) = told_by_barrier(&database, &mut listener).await;
            assert_eq!((way.as_str(), silent), ("notify", true), "{statement}");
            if later.is_none() {
                let mut connection = database.connect().await;
                execute(&mut connection, &format!("BEGIN; {statement}")).await;
                later = Some(connection);
            }
        }
        execute(&mut running, "COMMIT").await;
        until("every event notifies", async || {
            !told_by_barrier(&database, &mut listener).await.1
        })
        .await;
        drop(later);
    }
}

/// The role of a server changes how events reach it by the function, and nothing else of the state.
#[tokio::test]
async fn the_functions_that_write_the_log_are_of_the_way_of_ingest() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    for (ingest, way) in [
        (Ingest::Tail, "SELECT false"),
        (Ingest::Adaptive, "pg_try_advisory_xact_lock_shared"),
        (Ingest::Notify, "SELECT true"),
    ] {
        database.log(1).set_ingest(ingest).await.unwrap();
        let text: String = sqlx::query_scalar(
            "SELECT prosrc FROM pg_proc WHERE oid = 'realtime.notifies()'::regprocedure",
        )
        .fetch_one(&mut owner)
        .await
        .unwrap();
        assert!(text.contains(way), "{ingest:?}: {text}");
    }
}
