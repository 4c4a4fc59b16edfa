//! `migrate up` and `migrate down` beside writers and beside transactions that do not end: the writers go on, what is
//! in the way is named, and nothing is half done.

use std::time::Duration;

use hushnet_realtime::store::{Patience, migrate};
use hushnet_testkit::program;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::application;
use crate::support::{Database, add_device, add_user, execute, insert_message, soon, until};

/// Less than a test's deadline, and enough for several attempts.
const SHORT: Patience = Patience {
    wait: Duration::from_secs(2),
    report: |_| (),
};

/// What is in the way for good.
async fn blocker(database: &Database, name: &str, statements: &str) -> (PgConnection, i32) {
    let mut connection = database.connect().await;
    let named = format!("SET application_name = '{name}'; BEGIN");
    execute(&mut connection, &named).await;
    let pid = scalar(&mut connection, "SELECT pg_backend_pid()").await;
    execute(&mut connection, statements).await;
    (connection, pid)
}

async fn scalar<T>(connection: &mut PgConnection, statement: &str) -> T
where
    T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
{
    // The text is seen in `pg_stat_activity` as it is here.
    sqlx::query_scalar(AssertSqlSafe(statement))
        .persistent(false)
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Writes messages and devices until it is dropped.
pub(super) struct Writer {
    written: watch::Receiver<usize>,
    writing: JoinHandle<()>,
}

impl Writer {
    pub(super) async fn start(database: &Database) -> Self {
        let db = database.pool().await;
        let bob = add_user(&db).await;
        let (sender, written) = watch::channel(0);
        let writing = tokio::spawn(async move {
            loop {
                insert_message(&db, None, &bob, &bob).await;
                add_device(&db, bob.id).await;
                sender.send_modify(|count| *count += 1);
            }
        });
        Self { written, writing }
    }

    /// Waits until it has written so many rows more.
    pub(super) async fn more(&mut self, count: usize) {
        let wanted = *self.written.borrow() + count;
        let reached = self.written.wait_for(|written| *written >= wanted);
        soon("the writer to go on", reached).await.unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

/// The state of our index on `devices`: whether it is valid; `None` where there is none.
async fn index_is_valid(connection: &mut PgConnection) -> Option<bool> {
    let statement = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";
    sqlx::query_scalar(statement)
        .bind("public.realtime_devices_identity_pubkey")
        .fetch_optional(connection)
        .await
        .unwrap()
}

async fn has_log(connection: &mut PgConnection) -> bool {
    scalar(connection, "SELECT to_regnamespace('realtime') IS NOT NULL").await
}

/// Everything that `up` makes, but OIDs and the log's own contents.
async fn made(connection: &mut PgConnection) -> Vec<String> {
    let mut made = application(connection).await;
    let of_log: Vec<String> = sqlx::query_scalar(
        "SELECT relname || ' ' || relkind::text FROM pg_class WHERE relnamespace = 'realtime'::regnamespace
         UNION ALL SELECT p.oid::regprocedure::text || md5(prosrc) FROM pg_proc p
             WHERE pronamespace = 'realtime'::regnamespace
         UNION ALL SELECT version || ' ' || encode(checksum, 'hex') FROM realtime._sqlx_migrations
         UNION ALL SELECT definition || enabled::text FROM realtime.replaced_triggers
         UNION ALL SELECT 'privileges ' || relname || coalesce(relacl::text, '') FROM pg_class
             WHERE relnamespace = 'realtime'::regnamespace
         UNION ALL SELECT 'privileges ' || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname = 'realtime'
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    made.extend(of_log);
    // An upgrade names the parts of the log's index by id itself, and the first migration named the application's
    // functions as the role's search path had them.
    for line in &mut made {
        *line = line
            .replace("_realtime_id", "_id_idx")
            .replace("public.notify", "notify");
    }
    made.sort();
    made
}

#[tokio::test]
async fn what_never_ends_is_named_and_nothing_is_half_done() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let before = application(&mut connection).await;
    let mut writer = Writer::start(&database).await;
    let report = "SELECT count(*) FROM sessions";
    let (mut reader, pid) = blocker(&database, "nightly report", report).await;
    let error = migrate::up_with(&url, &SHORT)
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "public.sessions, ",
        "statement: SELECT count(*) FROM sessions",
        "in use by others for 2 s",
        &format!(
            "session {pid} (nightly report), idle in transaction, role hushnet_owner, transaction 00:00:"
        ),
        &format!("pg_terminate_backend({pid})"),
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(application(&mut connection).await, before);
    assert!(!has_log(&mut connection).await);
    writer.more(3).await;
    execute(&mut reader, "ROLLBACK").await;
    migrate::up(&url).await.unwrap();
    writer.more(3).await;

    // The same beside `down` and beside the repair of a trigger.
    let after = application(&mut connection).await;
    let (mut reader, _) = blocker(&database, "another report", report).await;
    let error = migrate::down_with(&url, &SHORT)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("(another report)"), "{error}");
    assert_eq!(application(&mut connection).await, after);
    writer.more(3).await;
    execute(&mut reader, "ROLLBACK").await;
    execute(
        &mut connection,
        "DROP TRIGGER realtime_messages ON messages",
    )
    .await;
    let report = "SELECT count(*) FROM messages";
    let (mut reader, _) = blocker(&database, "a third report", report).await;
    let error = migrate::up_with(&url, &SHORT)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("(a third report)"), "{error}");
    execute(&mut reader, "ROLLBACK").await;
    assert_eq!(migrate::up(&url).await.unwrap(), ["public.messages"]);
    assert_eq!(application(&mut connection).await, after);
    migrate::down(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, before);
    assert_eq!(index_is_valid(&mut connection).await, None);
}

/// A prepared transaction has no session.
#[tokio::test]
async fn a_prepared_transaction_is_named() {
    let (database, _) = Database::with_statements_logged().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let gid = format!("forgotten {}", uuid::Uuid::new_v4());
    let prepare =
        format!("BEGIN; LOCK TABLE messages IN ACCESS SHARE MODE; PREPARE TRANSACTION '{gid}'");
    execute(&mut connection, &prepare).await;
    let (mut reader, _) = blocker(
        &database,
        "report",
        "SELECT 'spoken by the report' FROM users",
    )
    .await;
    let error = migrate::up_with(&url, &SHORT)
        .await
        .unwrap_err()
        .to_string();
    for part in [
        &*format!("prepared transaction '{gid}' of role hushnet_owner"),
        &format!("ROLLBACK PREPARED '{gid}'"),
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(error.contains("(report), idle in transaction"), "{error}");
    execute(&mut reader, "ROLLBACK").await;
    execute(&mut connection, &format!("ROLLBACK PREPARED '{gid}'")).await;
    migrate::up(&url).await.unwrap();
}

/// The index waits for every older writer of the table. Ended by hand it is left invalid, and the next attempt builds
/// it again.
#[tokio::test]
async fn an_index_that_was_not_completed_is_built_again() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let before = application(&mut connection).await;
    let (mut holder, pid) = blocker(
        &database,
        "import",
        "LOCK TABLE devices IN ROW EXCLUSIVE MODE",
    )
    .await;
    let mut writer = Writer::start(&database).await;
    let error = migrate::up_with(&url, &SHORT)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("session {pid} (import)")),
        "{error}"
    );
    assert!(error.contains("statement: LOCK TABLE devices"), "{error}");
    assert_eq!(index_is_valid(&mut connection).await, Some(false));
    assert!(!has_log(&mut connection).await);
    writer.more(3).await;
    execute(&mut holder, "ROLLBACK").await;
    // What an attempt has left goes with `down`, also where there is no log.
    migrate::down(&url).await.unwrap();
    assert_eq!(index_is_valid(&mut connection).await, None);
    execute(
        &mut holder,
        "BEGIN; LOCK TABLE devices IN ROW EXCLUSIVE MODE",
    )
    .await;
    migrate::up_with(&url, &SHORT).await.unwrap_err();
    assert_eq!(index_is_valid(&mut connection).await, Some(false));
    execute(&mut holder, "ROLLBACK").await;
    migrate::up(&url).await.unwrap();
    assert_eq!(index_is_valid(&mut connection).await, Some(true));
    // With a log as well.
    let invalid = "UPDATE pg_index SET indisvalid = false
                   WHERE indexrelid = 'public.realtime_devices_identity_pubkey'::regclass";
    execute(&mut database.admin().await, invalid).await;
    migrate::up(&url).await.unwrap();
    assert_eq!(index_is_valid(&mut connection).await, Some(true));
    execute(
        &mut connection,
        "DROP INDEX realtime_devices_identity_pubkey",
    )
    .await;
    migrate::down(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, before);
}

