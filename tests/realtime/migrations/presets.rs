//! HushNet's sources are installed where their tables are, and where those have HushNet's columns.

use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::{Log, migrate};
use hushnet_testkit::application;
use hushnet_testkit::program;
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgConnection};

use super::quiet::Writer;
use super::{application as everything, notifying_triggers};
use crate::support::{Database, Server, add_user, execute, soon};

fn log(url: &DatabaseUrl) -> Log {
    Log::new(url.options(), 1)
}

/// What is printed of each source.
async fn sources(url: &DatabaseUrl) -> Vec<String> {
    let sources = migrate::sources(url).await.unwrap();
    sources.iter().map(ToString::to_string).collect()
}

async fn text(connection: &mut PgConnection, query: &str) -> String {
    let query = sqlx::query_scalar(AssertSqlSafe(query));
    query.fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_bare_database_gets_the_log_alone_and_is_served() {
    let database = Database::empty().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let before = everything(&mut connection).await;
    assert_eq!(log(&url).kinds().await.unwrap(), [""; 0]);
    database.up().await;
    assert_eq!(notifying_triggers(&mut connection).await, []);
    assert_eq!(migrate::plan(&url).await.unwrap().len(), 0);
    assert_eq!(log(&url).kinds().await.unwrap(), [""; 0]);
    assert_eq!(
        sources(&url).await,
        [
            "message: no events, there is no table public.messages",
            "session: no events, there is no table public.sessions",
            "device: no events, there is no table public.devices",
            "pending_session: no events, there is no table public.pending_sessions",
        ]
    );
    let mut server = Server::start_on(database.clone(), |_| {}).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.body, r#"{"reasons":[],"status":"ready"}"#);
    server.begin_stop();
    server.stopped().await.unwrap();
    migrate::down(&url).await.unwrap();
    assert_eq!(everything(&mut connection).await, before);
}

/// An application's own tables that merely have the names.
const ANOTHER_SHAPE: &str = "
    CREATE TABLE messages (id serial PRIMARY KEY, body text, to_user_id bigint, chat_id int);
    CREATE TABLE devices (serial_number text PRIMARY KEY, last_seen timestamptz);
    CREATE TABLE users (id bigint PRIMARY KEY);
    CREATE VIEW sessions AS SELECT id AS sender_device_id, id AS receiver_device_id FROM messages;
    CREATE FUNCTION notify_new_message() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER messages_notify_trigger AFTER INSERT ON messages
        FOR EACH ROW EXECUTE FUNCTION notify_new_message()";

#[tokio::test]
async fn tables_of_another_shape_are_left_alone() {
    let database = Database::empty().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    execute(&mut connection, ANOTHER_SHAPE).await;
    let indexes =
        "SELECT string_agg(indexname, ' ' ORDER BY 1) FROM pg_indexes WHERE schemaname = 'public'";
    let before = (
        notifying_triggers(&mut connection).await,
        text(&mut connection, indexes).await,
    );
    let mut command = program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    command.args(["migrate", "up", "--database-url", &database.owner_url()]);
    let output = command.output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    for line in [
        "message: no events, public.messages.to_user_id is not of type uuid\n",
        "session: no events, there is no table public.sessions\n",
        "device: no events, public.devices has no column id\n",
        "pending_session: no events, there is no table public.pending_sessions\n",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let after = (
        notifying_triggers(&mut connection).await,
        text(&mut connection, indexes).await,
    );
    assert_eq!(after, before);
    execute(
        &mut connection,
        "INSERT INTO messages (body) VALUES ('theirs')",
    )
    .await;
    assert_eq!(log(&url).trigger_faults().await.unwrap(), []);
    migrate::down(&url).await.unwrap();
    assert_eq!(notifying_triggers(&mut connection).await, before.0);
}

#[tokio::test]
async fn tables_that_came_meanwhile_are_installed_by_the_next_up() {
    let database = Database::empty().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    migrate::up(&url).await.unwrap();
    application::create_schema(&mut connection).await;
    execute(&mut connection, "DROP TABLE pending_sessions").await;
    let before = everything(&mut connection).await;
    assert_eq!(log(&url).kinds().await.unwrap(), [""; 0]);
    assert!(!migrate::plan(&url).await.unwrap().is_empty());
    let tables = [
        "public.devices",
        "public.messages",
        "public.sessions",
        "public.users",
    ];
    assert_eq!(migrate::up(&url).await.unwrap(), tables);
    let kinds = log(&url).kinds().await.unwrap();
    assert_eq!(kinds, ["device", "message", "session"]);
    assert_eq!(log(&url).trigger_faults().await.unwrap(), []);
    assert_eq!(
        sources(&url).await[2..],
        [
            "device: events of public.devices",
            "pending_session: no events, there is no table public.pending_sessions"
        ]
    );
    migrate::down(&url).await.unwrap();
    let is_theirs = |line: &String| !line.contains("realtime");
    let before: Vec<_> = before.into_iter().filter(is_theirs).collect();
    assert_eq!(everything(&mut connection).await, before);
}

/// A table that had a source is a fault when it is gone; a source of the preset can be retired then.
#[tokio::test]
async fn a_table_that_is_gone_is_a_fault_until_its_source_is_retired() {
    let database = Database::migrated().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let remove = "SELECT realtime.remove_source('session')";
    let refused = sqlx::raw_sql(remove).execute(&mut connection).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("migrate up would put it back"),
        "{refused}"
    );
    execute(&mut connection, "DROP TABLE sessions").await;
    migrate::up(&url).await.unwrap();
    let faults = log(&url).trigger_faults().await.unwrap();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].to_string(), "public.sessions: table_missing");
    execute(&mut connection, remove).await;
    assert_eq!(log(&url).trigger_faults().await.unwrap(), []);
    // What the log may still have is a kind yet.
    assert!(
        log(&url)
            .kinds()
            .await
            .unwrap()
            .contains(&"session".to_owned())
    );
    execute(
        &mut connection,
        "CREATE TABLE sessions (sender_device_id uuid, receiver_device_id uuid)",
    )
    .await;
    assert_eq!(migrate::up(&url).await.unwrap(), ["public.sessions"]);
    assert_eq!(log(&url).trigger_faults().await.unwrap(), []);
    migrate::down(&url).await.unwrap();
}

