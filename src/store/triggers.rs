//! Whether the triggers that write the log are in their places: looked up in the catalogue, and repaired.

use std::fmt;

use sqlx::{FromRow, PgConnection, PgPool};

use crate::protocol::{Label, TriggerFault};

/// What is wrong with the trigger of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyTrigger {
    /// The table, with its schema; the publication's name for a publication of all tables.
    pub relation: String,
    /// What is wrong.
    pub fault: TriggerFault,
}

impl fmt::Display for FaultyTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.relation, self.fault.as_str())
    }
}

/// What no trigger can help against, in any database: the names of tables and publications, and the fault.
macro_rules! not_served {
    () => {
        "SELECT 'public.' || relname, 'subscription' AS fault
         FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         WHERE n.nspname = 'public' AND relname IN ('messages', 'sessions', 'devices', 'users')
           AND EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = pg_class.oid)
         UNION ALL
         SELECT pubname::text, 'publication_for_all_tables' FROM pg_publication WHERE puballtables"
    };
}

/// The OID of a table that is named with its schema, and that of a function of schema `realtime`. Looked up in the
/// catalogue: the role may have no USAGE on either schema.
macro_rules! oid_of {
    (table $name:literal) => {
        concat!(
            "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = split_part(",
            $name,
            ", '.', 1) AND c.relname = split_part(",
            $name,
            ", '.', 2))"
        )
    };
    (function $name:literal) => {
        concat!(
            "(SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = 'realtime' AND p.pronargs = 0 AND p.proname = ",
            $name,
            ")"
        )
    };
}

