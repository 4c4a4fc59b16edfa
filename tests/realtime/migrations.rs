//! `migrate up` takes over a HushNet database, `migrate down` gives it back as it was.

use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::store::migrate;
use sqlx::PgConnection;

use crate::support::{Database, execute};

mod load;
mod plan;
mod presets;
mod quiet;

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
        "SELECT tgname::text, tgfoid::regproc::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
         WHERE NOT tgisinternal AND relnamespace = 'public'::regnamespace ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn up_down_up_on_a_hushnet_database() {
    let database = Database::hushnet().await;
    let url = database.owner();
    let mut connection = database.connect().await;
    let before = application(&mut connection).await;

    migrate::up(&url).await.unwrap();
    let ours = [
        ("realtime_devices", "realtime.on_device"),
        ("realtime_devices_truncate", "realtime.on_truncate"),
        ("realtime_messages", "realtime.on_messages"),
        ("realtime_messages_truncate", "realtime.on_truncate"),
        ("realtime_pending_sessions", "realtime.on_pending_session"),
        ("realtime_pending_sessions_truncate", "realtime.on_truncate"),
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
    let url = database.owner();
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
        "realtime_pending_sessions",
        "realtime_pending_sessions_truncate",
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
    let url = database.owner();
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
async fn the_books_are_kept_apart_from_the_application_s_own() {
    let database = Database::hushnet().await;
    let url = database.owner();
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

/// The schema `realtime`: its owner, who may use it, and what is in it.
async fn schema(connection: &mut PgConnection) -> Vec<(String, Option<String>, Vec<String>)> {
    sqlx::query_as(
        "SELECT nspowner::regrole::text, nspacl::text, ARRAY(
             SELECT relname::text FROM pg_class WHERE relnamespace = pg_namespace.oid
             UNION SELECT proname::text FROM pg_proc WHERE pronamespace = pg_namespace.oid ORDER BY 1)
         FROM pg_namespace WHERE nspname = 'realtime'",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_schema_of_another_product_is_left_alone() {
    for theirs in [
        "CREATE TABLE realtime.subscription (id int)",
        "CREATE FUNCTION realtime.cast() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE realtime.action AS ENUM ('INSERT')",
        // sqlx migrated it, with other migrations.
        "CREATE TABLE realtime._sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
             installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL,
             execution_time bigint NOT NULL);
         INSERT INTO realtime._sqlx_migrations VALUES (1, 'theirs', now(), true, 'abc', 1)",
    ] {
        let database = Database::hushnet().await;
        let url = database.owner();
        let mut connection = database.connect().await;
        execute(&mut connection, "CREATE SCHEMA realtime").await;
        execute(&mut connection, "GRANT USAGE ON SCHEMA realtime TO PUBLIC").await;
        for statement in theirs.split(';') {
            execute(&mut connection, statement).await;
        }
        let before = schema(&mut connection).await;
        let refused = migrate::up(&url).await.unwrap_err();
        assert!(matches!(refused, migrate::Error::ForeignSchema), "{refused}");
        assert_eq!(schema(&mut connection).await, before, "{theirs}");
        // Whether it is refused or has nothing to do.
        let _ = migrate::down(&url).await;
        assert_eq!(schema(&mut connection).await, before, "{theirs}");
    }
}

#[tokio::test]
async fn a_database_of_another_encoding_than_utf8_is_refused_by_name() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let options = format!("TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
        let database = Database::made(&options).await;
        let url = database.owner();
        for refused in [
            migrate::up(&url).await.map(drop),
            migrate::plan(&url).await.map(drop),
        ] {
            let refused = refused.unwrap_err();
            let is_named = matches!(&refused, migrate::Error::Encoding(name) if name == encoding);
            assert!(is_named, "{refused}");
        }
        let mut connection = database.connect().await;
        let left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'realtime'";
        let left: i64 = sqlx::query_scalar(left)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(left, 0);
    }
}

/// A role that may create nothing in the database itself gets its schema from an administrator.
#[tokio::test]
async fn an_empty_schema_is_used_and_stays() {
    for rights in ["GRANT USAGE ON SCHEMA realtime TO PUBLIC", "SELECT"] {
        let database = Database::hushnet().await;
        let url = database.owner();
        let mut connection = database.connect().await;
        execute(&mut connection, "CREATE SCHEMA realtime").await;
        execute(&mut connection, rights).await;
        let is_open = "SELECT has_schema_privilege('public', 'realtime', 'USAGE')";
        let open_before: bool = sqlx::query_scalar(is_open)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        for _ in 0..2 {
            migrate::up(&url).await.unwrap();
            migrate::up(&url).await.unwrap();
            assert!(
                migrate::status(&url)
                    .await
                    .unwrap()
                    .iter()
                    .all(|one| one.applied)
            );
            migrate::down(&url).await.unwrap();
            assert_eq!(schema(&mut connection).await[0].2, [""; 0]);
            let open: bool = sqlx::query_scalar(is_open)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(open, open_before, "{rights}");
        }
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_a_schema_is_given_one() {
    let database = Database::hushnet().await;
    let mut connection = database.admin().await;
    let role = format!("r{}", uuid::Uuid::new_v4().simple());
    for statement in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("CREATE SCHEMA realtime AUTHORIZATION {role}"),
    ] {
        execute(&mut connection, &statement).await;
    }
    for table in [
        "messages",
        "sessions",
        "devices",
        "users",
        "pending_sessions",
    ] {
        execute(
            &mut connection,
            &format!("ALTER TABLE {table} OWNER TO {role}"),
        )
        .await;
    }
    execute(
        &mut connection,
        &format!("GRANT CREATE ON SCHEMA public TO {role}"),
    )
    .await;
    let mut url: reqwest::Url = database.url.parse().unwrap();
    url.set_username(&role).unwrap();
    let url: DatabaseUrl = url.as_str().parse().unwrap();
    migrate::up(&url).await.unwrap();
    migrate::down(&url).await.unwrap();
    let left = schema(&mut connection).await;
    assert_eq!((&left[0].0, &left[0].2[..]), (&role, &[][..]));
}