/// One row of each kind, for the same ids each time.
const ONE_OF_EACH: [(&str, &str); 4] = [
    (
        "messages_channel",
        "INSERT INTO messages (logical_msg_id, to_user_id, chat_id, header, ciphertext)
         SELECT 'm', (SELECT user_id FROM devices), NULL, '{}', 'c'",
    ),
    (
        "sessions_channel",
        "INSERT INTO sessions (sender_device_id, receiver_device_id) SELECT id, id FROM devices",
    ),
    ("devices_channel", "UPDATE devices SET device_label = device_label || 'x'"),
    (
        "pending_sessions_channel",
        "INSERT INTO pending_sessions (id, sender_device_id, recipient_device_id, ephemeral_pubkey, sender_prekey_pub,
                                       otpk_used, ciphertext, created_at)
         SELECT '00000000-0000-0000-0000-00000000000a', id, id, '', '', '', '', '2026-01-02 03:04:05.6' FROM devices",
    ),
];

/// What each of them notifies.
async fn notified(connection: &mut PgConnection, listener: &mut PgListener) -> Vec<String> {
    let mut payloads = Vec::new();
    for (channel, statement) in ONE_OF_EACH {
        execute(connection, statement).await;
        let notification = soon("a notification", listener.recv()).await.unwrap();
        assert_eq!(notification.channel(), channel);
        payloads.push(notification.payload().to_owned());
    }
    execute(
        connection,
        "DELETE FROM sessions; DELETE FROM pending_sessions",
    )
    .await;
    payloads
}

