//! The roles of docs/operations.md: what each may do, what it is given by `migrate grant`, and what is said where a right
//! is missing. Every other test runs with these roles too.

use std::process::Stdio;

use hushnet_realtime::store::{Purpose, migrate};
use hushnet_testkit::program::{self, Program};
use hushnet_testkit::roles::{APPLICATION, SERVICE, url_as};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Database, Server, add_user, connect, execute, insert_message, soon, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");

mod look_ups;

/// Names from a catalogue, in their order.
async fn names(connection: &mut PgConnection, query: &str) -> Vec<String> {
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query));
    query.fetch_all(connection).await.unwrap()
}

async fn yes(connection: &mut PgConnection, question: &str) -> bool {
    let question = sqlx::query_scalar(sqlx::AssertSqlSafe(question));
    question.fetch_one(connection).await.unwrap()
}

/// A null `proacl` is what a function has when it is made: everyone may execute it.
#[tokio::test]
async fn no_function_is_everyone_s_and_each_of_its_owner_s_rights_has_a_search_path() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    let all = "SELECT count(*) > 30 FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace";
    assert!(yes(&mut owner, all).await);
    let public = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace
        AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0)) ORDER BY 1";
    assert_eq!(names(&mut owner, public).await, [""; 0]);
    let loose = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace
        AND prosecdef AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false) ORDER BY 1";
    // It names everything with its schema: `events::the_writer_s_search_path_means_nothing`.
    assert_eq!(names(&mut owner, loose).await, ["realtime.on_messages()"]);
    let relations =
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'realtime'::regnamespace
        AND EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0)";
    assert_eq!(names(&mut owner, relations).await, [""; 0]);
    let usage = "SELECT EXISTS (SELECT FROM pg_namespace, aclexplode(nspacl)
        WHERE nspname = 'realtime' AND grantee = 0)";
    assert!(!yes(&mut owner, usage).await, "the schema is everyone's");
}

#[tokio::test]
async fn the_service_reads_state_without_a_right_on_the_application_s_tables() {
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    // A hardened database.
    execute(&mut admin, "REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    let grant = format!("GRANT USAGE ON SCHEMA public TO {APPLICATION}");
    execute(&mut admin, &grant).await;
    let held = format!(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
         AND has_any_column_privilege('{SERVICE}', oid, 'SELECT, INSERT, UPDATE, REFERENCES')"
    );
    assert_eq!(names(&mut admin, &held).await, [""; 0]);
    let owned = format!("SELECT relname::text FROM pg_class WHERE relowner = '{SERVICE}'::regrole");
    assert_eq!(names(&mut admin, &owned).await, [""; 0]);

    let server = Server::start_on(database, |_| {}).await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    insert_message(&db, None, &alice, &bob).await;
    let handshake =
        "INSERT INTO pending_sessions (sender_device_id, recipient_device_id, ephemeral_pubkey,
        sender_prekey_pub, otpk_used, ciphertext) VALUES ($1, $2, '', '', '', '')";
    let handshake = sqlx::query(handshake)
        .bind(alice.device_id)
        .bind(bob.device_id);
    handshake.execute(&db).await.unwrap();
    for path in [
        format!("/messages/pending/{}", bob.device_id),
        format!("/sessions/pending?device_id={}", bob.device_id),
        format!("/users/{}/devices", bob.id),
    ] {
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.json().as_array().unwrap().len(), 1, "{path}");
        assert!(answer.headers.contains_key("realtime-cursor"), "{path}");
    }
    let ready = server.get("/readyz").await.json();
    assert_eq!(ready["status"], "ready", "{ready}");
}