/// Where the program is killed, by what it waits for there.
const KILLED_AT: [(i64, &str); 7] = [
    // The index is being built.
    (0, "LOCK TABLE devices IN ROW EXCLUSIVE MODE"),
    // The log is made, and the triggers are to be.
    (0, "LOCK TABLE messages IN ACCESS SHARE MODE"),
    // In the middle of an upgrade.
    (1, "LOCK TABLE realtime.state IN ACCESS SHARE MODE"),
    (2, "LOCK TABLE users IN ACCESS SHARE MODE"),
    (3, "LOCK TABLE realtime.events IN ROW EXCLUSIVE MODE"),
    (7, "LOCK TABLE realtime.events IN ROW EXCLUSIVE MODE"),
    // The sources are there, and the last trigger is to be.
    (7, "LOCK TABLE pending_sessions IN ROW EXCLUSIVE MODE"),
];

#[tokio::test]
async fn up_that_was_killed_can_be_run_again() {
    let whole = Database::migrated().await;
    let whole = made(&mut whole.connect().await).await;
    for (version, held) in KILLED_AT {
        let database = Database::hushnet().await;
        let mut connection = database.connect().await;
        let before = application(&mut connection).await;
        if version > 0 {
            database.migrate_to(version).await;
        }
        let (mut holder, _) = blocker(&database, "holder", held).await;
        let mut command = program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
        command.args(["migrate", "up", "--database-url", &database.owner_url()]);
        let killed = program::Program::start(&mut command);
        let at_work =
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                       AND application_name = 'hushnet-realtime' AND wait_event_type = 'Lock')";
        until("it waits for the lock", async || {
            scalar(&mut connection, at_work).await
        })
        .await;
        killed.kill().await;
        execute(&mut holder, "ROLLBACK").await;
        database.up().await;
        let now = made(&mut connection).await;
        assert_eq!(now, whole, "{version} {held}");
        assert_eq!(index_is_valid(&mut connection).await, Some(true));
        migrate::down(&database.owner()).await.unwrap();
        assert_eq!(
            application(&mut connection).await,
            before,
            "{version} {held}"
        );
    }
}

