//! The log of columns: an upgrade of what the schema before had, sources with any names, and changes of the way of
//! ingest while transactions run.

use std::time::Duration;

use hushnet_realtime::config::Ingest;
use hushnet_realtime::store::migrate;
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinSet;

use crate::ingest::told_by_barrier;
use crate::support::{Database, add_user, execute, insert_message, soon, until};

const ANN: &str = "00000000-0000-0000-0000-00000000000a";

async fn text(connection: &mut PgConnection, query: &str) -> String {
    let query = sqlx::query_scalar(AssertSqlSafe(query)).persistent(false);
    query.fetch_one(connection).await.unwrap()
}

/// What the log has of this kind, each without its id.
async fn logged(connection: &mut PgConnection, kind: &str) -> String {
    let query = format!(
        "SELECT coalesce(string_agg((payload::jsonb - 'id' - 'user_id' - 'asynchronous')::text, ' ' ORDER BY id), '')
         FROM realtime.events WHERE kind = '{kind}'"
    );
    text(connection, &query).await
}

async fn listener(database: &Database, channel: &str) -> PgListener {
    let mut listener = PgListener::connect(&database.owner_url()).await.unwrap();
    listener.listen(channel).await.unwrap();
    listener
}

/// The application goes on writing to a table that has lost its key, or its name.
#[tokio::test]
async fn an_upgrade_keeps_sources_whose_tables_have_changed() {
    let database = Database::migrated_to(8).await;
    let mut owner = database.connect().await;
    for (table, fields) in [("bare", "{}"), ("shown", "{x}"), ("moved", "{x}")] {
        let made = format!(
            "CREATE TABLE {table} (id int CONSTRAINT {table}_key PRIMARY KEY, reader uuid, x int);
             SELECT realtime.add_source('{table}', '{table}', 'reader', fields => '{fields}')"
        );
        execute(&mut owner, &made).await;
    }
    execute(
        &mut owner,
        "ALTER TABLE bare DROP CONSTRAINT bare_key; ALTER TABLE shown DROP CONSTRAINT shown_key;
         ALTER TABLE moved RENAME TO elsewhere",
    )
    .await;
    migrate::up(&database.owner()).await.unwrap();
    let mut events = listener(&database, "realtime_events").await;
    for (kind, table, json) in [
        (
            "bare",
            "bare",
            r#"{"op": "insert", "key": {}, "type": "bare"}"#,
        ),
        (
            "shown",
            "shown",
            r#"{"op": "insert", "key": {}, "row": {"x": 2}, "type": "shown"}"#,
        ),
        (
            "moved",
            "elsewhere",
            r#"{"op": "insert", "key": {"id": 1}, "row": {"x": 2}, "type": "moved"}"#,
        ),
    ] {
        execute(
            &mut owner,
            &format!("INSERT INTO {table} VALUES (1, '{ANN}', 2)"),
        )
        .await;
        assert_eq!(logged(&mut owner, kind).await, json);
        soon("the notification", events.recv()).await.unwrap();
    }
}

/// Names that PL/pgSQL, a quoted text or a format would take for something of their own.
#[tokio::test]
async fn columns_may_have_any_names() {
    let names = [
        "by", "begin", "if", "loop", "strict", "new", "number", "event", "fields", "a\"b", "c\\d",
        "e%s", "f$1", "g$$h", "i'j", "ünï☃",
    ];
    let quoted = names.map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    let columns = quoted.join(" int DEFAULT 1, ");
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    let make = format!(
        "CREATE TABLE odd ({columns} int DEFAULT 1, \"for\" uuid, PRIMARY KEY ({}))",
        quoted[..9].join(", ")
    );
    execute(&mut owner, &make).await;
    let add = sqlx::query("SELECT realtime.add_source('odd', 'odd', 'for', fields => $1)")
        .bind(&names[..]);
    add.execute(&mut owner).await.unwrap();
    let mut events = listener(&database, "realtime_events").await;
    execute(
        &mut owner,
        &format!("INSERT INTO odd (\"for\") VALUES ('{ANN}'); UPDATE odd SET \"for\" = NULL"),
    )
    .await;
    let payloads: Vec<String> =
        sqlx::query_scalar("SELECT payload FROM realtime.events WHERE kind = 'odd' ORDER BY id")
            .fetch_all(&mut owner)
            .await
            .unwrap();
    assert_eq!(payloads.len(), 2, "inserted, and gone for its reader");
    for payload in payloads {
        let event: serde_json::Value = serde_json::from_str(&payload).unwrap();
        for (index, name) in names.iter().enumerate() {
            let shown = if event["op"] == "insert" {
                1.into()
            } else {
                serde_json::Value::Null
            };
            assert_eq!(event["row"][name], shown, "{name}");
            assert_eq!(event["key"].get(name).is_some(), index < 9, "{name}");
        }
        let notification = soon("the notification", events.recv()).await.unwrap();
        assert!(
            notification
                .payload()
                .starts_with(payload.strip_suffix('}').unwrap())
        );
    }
}