/// Everything that is wrong, by the OIDs of tables and functions: names can be given to others. Nothing in a database
/// without the log.
const FAULTS: &str = concat!(
    "
    WITH own AS MATERIALIZED (
        SELECT relation, required, table_oid, function_oid, reads
        FROM (VALUES
            ('public.messages', true, 'on_messages', NULL),
            ('public.sessions', true, 'on_session', 'public.devices'),
            ('public.devices', true, 'on_device', NULL),
            ('public.users', false, 'on_user_deleted', NULL),
            ('public.messages', true, 'on_truncate', NULL),
            ('public.sessions', true, 'on_truncate', NULL),
            ('public.devices', true, 'on_truncate', NULL),
            ('public.users', false, 'on_truncate', NULL)
        ) AS own (relation, required, function, reads), LATERAL (
            SELECT ",
    oid_of!(table "relation"),
    " AS table_oid, ",
    oid_of!(function "function"),
    " AS function_oid
        ) AS found
        -- The schema before migration 3 has no triggers of TRUNCATE.
        WHERE function <> 'on_truncate' OR function_oid IS NOT NULL
    ), placed AS (
        SELECT relation, required, table_oid, count(t.oid) AS triggers,
               count(t.oid) FILTER (WHERE t.tgenabled IN ('O', 'A')) AS enabled
        FROM own LEFT JOIN pg_trigger t ON t.tgrelid = table_oid AND t.tgfoid = function_oid
        GROUP BY relation, required, table_oid, function_oid
    ), faults AS (
        SELECT relation, CASE
                   WHEN table_oid IS NULL AND required THEN 'table_missing'
                   WHEN table_oid IS NULL THEN NULL
                   WHEN triggers = 0 THEN 'missing'
                   WHEN enabled = 0 THEN 'disabled'
                   WHEN enabled > 1 THEN 'twice'
               END AS fault
        FROM placed
        UNION ALL
        SELECT relation, 'application_trigger' FROM own
        WHERE EXISTS (
            SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
            JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE t.tgrelid = table_oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND n.nspname <> 'realtime'
              AND (t.tgname IN ('messages_notify_trigger', 'sessions_notify_trigger', 'devices_notify_trigger')
                   OR p.proname IN ('notify_new_message', 'notify_new_session', 'notify_device_update')))
        UNION ALL
        SELECT reads, 'row_security' FROM own
        JOIN pg_proc p ON p.oid = function_oid
        JOIN pg_roles owner ON owner.oid = p.proowner
        JOIN pg_class c ON c.oid = ",
    oid_of!(table "reads"),
    "
        WHERE c.relrowsecurity AND NOT owner.rolsuper AND NOT owner.rolbypassrls
          AND (c.relforcerowsecurity OR NOT pg_has_role(p.proowner, c.relowner, 'USAGE'))
        UNION ALL
        ",
    not_served!(),
    ")
    SELECT DISTINCT relation, fault FROM faults
    WHERE fault IS NOT NULL AND ",
    oid_of!(table "'realtime.state'"),
    " IS NOT NULL ORDER BY relation, fault"
);

/// Everything that is wrong; nothing in a database without the log.
pub(super) async fn faults(pool: &PgPool) -> Result<Vec<FaultyTrigger>, sqlx::Error> {
    read(sqlx::query_as(FAULTS).fetch_all(pool).await?)
}

/// Why this database cannot be served by triggers, with or without the log.
pub(super) async fn not_served(
    connection: &mut PgConnection,
) -> Result<Vec<FaultyTrigger>, sqlx::Error> {
    read(sqlx::query_as(not_served!()).fetch_all(connection).await?)
}

fn read(rows: Vec<(String, String)>) -> Result<Vec<FaultyTrigger>, sqlx::Error> {
    rows.into_iter()
        .map(|(relation, fault)| {
            let fault = fault
                .parse()
                .map_err(|error: strum::ParseError| sqlx::Error::Decode(error.into()))?;
            Ok(FaultyTrigger { relation, fault })
        })
        .collect()
}

/// What [`repair`] changes, or would change after all migrations: it is read by names, since there may be no log yet.
/// The same as `realtime.repair_triggers()` looks for.
const MISPLACED: &str = "
    WITH own AS MATERIALIZED (
        SELECT name, relation, required, to_regclass(relation)::oid AS table_oid,
               to_regprocedure(function)::oid AS function_oid
        FROM (VALUES
            ('realtime_messages', 'public.messages', true, 'realtime.on_messages()'),
            ('realtime_sessions', 'public.sessions', true, 'realtime.on_session()'),
            ('realtime_devices', 'public.devices', true, 'realtime.on_device()'),
            ('realtime_users', 'public.users', false, 'realtime.on_user_deleted()'),
            ('realtime_messages_truncate', 'public.messages', true, 'realtime.on_truncate()'),
            ('realtime_sessions_truncate', 'public.sessions', true, 'realtime.on_truncate()'),
            ('realtime_devices_truncate', 'public.devices', true, 'realtime.on_truncate()'),
            ('realtime_users_truncate', 'public.users', false, 'realtime.on_truncate()')
        ) AS own (name, relation, required, function)
    ), placed AS (
        SELECT t.oid FROM pg_trigger t JOIN own ON own.function_oid = t.tgfoid AND own.table_oid = t.tgrelid
        WHERE t.tgname = own.name AND t.tgenabled = 'A'
    )
    SELECT 'removed' AS change, t.tgname::text AS name,
           (SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM pg_class WHERE oid = t.tgrelid) AS relation
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgrelid IN (SELECT table_oid FROM own)
      AND n.nspname <> 'realtime'
      AND (t.tgname IN ('messages_notify_trigger', 'sessions_notify_trigger', 'devices_notify_trigger')
           OR p.proname IN ('notify_new_message', 'notify_new_session', 'notify_device_update'))
    UNION ALL
    SELECT 'dropped', t.tgname::text,
           (SELECT format('%I.%I', relnamespace::regnamespace, relname) FROM pg_class WHERE oid = t.tgrelid)
    FROM pg_trigger t
    WHERE t.tgparentid = 0 AND t.tgfoid IN (SELECT function_oid FROM own) AND t.oid NOT IN (SELECT oid FROM placed)
    UNION ALL
    SELECT 'created', name, relation FROM own
    WHERE (required OR table_oid IS NOT NULL) AND NOT EXISTS (
        SELECT FROM pg_trigger t JOIN placed USING (oid) WHERE t.tgrelid = table_oid AND t.tgfoid = function_oid)
    ORDER BY relation, change DESC, name";

/// A trigger that [`repair`] changes.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Misplaced {
    change: String,
    name: String,
    /// The trigger's table.
    pub(super) relation: String,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            change,
            name,
            relation,
        } = self;
        match change.as_str() {
            "removed" => write!(
                f,
                "remove the application's trigger {name} from {relation}; migrate down puts it back"
            ),
            "dropped" => write!(f, "drop the trigger {name} of {relation}"),
            _ => write!(f, "create the trigger {name} on {relation}"),
        }
    }
}

/// What [`repair`] would change, after all migrations.
pub(super) async fn misplaced(
    connection: &mut PgConnection,
) -> Result<Vec<Misplaced>, sqlx::Error> {
    sqlx::query_as(MISPLACED).fetch_all(connection).await
}

/// Puts every trigger in its place. Returns the tables where one was not.
pub(super) async fn repair(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT realtime.repair_triggers()")
        .fetch_one(connection)
        .await
}