#[tokio::test]
async fn each_kind_s_json_is_hushnet_s_own_to_the_letter_with_an_id() {
    let database = Database::hushnet().await;
    add_user(&database.pool().await).await;
    let mut listener = PgListener::connect(&database.owner_url()).await.unwrap();
    listener
        .listen_all(ONE_OF_EACH.map(|(channel, _)| channel))
        .await
        .unwrap();
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "SET synchronous_commit = on; UPDATE devices SET device_label = ''",
    )
    .await;
    soon("the first", listener.recv()).await.unwrap();
    let theirs = notified(&mut connection, &mut listener).await;
    migrate::up(&database.owner()).await.unwrap();
    let ours = notified(&mut connection, &mut listener).await;
    let logged: Vec<(String, i64, i16, String, String)> = sqlx::query_as(
        "SELECT kind, id, source, xid::text, payload FROM realtime.events ORDER BY id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let kinds = ["message", "session", "device", "pending_session"];
    assert_eq!(logged.len(), kinds.len());
    for (index, (kind, id, source, xid, payload)) in logged.into_iter().enumerate() {
        assert_eq!(
            (&*kind, usize::try_from(source).unwrap()),
            (kinds[index], index + 1)
        );
        let body = theirs[index].strip_suffix('}').unwrap();
        assert_eq!(payload, format!("{body}, \"id\" : {id}}}"));
        let body = payload.strip_suffix('}').unwrap();
        assert_eq!(ours[index], format!("{body}, \"xid\" : {xid}}}"));
    }
}

/// `last_seen` is the only column of a device whose change makes no event, and no device needs it.
#[tokio::test]
async fn devices_need_no_last_seen() {
    let database = Database::migrated().await;
    add_user(&database.pool().await).await;
    let mut connection = database.connect().await;
    let count = "SELECT count(*)::text FROM realtime.events WHERE kind = 'device'";
    execute(
        &mut connection,
        "UPDATE devices SET last_seen = now() + '1 day'",
    )
    .await;
    assert_eq!(text(&mut connection, count).await, "1");
    execute(&mut connection, "ALTER TABLE devices DROP COLUMN last_seen").await;
    execute(
        &mut connection,
        "UPDATE devices SET device_label = device_label",
    )
    .await;
    assert_eq!(text(&mut connection, count).await, "1");
    execute(
        &mut connection,
        "UPDATE devices SET device_label = 'another'",
    )
    .await;
    assert_eq!(text(&mut connection, count).await, "2");
}

/// The schema before has triggers for three kinds, and no row says so.
#[tokio::test]
async fn an_upgrade_keeps_what_the_schema_before_had() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let before = everything(&mut connection).await;
    database.migrate_to(7).await;
    let kinds = log(&url).kinds().await.unwrap();
    assert_eq!(kinds, ["device", "message", "session"]);
    assert_eq!(log(&url).trigger_faults().await.unwrap(), []);
    execute(
        &mut connection,
        "ALTER TABLE sessions RENAME TO sessions_before",
    )
    .await;
    migrate::up(&url).await.unwrap();
    let faults = log(&url).trigger_faults().await.unwrap();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].to_string(), "public.sessions: table_missing");
    let kinds = log(&url).kinds().await.unwrap();
    assert_eq!(kinds, ["device", "message", "pending_session", "session"]);
    execute(
        &mut connection,
        "ALTER TABLE sessions_before RENAME TO sessions",
    )
    .await;
    assert_eq!(
        migrate::up(&url).await.unwrap(),
        [""; 0],
        "the trigger went along"
    );
    assert_eq!(log(&url).trigger_faults().await.unwrap(), []);
    migrate::down(&url).await.unwrap();
    assert_eq!(everything(&mut connection).await, before);
    // The schema before is removed by this program too.
    database.migrate_to(7).await;
    migrate::down(&url).await.unwrap();
    assert_eq!(everything(&mut connection).await, before);
}

#[tokio::test]
async fn an_upgrade_beside_a_writer_loses_no_event_and_knows_each_source_since() {
    let database = Database::hushnet().await;
    database.migrate_to(7).await;
    let mut writer = Writer::start(&database).await;
    writer.more(20).await;
    migrate::up(&database.owner()).await.unwrap();
    writer.more(20).await;
    drop(writer);
    let mut connection = database.connect().await;
    // A session that was at work is waited for.
    execute(
        &mut connection,
        "BEGIN; LOCK TABLE messages, devices IN SHARE MODE",
    )
    .await;
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM messages) = count(*) FILTER (WHERE kind = 'message'),
            (SELECT count(*) FROM devices) = count(*) FILTER (WHERE kind = 'device'),
            -- No row without a source is newer than one that has it.
            max(id) FILTER (WHERE source IS NULL) < min(id) FILTER (WHERE source IS NOT NULL),
            bool_and(source = CASE kind WHEN 'message' THEN 1 ELSE 3 END))
         FROM realtime.events";
    assert_eq!(text(&mut connection, counts).await, "t t t t");
}