/// The other session's source is not in this one's snapshot: a function made from it would not notify that.
#[tokio::test]
async fn a_source_is_not_added_in_an_older_snapshot() {
    let database = Database::migrated().await;
    let (mut owner, mut other) = (database.connect().await, database.connect().await);
    execute(
        &mut owner,
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid); CREATE TABLE notes (id int PRIMARY KEY, reader uuid);
         SET default_transaction_isolation = 'repeatable read'",
    )
    .await;
    execute(&mut owner, "BEGIN; SELECT 1").await;
    execute(
        &mut other,
        "SELECT realtime.add_source('post', 'posts', 'reader')",
    )
    .await;
    let refused = sqlx::raw_sql("SELECT realtime.add_source('note', 'notes', 'reader')")
        .execute(&mut owner)
        .await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("sources are added in a transaction that is READ COMMITTED"),
        "{error}"
    );
    execute(&mut owner, "ROLLBACK").await;
    let mut events = listener(&database, "realtime_events").await;
    execute(
        &mut owner,
        &format!("INSERT INTO posts VALUES (1, '{ANN}')"),
    )
    .await;
    soon("the notification", events.recv()).await.unwrap();
}

/// A transaction that adds a source does not hold up an `up` that has nothing to do.
#[tokio::test]
async fn up_without_changes_waits_for_no_source_that_is_being_added() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    execute(
        &mut owner,
        "CREATE TABLE posts (id int PRIMARY KEY, reader uuid);
         BEGIN; SELECT realtime.add_source('post', 'posts', 'reader')",
    )
    .await;
    migrate::up(&database.owner()).await.unwrap();
    execute(&mut owner, "COMMIT").await;
}

#[tokio::test]
async fn a_database_without_sources_is_upgraded_and_put_right_again() {
    let database = Database::empty().await;
    for _ in 0..2 {
        migrate::up(&database.owner()).await.unwrap();
    }
}

/// Rights on single columns stay, nobody gets any besides, and a function of another role stays that role's.
#[tokio::test]
async fn an_upgrade_gives_and_takes_no_rights() {
    let database = Database::migrated_to(8).await;
    let role = format!("r_{}", uuid::Uuid::new_v4().simple());
    let mut admin = database.admin().await;
    let before = format!(
        "CREATE ROLE {role}; GRANT USAGE, CREATE ON SCHEMA realtime TO {role};
         SET ROLE {role};
         CREATE FUNCTION realtime.other() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
         RESET ROLE"
    );
    execute(&mut admin, &before).await;
    let mut owner = database.connect().await;
    let granted = format!(
        "GRANT SELECT (id, user_id), INSERT ON realtime.events TO {role};
         ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {role}"
    );
    execute(&mut owner, &granted).await;
    execute(
        &mut admin,
        "REVOKE ALL ON FUNCTION realtime.other() FROM PUBLIC",
    )
    .await;
    migrate::up(&database.admin_url()).await.unwrap();
    let open = "SELECT coalesce(string_agg(p.oid::regprocedure::text, ' '), 'none')
                FROM pg_proc AS p, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
                WHERE pronamespace = 'realtime'::regnamespace AND acl.grantee = 0";
    assert_eq!(text(&mut admin, open).await, "none");
    let others = "SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE oid = 'realtime.other()'::regprocedure";
    assert_eq!(text(&mut admin, others).await, role);
    let read = format!("SET ROLE {role}; SELECT id, user_id FROM realtime.events");
    execute(&mut admin, &read).await;
    execute(
        &mut admin,
        &format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"),
    )
    .await;
}

/// A restored database has numbers of transactions that it has not reached yet.
#[tokio::test]
async fn a_new_history_does_not_wait_for_another_database_s_transactions() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    execute(
        &mut owner,
        "UPDATE realtime.state SET ingest_since = '900000000000', ingest_awaits = '{3/7}', database_oid = 1;
         SELECT realtime.begin_history()",
    )
    .await;
    let mut control = listener(&database, "realtime_control").await;
    until("every event notifies", async || {
        !told_by_barrier(&database, &mut control).await.1
    })
    .await;
}