#[tokio::test]
async fn two_at_once_both_end_well() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let (one, other) = tokio::join!(migrate::up(&url), migrate::up(&url));
    one.unwrap();
    other.unwrap();
    let (one, other) = tokio::join!(migrate::down(&url), migrate::up(&url));
    one.unwrap();
    other.unwrap();
}

const APPLICATION: [&str; 4] = ["messages", "sessions", "devices", "users"];
const ATTEMPT: &str =
    "SAVEPOINT attempt; SET LOCAL lock_timeout = '200ms'; SET LOCAL statement_timeout = '200ms'";
const TAKEN: &str = "RELEASE SAVEPOINT attempt; SET LOCAL statement_timeout = 0";

/// What is sent between each lock that is taken and the end of its transaction; asserts that each lock is asked for in
/// a short attempt, and that no statement but these locks an application's table in a way that a writer would notice.
fn while_locked(statements: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut locked: Option<Vec<String>> = None;
    for (index, statement) in statements.iter().enumerate() {
        let next = statements.get(index + 1).map_or("", String::as_str);
        if statement.starts_with("LOCK TABLE") {
            assert_eq!(statements[index - 1], ATTEMPT, "{statement}");
            if next == TAKEN {
                assert_eq!(locked, None, "{statement}");
                locked = Some(Vec::new());
            } else {
                assert!(next.starts_with("ERROR:"), "{statement}: {next}");
                let after = &statements[index + 2];
                assert_eq!(after, "ROLLBACK TO SAVEPOINT attempt");
            }
        } else if statement == "COMMIT" {
            found.extend(locked.take());
        } else if let Some(locked) = &mut locked {
            if statement != TAKEN {
                locked.push(statement.clone());
            }
        } else {
            let of_application = APPLICATION
                .iter()
                .any(|table| statement.contains(&format!("ON public.{table}")));
            let harmless = !of_application
                || statement.contains("INDEX CONCURRENTLY")
                // What CREATE TRIGGER says, in the text of a function or of a look-up.
                || statement.contains("FUNCTION realtime.own_triggers()")
                || statement.starts_with("WITH expected AS");
            assert!(harmless, "{statement}");
        }
    }
    assert_eq!(locked, None);
    found
}

