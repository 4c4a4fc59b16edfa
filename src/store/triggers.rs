//! Whether the triggers that write the log are in their places: looked up in the catalogue, and repaired.

use std::collections::BTreeSet;
use std::fmt;

use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool};

use super::error::is_undefined;
use super::sources::Stage;
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

/// The publications that no trigger can help against, in any database.
macro_rules! publications {
    () => {
        "SELECT pubname::text AS relation, 'publication_for_all_tables' AS fault FROM pg_publication WHERE puballtables"
    };
}

/// The OID of a table that is named with its schema, and that of a function of schema `realtime`. Looked up in the
/// catalogue: the role may have no USAGE on either schema.
macro_rules! oid_of {
    (table $name:literal) => {
        concat!(
            "(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = (parse_ident(",
            $name,
            "))[1] AND c.relname = (parse_ident(",
            $name,
            "))[2])"
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

/// The sources in force, what is truncated, and the deletion of users whose devices are events; each with what fires it, as
/// the bits of `pg_trigger.tgtype`: 4 for INSERT, 8 for DELETE, 16 for UPDATE, 32 for TRUNCATE.
macro_rules! own {
    () => {
        "SELECT relation, true, function,
                CASE WHEN function IN ('on_session', 'on_pending_session') THEN 'public.devices' END,
                (SELECT bit_or(CASE operation WHEN 'insert' THEN 4 WHEN 'delete' THEN 8 ELSE 16 END)
                 FROM unnest(operations) AS operation)
         FROM realtime.sources WHERE retired_at IS NULL
         UNION ALL
         SELECT DISTINCT relation, true, 'on_truncate', NULL, 32 FROM realtime.sources WHERE retired_at IS NULL
         UNION ALL
         SELECT 'public.users', false, function, NULL, fired
         FROM (VALUES ('on_user_deleted', 8), ('on_truncate', 32)) AS each (function, fired)
         WHERE EXISTS (SELECT FROM realtime.sources WHERE function = 'on_device' AND retired_at IS NULL)
           AND EXISTS (SELECT FROM pg_attribute WHERE attname = 'id' AND atttypid = 'uuid'::regtype AND attrelid = (
               SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'public' AND c.relname = 'users'))"
    };
}

/// The same in the schema before sources. Before migration 3 it has no triggers of TRUNCATE.
macro_rules! own_before {
    () => {
        "VALUES ('public.messages', true, 'on_messages', NULL, 4),
                ('public.sessions', true, 'on_session', 'public.devices', 4),
                ('public.devices', true, 'on_device', NULL, 28),
                ('public.users', false, 'on_user_deleted', NULL, 8),
                ('public.messages', true, 'on_truncate', NULL, 32),
                ('public.sessions', true, 'on_truncate', NULL, 32),
                ('public.devices', true, 'on_truncate', NULL, 32),
                ('public.users', false, 'on_truncate', NULL, 32)"
    };
}

/// Everything that is wrong, by the OIDs of tables and functions: names can be given to others. Nothing in a database
/// without the log. A trigger is enabled in one of these states of `pg_trigger.tgenabled`.
macro_rules! faults {
    ($own:ident, enabled $states:literal) => {
        concat!(
            "
    WITH own AS MATERIALIZED (
        SELECT relation, required, function, table_oid, function_oid, reads, fired
        FROM (",
            $own!(),
            ") AS own (relation, required, function, reads, fired), LATERAL (
            SELECT ",
            oid_of!(table "relation"),
            " AS table_oid, ",
            oid_of!(function "function"),
            " AS function_oid
        ) AS found
        WHERE function <> 'on_truncate' OR function_oid IS NOT NULL
    ), placed AS (
        -- A trigger of statements does not see what is written by another table's name.
        SELECT relation, required, function, table_oid, fired, t.tgtype::integer AS fires,
               strpos('",
            $states,
            "', t.tgenabled::text) > 0 AS enabled, t.tgenabled IN ('O', 'A') AS counts
        FROM own LEFT JOIN pg_trigger t ON t.tgrelid = table_oid AND t.tgfoid = function_oid
            AND NOT (function ^@ 'source_' AND t.tgtype & 1 = 0 AND EXISTS (
                SELECT FROM pg_inherits WHERE table_oid IN (inhrelid, inhparent)))
    ), counted AS (
        SELECT relation, required, table_oid, fired,
               coalesce(bit_or(fires), 0) & fired AS present,
               coalesce(bit_or(fires) FILTER (WHERE enabled), 0) & fired AS enabled,
               greatest(count(*) FILTER (WHERE counts AND fires & 4 > 0), count(*) FILTER (WHERE counts AND fires & 8 > 0),
                        count(*) FILTER (WHERE counts AND fires & 16 > 0), count(*) FILTER (WHERE counts AND fires & 32 > 0)
               ) AS times
        FROM placed GROUP BY relation, required, function, table_oid, fired
    ), faults AS (
        SELECT relation, CASE
                   WHEN table_oid IS NULL AND required THEN 'table_missing'
                   WHEN table_oid IS NULL THEN NULL
                   WHEN present <> fired THEN 'missing'
                   WHEN enabled <> fired THEN 'disabled'
                   WHEN times > 1 THEN 'twice'
               END AS fault
        FROM counted
        UNION ALL
        SELECT format('%I.%I', n.nspname, c.relname), 'disabled' FROM own
        JOIN pg_trigger t ON t.tgfoid = function_oid AND t.tgparentid <> 0 AND t.tgenabled IN ('D', 'R')
        JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        UNION ALL
        SELECT relation, 'application_trigger' FROM own
        WHERE function IN ('on_messages', 'on_session', 'on_device', 'on_pending_session') AND EXISTS (
            SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
            JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE t.tgrelid = table_oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND n.nspname <> 'realtime'
              AND (t.tgname IN ('messages_notify_trigger', 'sessions_notify_trigger', 'devices_notify_trigger',
                                'pending_sessions_notify_trigger')
                   OR p.proname IN ('notify_new_message', 'notify_new_session', 'notify_device_update',
                                    'notify_new_pending_session')))
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
        SELECT relation, 'rights' FROM own
        JOIN pg_proc p ON p.oid = function_oid
        LEFT JOIN pg_proc w ON w.pronamespace = p.pronamespace AND w.proname = 'write_' || substr(function, 8)
        WHERE function ^@ 'source_' AND p.prosrc LIKE '%realtime.write\\_%' AND NOT (
            has_schema_privilege(p.proowner, p.pronamespace, 'USAGE')
            AND coalesce(has_function_privilege(p.proowner, w.oid, 'EXECUTE'), false))
        UNION ALL
        SELECT relation, 'subscription' FROM placed
        WHERE table_oid IN (SELECT srrelid FROM pg_subscription_rel) AND function <> 'on_truncate'
          AND (function !~ '^source_' OR fires & 1 = 0)
        UNION ALL
        ",
            publications!(),
            ")
    SELECT DISTINCT relation, fault FROM faults
    WHERE fault IS NOT NULL AND ",
            oid_of!(table "'realtime.state'"),
            " IS NOT NULL ORDER BY relation, fault"
        )
    };
}

/// In the state that it has otherwise, a trigger does not see what logical replication writes.
const FAULTS: &str = faults!(own, enabled "A");
/// Triggers had that state before migration 3.
const FAULTS_BEFORE: &str = faults!(own_before, enabled "OA");

/// Everything that is wrong; nothing in a database without the log.
pub(super) async fn faults(pool: &PgPool) -> Result<Vec<FaultyTrigger>, sqlx::Error> {
    match sqlx::query_as(FAULTS).fetch_all(pool).await {
        Err(error) if is_undefined(&error) => {
            read(sqlx::query_as(FAULTS_BEFORE).fetch_all(pool).await?)
        }
        found => read(found?),
    }
}

/// Why this database cannot be served by triggers, with or without the log.
pub(super) async fn not_served(
    connection: &mut PgConnection,
    stage: Stage,
) -> Result<Vec<FaultyTrigger>, sqlx::Error> {
    let query = format!("{} UNION ALL {}", stage.subscribed(), publications!());
    let found = sqlx::query_as(AssertSqlSafe(query));
    read(found.fetch_all(connection).await?)
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
            ENABLED => write!(f, "enable the trigger {name} of {relation}"),
            _ => write!(f, "create the trigger {name} on {relation}"),
        }
    }
}

/// The change of a trigger in [`DISABLED`].
const ENABLED: &str = "enabled";
/// The triggers of partitions that were disabled by themselves. Those of the partitioned tables have them.
const DISABLED: &str = "
    SELECT 'enabled' AS change, t.tgname::text AS name, format('%I.%I', at.nspname, c.relname) AS relation
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace at ON at.oid = c.relnamespace
    WHERE n.nspname = 'realtime' AND t.tgparentid <> 0 AND t.tgenabled IN ('D', 'R')";

/// What [`repair`] would change, after all migrations.
pub(super) async fn misplaced(
    connection: &mut PgConnection,
    stage: Stage,
) -> Result<Vec<Misplaced>, sqlx::Error> {
    let query = format!("{} UNION ALL {DISABLED}", stage.misplaced());
    let found = sqlx::query_as(AssertSqlSafe(query));
    found.fetch_all(connection).await
}

/// The tables of these changes, each once and in the order of names.
pub(super) fn tables(changes: &[Misplaced]) -> Vec<&str> {
    let tables: BTreeSet<_> = changes.iter().map(|one| one.relation.as_str()).collect();
    tables.into_iter().collect()
}

/// Puts every trigger in its place, and makes the functions of sources that were added. `changes` are what [`misplaced`]
/// has found. Returns the tables where a trigger was not in its place.
pub(super) async fn repair(
    connection: &mut PgConnection,
    changes: &[Misplaced],
) -> Result<Vec<String>, sqlx::Error> {
    let repaired: Vec<String> = sqlx::query_scalar("SELECT realtime.repair_triggers()")
        .fetch_one(&mut *connection)
        .await?;
    if !changes.iter().any(|one| one.change == ENABLED) {
        return Ok(repaired);
    }
    let mut repaired = BTreeSet::from_iter(repaired);
    let disabled: Vec<Misplaced> = sqlx::query_as(DISABLED).fetch_all(&mut *connection).await?;
    for Misplaced { name, relation, .. } in disabled {
        let name = name.replace('"', "\"\"");
        let enable = format!("ALTER TABLE {relation} ENABLE ALWAYS TRIGGER \"{name}\"");
        sqlx::raw_sql(AssertSqlSafe(enable))
            .execute(&mut *connection)
            .await?;
        repaired.insert(relation);
    }
    Ok(repaired.into_iter().collect())
}

/// The tables that the end of the log changes, in the order in which they are locked: writers have locks of the
/// application's tables first, then of the log.
pub(super) async fn used_tables(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let replaced = "SELECT to_regclass('realtime.replaced_triggers') IS NOT NULL";
    let has_replaced: bool = sqlx::query_scalar(replaced)
        .fetch_one(&mut *connection)
        .await?;
    let replaced = if has_replaced {
        "UNION SELECT table_name::oid FROM realtime.replaced_triggers"
    } else {
        ""
    };
    let used = format!(
        "SELECT format('%s.%I', c.relnamespace::regnamespace, c.relname) FROM pg_class c
         WHERE c.oid IN (SELECT t.tgrelid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                         JOIN pg_namespace n ON n.oid = p.pronamespace
                         WHERE n.nspname = 'realtime' AND t.tgparentid = 0 {replaced})
           AND c.relnamespace::regnamespace::text <> 'realtime' ORDER BY 1"
    );
    let mut tables: Vec<String> = sqlx::query_scalar(AssertSqlSafe(used))
        .fetch_all(connection)
        .await?;
    tables.extend(["realtime.events", "realtime.state"].map(str::to_owned));
    Ok(tables)
}