async fn grant(database: &Database, role: &str, purpose: &str) -> (i32, String, String) {
    let mut command = program::command(PROGRAM);
    command.args(["migrate", "grant", "--role", role, "--for", purpose]);
    command.args(["--database-url", &database.owner_url()]);
    let output = soon("the end of grant", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn grant_prints_what_it_grants_and_may_be_repeated() {
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    let role = format!("\"; DROP \"{}", Uuid::new_v4().simple());
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    execute(&mut admin, &format!("CREATE ROLE {quoted} LOGIN")).await;
    let acl = "SELECT coalesce(proacl::text, '') FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace
        ORDER BY oid";
    let before = names(&mut admin, acl).await;

    let (code, printed, error) = grant(&database, &role, "backend").await;
    assert_eq!(code, 0, "{error}");
    let wanted = format!(
        "granted USAGE ON SCHEMA realtime to {role}\n\
         granted EXECUTE ON FUNCTION realtime.cursor() to {role}\n"
    );
    assert_eq!(printed, wanted);
    let once = names(&mut admin, acl).await;
    assert_ne!(once, before);
    assert_eq!(grant(&database, &role, "backend").await.1, wanted);
    assert_eq!(names(&mut admin, acl).await, once);

    let (code, printed, error) = grant(&database, &role, "serve").await;
    assert_eq!(code, 0, "{error}");
    for right in [
        "SELECT ON TABLE realtime.events",
        "EXECUTE ON FUNCTION realtime.set_ingest(text)",
        "EXECUTE ON FUNCTION realtime.barrier(text)",
        "EXECUTE ON FUNCTION realtime.devices_with_key(text[], uuid, uuid)",
    ] {
        assert!(
            printed.contains(&format!("granted {right} to")),
            "{printed}"
        );
    }
    let clean = format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}");
    execute(&mut admin, &clean).await;
    assert_eq!(names(&mut admin, acl).await, before);
}

#[tokio::test]
async fn grant_says_what_is_in_its_way() {
    let database = Database::migrated().await;
    let (code, _, error) = grant(&database, "nobody_of_this_name", "serve").await;
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("no role \"nobody_of_this_name\""), "{error}");
    // The service's role owns nothing.
    let url = database.url.parse().unwrap();
    let refused = migrate::grant(&url, APPLICATION, Purpose::Serve).await;
    let refused = refused.unwrap_err().to_string();
    let said = ["was not granted", "permission denied"];
    assert!(said.iter().any(|said| refused.contains(said)), "{refused}");
    let bare = Database::hushnet().await;
    let (code, _, error) = grant(&bare, SERVICE, "serve").await;
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("migrate up"), "{error}");
}

/// As the next release's migrations will do it: what is replaced keeps its rights, and what is new gets them.
#[tokio::test]
async fn up_grants_what_is_new_to_the_roles_of_before() {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    let lost = format!("REVOKE EXECUTE ON FUNCTION realtime.existing_users(uuid[]) FROM {SERVICE}");
    execute(&mut owner, &lost).await;
    let serves = format!(
        "SELECT has_function_privilege('{SERVICE}', 'realtime.existing_users(uuid[])', 'EXECUTE')"
    );
    assert!(!yes(&mut owner, &serves).await);
    migrate::up(&database.owner()).await.unwrap();
    assert!(yes(&mut owner, &serves).await);
    // A backend stays a backend.
    let more = format!(
        "SELECT has_function_privilege('{APPLICATION}', 'realtime.existing_users(uuid[])', 'EXECUTE')
             OR has_table_privilege('{APPLICATION}', 'realtime.events', 'SELECT')"
    );
    assert!(!yes(&mut owner, &more).await);
}

/// The first reason of `/readyz` with this code, while the answer has this status.
async fn until_reason(server: &Server, status: u16, code: &str) -> Value {
    let mut found = Value::Null;
    until(&format!("/readyz says {code}"), async || {
        let ready = server.get("/readyz").await;
        let body = ready.json();
        let reasons = body["reasons"].as_array().unwrap();
        let reason = reasons.iter().find(|reason| reason["code"] == code);
        found = reason.cloned().unwrap_or_default();
        ready.status == status && reason.is_some()
    })
    .await;
    found
}

async fn until_ready(server: &Server) {
    until("/readyz is green", async || {
        server.get("/readyz").await.json()["status"] == "ready"
    })
    .await;
}

fn serve(database: &Database) -> Program {
    let mut command = program::command(PROGRAM);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--database-url", &database.url])
        .stderr(Stdio::piped());
    Program::start(&mut command)
}

/// The schema was made by an administrator and stays: nothing of ours may stay in it.
#[tokio::test]
async fn down_leaves_no_right_and_a_start_after_up_names_what_is_missing() {
    let database = Database::hushnet().await;
    let mut owner = database.connect().await;
    execute(&mut owner, "CREATE SCHEMA realtime").await;
    let acl = "SELECT coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname = 'realtime'";
    let before = names(&mut owner, acl).await;
    database.up().await;
    migrate::down(&database.owner()).await.unwrap();
    let usage = format!(
        "SELECT has_schema_privilege('{SERVICE}', 'realtime', 'USAGE')
             OR has_schema_privilege('{APPLICATION}', 'realtime', 'USAGE')"
    );
    assert!(!yes(&mut owner, &usage).await, "{before:?}");

    migrate::up(&database.owner()).await.unwrap();
    let mut starting = serve(&database);
    let said = loop {
        let line = starting.log.as_mut().unwrap().line().await;
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["fields"]["event"] == "rights_missing" {
            break line["fields"].clone();
        }
    };
    let remedy = format!("hushnet-realtime migrate grant --role {SERVICE} --for serve");
    assert_eq!(said["remedy"], remedy, "{said}");
    let rights = said["rights"].as_str().unwrap();
    for right in [
        "USAGE ON SCHEMA realtime",
        "SELECT ON TABLE realtime.events",
    ] {
        assert!(rights.contains(right), "{rights}");
    }
    starting.kill().await;

    let server = Server::start_unready(database, |config| config.barrier_interval_ms = 100);
    let reason = until_reason(&server, 503, "privilege").await;
    let detail = reason["detail"].as_str().unwrap();
    assert!(detail.ends_with("(42501)"), "no outage: {detail}");
    until_reason(&server, 503, "privilege_missing").await;
    let granting = server.database().owner();
    migrate::grant(&granting, SERVICE, Purpose::Serve)
        .await
        .unwrap();
    until_ready(&server).await;
}