#[tokio::test]
async fn locks_are_asked_for_in_short_attempts_and_held_for_few_statements() {
    let (database, log) = Database::with_statements_logged().await;
    let url = database.owner();
    let writer = Writer::start(&database).await;
    let (mut reader, _) = blocker(&database, "report", "SELECT FROM messages").await;
    let migrating = tokio::spawn({
        let url = database.owner();
        async move { migrate::up(&url).await }
    });
    let failed = |statements: &[String]| {
        let failed = statements.iter().filter(|text| text.starts_with("ERROR:"));
        failed.count()
    };
    until("two attempts have failed", async || {
        failed(&log.statements()) >= 2
    })
    .await;
    execute(&mut reader, "ROLLBACK").await;
    soon("the migration", migrating).await.unwrap().unwrap();
    let repaired = "SELECT realtime.repair_triggers()";
    assert_eq!(while_locked(&log.statements()), [[repaired]]);

    let sent = log.statements().len();
    migrate::up(&url).await.unwrap();
    assert_eq!(
        while_locked(&log.statements()[sent..]),
        [[""; 0]; 0],
        "nothing is locked in vain"
    );

    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "DROP TRIGGER realtime_sessions ON sessions",
    )
    .await;
    let sent = log.statements().len();
    migrate::up(&url).await.unwrap();
    assert_eq!(while_locked(&log.statements()[sent..]), [[repaired]]);

    let sent = log.statements().len();
    migrate::down(&url).await.unwrap();
    let undone = while_locked(&log.statements()[sent..]);
    assert_eq!(undone.len(), 1, "{undone:#?}");
    drop(writer);
}

/// The schema before the log's index by id, with events in the log.
#[tokio::test]
async fn an_upgrade_builds_the_log_s_index_before_it_locks_the_log() {
    let (database, log) = Database::with_statements_logged().await;
    database.migrate_to(3).await;
    let mut connection = database.connect().await;
    let mut writer = Writer::start(&database).await;
    writer.more(20).await;
    let sent = log.statements().len();
    migrate::up(&database.owner()).await.unwrap();
    writer.more(3).await;
    let statements = log.statements().split_off(sent);
    let built = |text: &&String| text.starts_with("CREATE INDEX CONCURRENTLY events_");
    assert_eq!(statements.iter().filter(built).count(), 16);
    while_locked(&statements);
    let parts = "SELECT count(*) FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
                 WHERE inhparent = 'realtime.events_id'::regclass AND indisvalid";
    // And that of the barriers, which has nothing in it.
    assert_eq!(scalar::<i64>(&mut connection, parts).await, 17);
    let doubled = "SELECT count(*) FROM pg_index WHERE indrelid = 'realtime.events_0'::regclass";
    assert_eq!(scalar::<i64>(&mut connection, doubled).await, 3);
}

/// CONCURRENTLY builds no index of a partitioned table.
#[tokio::test]
async fn a_partitioned_table_of_devices_has_its_index_too() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "ALTER TABLE devices RENAME TO devices_before;
         CREATE TABLE devices (LIKE devices_before INCLUDING DEFAULTS) PARTITION BY HASH (id);
         CREATE TABLE devices_0 PARTITION OF devices FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE devices_1 PARTITION OF devices FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    .await;
    let indexes = "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indisvalid AND indrelid::regclass::text IN ('devices', 'devices_0', 'devices_1')";
    for _ in 0..2 {
        migrate::up(&url).await.unwrap();
        assert_eq!(scalar::<i64>(&mut connection, indexes).await, 3);
        migrate::up(&url).await.unwrap();
        assert_eq!(scalar::<i64>(&mut connection, indexes).await, 3);
        migrate::down(&url).await.unwrap();
        assert_eq!(scalar::<i64>(&mut connection, indexes).await, 0);
    }
}
