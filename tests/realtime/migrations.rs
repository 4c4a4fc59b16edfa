//! `migrate up` takes over a HushNet database, `migrate down` gives it back as it was.

use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::migrate;
use sqlx::PgConnection;

use crate::support::{Database, execute};

/// Everything of the application's tables that a migration could change.
async fn application(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT pg_get_triggerdef(oid) || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
         UNION ALL SELECT table_name || '.' || column_name || ' ' || data_type
             FROM information_schema.columns WHERE table_schema = 'public'
         UNION ALL SELECT proname || ' ' || prosrc FROM pg_proc
             WHERE pronamespace = 'public'::regnamespace
         UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

async fn notifying_triggers(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as(
        "SELECT tgname::text, tgfoid::regproc::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn up_down_up_on_a_hushnet_database() {
    let database = Database::hushnet().await;
    let url: DatabaseUrl = database.url.parse().unwrap();
    let mut connection = database.connect().await;
    let before = application(&mut connection).await;

    migrate::up(&url).await.unwrap();
    let ours = [
        ("realtime_devices", "realtime.on_device"),
        ("realtime_devices_truncate", "realtime.on_truncate"),
        ("realtime_messages", "realtime.on_messages"),
        ("realtime_messages_truncate", "realtime.on_truncate"),
        ("realtime_sessions", "realtime.on_session"),
        ("realtime_sessions_truncate", "realtime.on_truncate"),
        ("realtime_users", "realtime.on_user_deleted"),
        ("realtime_users_truncate", "realtime.on_truncate"),
    ];
    let ours = ours.map(|(name, function)| (name.to_owned(), function.to_owned()));
    assert_eq!(notifying_triggers(&mut connection).await, ours);
    assert!(
        migrate::status(&url)
            .await
            .unwrap()
            .iter()
            .all(|migration| migration.applied)
    );

    let after = application(&mut connection).await;
    migrate::up(&url).await.unwrap();
    assert_eq!(
        application(&mut connection).await,
        after,
        "applying twice changes nothing"
    );

    migrate::down(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, before);
    assert!(
        migrate::status(&url)
            .await
            .unwrap()
            .iter()
            .all(|migration| !migration.applied)
    );
    migrate::down(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, before);

    migrate::up(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, after);
}

#[tokio::test]
async fn triggers_under_other_names_and_disabled_ones_come_back_as_they_were() {
    let database = Database::hushnet().await;
    let url: DatabaseUrl = database.url.parse().unwrap();
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "ALTER TRIGGER messages_notify_trigger ON messages RENAME TO tell_everyone;
         ALTER TABLE sessions DISABLE TRIGGER sessions_notify_trigger;
         CREATE TABLE audit (n int);
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER audit AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION audit();",
    )
    .await;
    let before = application(&mut connection).await;
    migrate::up(&url).await.unwrap();
    let names: Vec<_> = notifying_triggers(&mut connection)
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "audit",
        "realtime_devices",
        "realtime_devices_truncate",
        "realtime_messages",
        "realtime_messages_truncate",
        "realtime_sessions",
        "realtime_sessions_truncate",
        "realtime_users",
        "realtime_users_truncate",
    ];
    assert_eq!(names, expected);
    migrate::down(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, before);
}

/// The application is deployed again after `migrate up`: with its triggers under their old names, or in the place of
/// ours. `migrate down` leaves what the application has now.
#[tokio::test]
async fn triggers_that_were_deployed_again_come_back_as_they_were_last() {
    let database = Database::hushnet().await;
    let url: DatabaseUrl = database.url.parse().unwrap();
    let mut connection = database.connect().await;
    migrate::up(&url).await.unwrap();
    let again = "CREATE OR REPLACE TRIGGER messages_notify_trigger AFTER INSERT ON messages
                 FOR EACH ROW WHEN (NEW.chat_id IS NOT NULL) EXECUTE FUNCTION notify_new_message()";
    execute(&mut connection, again).await;
    migrate::down(&url).await.unwrap();
    let after = application(&mut connection).await;
    execute(&mut connection, again).await;
    assert_eq!(application(&mut connection).await, after);
    migrate::up(&url).await.unwrap();
    migrate::down(&url).await.unwrap();
    assert_eq!(application(&mut connection).await, after);
}

#[tokio::test]
async fn a_database_without_the_application_is_refused() {
    let database = Database::hushnet().await;
    let url: DatabaseUrl = database.url.parse().unwrap();
    let mut connection = database.connect().await;
    execute(&mut connection, "DROP TABLE sessions").await;
    let error = migrate::up(&url).await.unwrap_err().to_string();
    assert!(
        error.contains("tables are missing in schema public: sessions"),
        "{error}"
    );
    let left: bool = sqlx::query_scalar("SELECT to_regclass('realtime.events') IS NOT NULL")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(!left);
}

#[tokio::test]
async fn the_books_are_kept_apart_from_the_application_s_own() {
    let database = Database::hushnet().await;
    let url: DatabaseUrl = database.url.parse().unwrap();
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "CREATE TABLE public._sqlx_migrations (theirs text)",
    )
    .await;
    migrate::up(&url).await.unwrap();
    execute(
        &mut connection,
        "INSERT INTO public._sqlx_migrations VALUES ('untouched')",
    )
    .await;
    migrate::down(&url).await.unwrap();
    let theirs: String = sqlx::query_scalar("SELECT theirs FROM public._sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(theirs, "untouched");
}
