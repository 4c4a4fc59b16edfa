//! `migrate plan` says what `migrate up` does next, and changes nothing.

use hushnet_realtime::store::migrate;
use hushnet_testkit::program;
use sqlx::PgConnection;

use super::{application, notifying_triggers};
use crate::support::{Database, execute};

/// The output and the exit status of `migrate plan` with these arguments.
async fn plan(database: &Database, more: &[&str]) -> (String, Option<i32>) {
    let mut command = program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    command.args(["migrate", "plan", "--database-url", &database.owner_url()]);
    let output = command.args(more).output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "");
    (
        String::from_utf8(output.stdout).unwrap(),
        output.status.code(),
    )
}

/// The names of the triggers that the plan creates, in the order of names.
fn created(plan: &str) -> Vec<String> {
    let lines = plan
        .lines()
        .filter_map(|line| line.strip_prefix("  create the trigger "));
    let mut names: Vec<_> = lines
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

async fn names(connection: &mut PgConnection) -> Vec<String> {
    let triggers = notifying_triggers(connection).await;
    triggers.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn what_is_planned_is_what_is_done() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    execute(&mut connection, "ANALYZE").await;
    let before = application(&mut connection).await;
    let (planned, status) = plan(&database, &[]).await;
    assert_eq!(status, Some(0));
    assert_eq!(
        plan(&database, &["--exit-code"]).await,
        (planned.clone(), Some(3))
    );
    for part in [
        "build an index of public.devices (about 0 rows, ",
        "apply 0001 log and triggers, 0002 retention, 0003 triggers, ",
        "lock public.devices (about 0 rows, ",
        "IN ACCESS EXCLUSIVE MODE",
        "remove the application's trigger messages_notify_trigger from public.messages; migrate down puts it back",
    ] {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    assert_eq!(application(&mut connection).await, before);
    migrate::up(&url).await.unwrap();
    assert_eq!(created(&planned), names(&mut connection).await);
    let (planned, status) = plan(&database, &["--exit-code"]).await;
    assert_eq!((&*planned, status), ("nothing is to be done\n", Some(0)));
}

#[tokio::test]
async fn triggers_and_an_index_that_are_not_as_they_were_are_planned_for() {
    let database = Database::migrated().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "DROP TRIGGER realtime_messages ON messages;
         ALTER TABLE sessions DISABLE TRIGGER realtime_sessions",
    )
    .await;
    let invalid = "UPDATE pg_index SET indisvalid = false
         WHERE indexrelid = 'public.realtime_devices_identity_pubkey'::regclass";
    execute(&mut database.admin().await, invalid).await;
    let broken = application(&mut connection).await;
    let (planned, status) = plan(&database, &["--exit-code"]).await;
    assert_eq!(status, Some(3));
    assert_eq!(
        created(&planned),
        ["realtime_messages", "realtime_sessions"]
    );
    for part in [
        "drop the index public.realtime_devices_identity_pubkey CONCURRENTLY",
        "build an index of public.devices",
        "drop the trigger realtime_sessions of public.sessions",
    ] {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    assert!(!planned.contains("apply"), "{planned}");
    assert_eq!(application(&mut connection).await, broken);
    migrate::up(&url).await.unwrap();
    assert_eq!(plan(&database, &[]).await.0, "nothing is to be done\n");
}

#[tokio::test]
async fn each_migration_of_an_upgrade_is_planned_with_its_locks() {
    let database = Database::migrated_to(2).await;
    let (planned, _) = plan(&database, &[]).await;
    for part in [
        "apply 0003 triggers: lock public.messages, public.sessions, public.devices, public.users IN ACCESS EXCLUSIVE",
        "build an index of realtime.events_15 (",
        "apply 0004 events by id: lock realtime.events IN SHARE MODE",
        "apply 0005 history: lock realtime.state IN ACCESS EXCLUSIVE MODE",
    ] {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    assert!(!planned.contains("0001"), "{planned}");
    migrate::up(&database.owner()).await.unwrap();
    let made = names(&mut database.connect().await).await;
    assert_eq!(created(&planned), made);
    let from_the_first = plan(&Database::migrated_to(1).await, &[]).await.0;
    assert!(from_the_first.contains("copies up to 100,000 events"));
}
