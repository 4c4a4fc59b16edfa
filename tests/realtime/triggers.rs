//! Triggers that are not where they belong: found, shown, and repaired by `migrate up`.

use hushnet_realtime::store::migrate;
use uuid::Uuid;

use crate::support::{Database, Server, add_user, execute, insert_message, until};

async fn faults(database: &Database) -> Vec<String> {
    let faults = database.log(1).trigger_faults().await.unwrap();
    faults.iter().map(ToString::to_string).collect()
}

/// A migrated database after these statements.
async fn broken_by(statements: &str) -> Database {
    let database = Database::migrated().await;
    execute(&mut database.connect().await, statements).await;
    database
}

#[tokio::test]
async fn nothing_is_faulty_after_migrate_up_nor_without_the_log() {
    assert_eq!(faults(&Database::migrated().await).await, [""; 0]);
    assert_eq!(faults(&Database::hushnet().await).await, [""; 0]);
}

#[tokio::test]
async fn a_trigger_that_is_not_in_its_place_is_found_and_migrate_up_puts_it_there() {
    for (statements, found) in [
        (
            "ALTER TABLE messages DISABLE TRIGGER USER",
            "public.messages: disabled",
        ),
        (
            "ALTER TABLE devices ENABLE REPLICA TRIGGER realtime_devices",
            "public.devices: disabled",
        ),
        (
            "DROP TRIGGER realtime_sessions ON sessions",
            "public.sessions: missing",
        ),
        (
            "ALTER TABLE messages RENAME TO messages_old;
             CREATE TABLE messages (LIKE messages_old INCLUDING ALL)",
            "public.messages: missing",
        ),
        (
            "CREATE TRIGGER again AFTER INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION realtime.on_session()",
            "public.sessions: twice",
        ),
        (
            "CREATE TRIGGER messages_notify_trigger AFTER INSERT ON messages
             FOR EACH ROW EXECUTE FUNCTION notify_new_message()",
            "public.messages: application_trigger",
        ),
        (
            "CREATE OR REPLACE TRIGGER realtime_messages AFTER INSERT ON messages
             FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "public.messages: missing",
        ),
    ] {
        let database = broken_by(statements).await;
        assert_eq!(faults(&database).await, [found], "{statements}");
        if statements.contains("suppress") {
            continue; // The application has taken our name: `migrate up` says so and changes nothing.
        }
        let url = database.owner();
        migrate::up(&url).await.unwrap();
        assert_eq!(faults(&database).await, [""; 0], "{statements}");
        migrate::down(&url).await.unwrap();
    }
}

#[tokio::test]
async fn what_migrate_up_cannot_mend_is_found() {
    let role = format!("t_owner_{}", Uuid::new_v4().simple());
    for (statements, found) in [
        (
            "ALTER TABLE sessions RENAME TO sessions_old".to_owned(),
            "public.sessions: table_missing",
        ),
        (
            format!(
                "CREATE ROLE {role}; GRANT USAGE, CREATE ON SCHEMA realtime TO {role};
                 ALTER FUNCTION realtime.on_session() OWNER TO {role};
                 ALTER TABLE devices ENABLE ROW LEVEL SECURITY"
            ),
            "public.devices: row_security",
        ),
    ] {
        let database = Database::migrated().await;
        execute(&mut database.admin().await, &statements).await;
        assert_eq!(faults(&database).await, [found]);
    }
}

#[tokio::test]
async fn a_database_that_is_fed_or_copied_by_logical_replication_is_refused_by_name() {
    for (statements, found) in [
        (
            "CREATE PUBLICATION everything FOR ALL TABLES",
            "everything: publication_for_all_tables",
        ),
        (
            "CREATE SUBSCRIPTION fed CONNECTION 'host=127.0.0.1' PUBLICATION theirs
                 WITH (connect = false, enabled = false, create_slot = false, slot_name = NONE);
             SET allow_system_table_mods = on;
             INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
             SELECT oid, 'public.messages'::regclass, 'r' FROM pg_subscription
             WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            "public.messages: subscription",
        ),
    ] {
        let database = Database::migrated().await;
        execute(&mut database.admin().await, statements).await;
        assert_eq!(faults(&database).await, [found]);
        let database = Database::hushnet().await;
        execute(&mut database.admin().await, statements).await;
        let error = migrate::up(&database.owner()).await;
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(found), "{error}");
    }
}

#[tokio::test]
async fn a_running_server_shows_a_faulty_trigger_until_it_is_repaired() {
    let server = Server::start().await;
    let missing = "hushnet_trigger_faults{fault=\"missing\"}";
    let drop = "DROP TRIGGER realtime_messages ON messages";
    execute(&mut server.database().connect().await, drop).await;
    server.until_metric(missing, 1.0).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 200);
    for part in ["degraded", "trigger_faulty", "public.messages: missing"] {
        assert!(ready.body.contains(part), "{}", ready.body);
    }
    server.database().up().await;
    until("the repair to be seen", async || {
        server.metric(missing).await < 1.0
    })
    .await;
    assert!(!server.get("/readyz").await.body.contains("trigger_faulty"));
}

#[tokio::test]
async fn rows_that_a_replication_role_writes_are_events_too() {
    let server = Server::start().await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    let mut session = server.database().admin().await;
    execute(&mut session, "SET session_replication_role = replica").await;
    insert_message(&mut session, None, &bob, &bob).await;
    client.until_type("message").await;
}

/// The application was deployed again, with the trigger that `migrate up` had removed.
#[tokio::test]
async fn an_application_s_own_trigger_beside_ours_tells_no_event_twice() {
    let database = broken_by(
        "CREATE TRIGGER messages_notify_trigger AFTER INSERT ON messages
         FOR EACH ROW EXECUTE FUNCTION notify_new_message()",
    )
    .await;
    let server = Server::start_on(database, |_| {}).await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let mut client = server.connect(bob.id).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        insert_message(&db, None, &bob, &bob).await;
        let mut event = client.next_json().await;
        // The user's device may still be on its way.
        while event["type"] == "device" {
            event = client.next_json().await;
        }
        assert_eq!(event["type"], "message");
        ids.push(event["id"].as_i64().unwrap_or_else(|| panic!("{event}")));
    }
    let distinct = ids.iter().collect::<std::collections::HashSet<_>>();
    assert_eq!(distinct.len(), 3, "{ids:?}");
    let dropped = "hushnet_notifications_without_id_total{channel=\"messages_channel\"}";
    server.until_metric(dropped, 3.0).await;
}