#[tokio::test]
async fn a_right_that_events_do_not_need_degrades_the_service() {
    let server = Server::start().await;
    until_ready(&server).await;
    let mut owner = server.database().connect().await;
    let rotate = "FUNCTION realtime.rotate(interval)";
    execute(
        &mut owner,
        &format!("REVOKE EXECUTE ON {rotate} FROM {SERVICE}"),
    )
    .await;
    let reason = until_reason(&server, 200, "privilege_missing").await;
    let detail = reason["detail"].as_str().unwrap();
    assert_eq!(detail, format!("{SERVICE} lacks EXECUTE ON {rotate}"));
    migrate::up(&server.database().owner()).await.unwrap();
    until_ready(&server).await;
}

/// Reads the program's log up to this event, which no loss of the listener's connection comes before.
async fn until_logged(serve: &mut Program, event: &str) -> Value {
    loop {
        let line = serve.log.as_mut().unwrap().line().await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let fields = &line["fields"];
        if fields["event"] == event {
            return fields.clone();
        }
        assert_ne!(fields["event"], "listener_disconnected", "{line}");
    }
}

/// A server that serves a database without a log goes on while its role has no right on the log yet.
#[tokio::test]
async fn a_log_that_comes_before_its_rights_is_waited_for() {
    let database = Database::hushnet().await;
    let mut serve = serve(&database);
    until_logged(&mut serve, "listener_connected").await;
    migrate::up(&database.owner()).await.unwrap();
    until_logged(&mut serve, "log_incomplete").await;
    migrate::grant(&database.owner(), SERVICE, Purpose::Serve)
        .await
        .unwrap();
    until_logged(&mut serve, "log_found").await;
    serve.kill().await;
}

/// What a role needs in a database without the log, where another product has a schema of the name.
#[tokio::test]
async fn without_a_log_only_the_application_s_tables_are_missing() {
    let database = Database::hushnet().await;
    let mut owner = database.connect().await;
    let take = format!(
        "CREATE SCHEMA realtime; CREATE FUNCTION realtime.cursor() RETURNS int LANGUAGE sql AS 'SELECT 1';
         REVOKE SELECT ON users, devices FROM {SERVICE}"
    );
    execute(&mut owner, &take).await;
    let mut serve = serve(&database);
    let said = until_logged(&mut serve, "rights_missing").await;
    let statements = format!(
        "GRANT SELECT ON TABLE public.devices TO {SERVICE}; GRANT SELECT ON TABLE public.users TO {SERVICE}"
    );
    assert_eq!(said["remedy"], statements);
    serve.kill().await;
    let (code, _, error) = grant(&database, APPLICATION, "backend").await;
    assert_eq!(code, 1, "another product's function: {error}");
}

#[tokio::test]
async fn a_backend_reads_a_cursor_with_its_state_and_writes_nothing_of_ours() {
    let database = Database::migrated().await;
    let _server = Server::start_on(database.clone(), |_| {}).await;
    let db = database.pool().await;
    let mut reading = db.begin().await.unwrap();
    execute(
        &mut reading,
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    )
    .await;
    let cursor: String = sqlx::query_scalar("SELECT realtime.cursor()")
        .fetch_one(&mut *reading)
        .await
        .unwrap();
    assert!(cursor.contains('.'), "{cursor}");
    reading.commit().await.unwrap();
    // A role that was granted nothing.
    let mut admin = database.admin().await;
    let role = format!("t_{}", Uuid::new_v4().simple());
    execute(&mut admin, &format!("CREATE ROLE {role} LOGIN")).await;
    let mut stranger = connect(&url_as(&database.url, &role)).await;
    let refused = sqlx::raw_sql("SELECT realtime.cursor()")
        .execute(&mut stranger)
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("permission denied for schema realtime"),
        "{refused}"
    );
    stranger.close().await.unwrap();
    execute(&mut admin, &format!("DROP ROLE {role}")).await;
}