/// It may have gone by the functions of before, and as a prepared one it has no virtual transaction any more.
#[tokio::test]
async fn events_count_as_silent_while_a_transaction_of_before_is_prepared() {
    let database = Database::with_prepared_transactions().await;
    let (log, mut owner) = (database.log(1), database.connect().await);
    let mut control = listener(&database, "realtime_control").await;
    log.set_ingest(Ingest::Tail).await.unwrap();
    let mut running = database.connect().await;
    execute(&mut running, "BEGIN; SELECT 1").await;
    log.set_ingest(Ingest::Notify).await.unwrap();
    told_by_barrier(&database, &mut control).await;
    let awaits = "SELECT cardinality(ingest_awaits)::text FROM realtime.state";
    assert_ne!(text(&mut owner, awaits).await, "0");
    let id = uuid::Uuid::new_v4();
    execute(
        &mut running,
        &format!("SELECT pg_current_xact_id(); PREPARE TRANSACTION '{id}'"),
    )
    .await;
    until("no virtual transaction is awaited", async || {
        assert!(told_by_barrier(&database, &mut control).await.1);
        text(&mut owner, awaits).await == "0"
    })
    .await;
    for _ in 0..3 {
        assert!(told_by_barrier(&database, &mut control).await.1);
    }
    execute(&mut owner, &format!("COMMIT PREPARED '{id}'")).await;
    until("every event notifies", async || {
        !told_by_barrier(&database, &mut control).await.1
    })
    .await;
}

/// A session that replicates fires no trigger of its own, but those that fire always.
#[tokio::test]
async fn the_functions_agree_with_the_state_also_in_a_session_that_replicates() {
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    execute(
        &mut admin,
        "SET session_replication_role = replica; UPDATE realtime.state SET ingest = 'tail'",
    )
    .await;
    let made = "SELECT prosrc || ' ' || ingest_since::text FROM pg_proc, realtime.state
                WHERE oid = 'realtime.notifies()'::regprocedure";
    assert_eq!(
        text(&mut admin, made).await.trim(),
        "SELECT false  9223372036854775807"
    );
}

/// Each holds the log for a moment, and there is always one that does. Of the log and the state a writer locks the state
/// first, and those that come while `up` waits must not have it already.
#[tokio::test]
async fn an_upgrade_comes_through_between_writers_that_never_pause() {
    let database = Database::migrated_to(8).await;
    let db = database.pool().await;
    let bob = add_user(&db).await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let database = database.clone();
        writers.spawn(async move {
            let db = database.pool_of(1).await;
            loop {
                let mut transaction = db.begin().await.unwrap();
                insert_message(&mut *transaction, None, &bob, &bob).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                transaction.commit().await.unwrap();
            }
        });
    }
    let written = "SELECT count(*)::text FROM realtime.events";
    let mut owner = database.connect().await;
    until("writers are at work", async || {
        text(&mut owner, written).await.len() > 2
    })
    .await;
    migrate::up(&database.owner()).await.unwrap();
    assert!(writers.try_join_next().is_none(), "a writer has failed");
}

/// The functions that the view composes JSON with show the values of any row.
#[tokio::test]
async fn who_may_not_read_the_json_may_not_read_the_values_either() {
    for (granted, may_read) in [
        ("SELECT (id, created_at), INSERT", false),
        ("SELECT (payload)", true),
        ("SELECT", true),
    ] {
        let database = Database::migrated_to(8).await;
        let role = format!("r_{}", uuid::Uuid::new_v4().simple());
        let mut admin = database.admin().await;
        let before = format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA realtime TO {role}");
        execute(&mut admin, &before).await;
        let mut owner = database.connect().await;
        let grant = format!("GRANT {granted} ON realtime.events TO {role}");
        execute(&mut owner, &grant).await;
        database.up().await;
        let holds = format!(
            "SELECT string_agg(DISTINCT has_function_privilege('{role}', p.oid, 'EXECUTE')::text, ' ') FROM pg_proc AS p
             WHERE pronamespace = 'realtime'::regnamespace AND proname IN ('compose', 'kept_fields')"
        );
        let expected = may_read.to_string();
        assert_eq!(text(&mut admin, &holds).await, expected, "{granted}");
        let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        execute(&mut admin, &drop).await;
    }
}
