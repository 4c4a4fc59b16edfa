//! Sources: which changes of which tables are events, and of which kind. `realtime.sources` has a row for each.
//!
//! What `migrate` would change is looked up before the functions that know it are in the database. So their texts are
//! taken from the migration that makes them: there is no second copy.

use std::fmt;

use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool};

use super::error::{is_forbidden, is_undefined};
use crate::protocol::{Kinds, Layout, NotALayout, UserType};

/// The migration that makes `realtime.sources`, and its text.
const VERSION: i64 = 8;
const TEXT: &str = include_str!("../../sql/realtime/0008_sources.up.sql");

/// What a database knows of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no log.
    NoLog,
    /// The triggers of three kinds are there, and no row says so.
    Before,
    /// Each source has its row.
    Present,
}

impl Stage {
    /// That of a database which has these migrations.
    pub(super) fn of(applied: &[i64]) -> Self {
        if applied.is_empty() {
            Self::NoLog
        } else if applied.contains(&VERSION) {
            Self::Present
        } else {
            Self::Before
        }
    }

    /// The beginning of a statement: `own_triggers` are the triggers as all migrations would have them.
    fn with_own_triggers(self) -> String {
        let installed = match self {
            Self::Present => {
                return "WITH own_triggers AS (SELECT * FROM realtime.own_triggers())".to_owned();
            }
            Self::NoLog => "missing IS NULL",
            Self::Before => "missing IS NULL OR number <= 3",
        };
        let own = body("own").replace("realtime.expected_sources()", "expected");
        format!(
            "WITH expected AS (
                 SELECT number, relation, operations, function FROM {} WHERE {installed}
             ), own_triggers (name, relation, required, function, fires) AS ({own})",
            presets()
        )
    }

    /// What `realtime.repair_triggers()` would change after all migrations: each change, the trigger and its table.
    pub(super) fn misplaced(self) -> String {
        let with = self.with_own_triggers();
        let misplaced = body("misplaced").replace("realtime.own_triggers()", "own_triggers");
        format!(
            "{with} SELECT change, name, relation FROM ({misplaced}) AS misplaced (change, name, relation, trigger_oid)"
        )
    }

    /// The tables that a subscription of logical replication writes, of those which have triggers then that it does not
    /// fire.
    pub(super) fn subscribed(self) -> String {
        let with = self.with_own_triggers();
        format!(
            "{with} SELECT DISTINCT relation, 'subscription' FROM own_triggers
             WHERE to_regclass(relation)::oid IN (SELECT srrelid FROM pg_subscription_rel) AND name !~ 'truncate$'
               AND NOT (name ~ '^realtime_source_' AND fires ~ 'FOR EACH ROW$')"
        )
    }
}

/// The function's text, which stands in the migration between two marks of this name.
fn body(mark: &str) -> &'static str {
    TEXT.split(&format!("${mark}$")).nth(1).unwrap_or_default()
}

/// The preset's sources, as a table.
fn presets() -> String {
    format!(
        "({}) AS preset (number, kind, relation, operations, audience, channel, function, missing)",
        body("presets")
    )
}

/// Whether the application's `devices` are those of the preset.
pub(super) async fn has_devices(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let query = format!(
        "SELECT missing IS NULL FROM {} WHERE function = 'on_device'",
        presets()
    );
    sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(connection)
        .await
}

/// What has become of a source.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Source {
    /// The kind of its events.
    pub kind: String,
    /// Its table, with the schema.
    pub relation: String,
    /// Why it makes no events; `None` if it does.
    pub missing: Option<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            relation,
            missing,
        } = self;
        match missing {
            None => write!(f, "{kind}: events of {relation}"),
            Some(missing) => write!(f, "{kind}: no events, {missing}"),
        }
    }
}

/// The preset's sources and those in force, after all migrations.
const ALL: &str = "
    SELECT preset.kind, preset.relation, coalesce(preset.missing, CASE
               WHEN s.number IS NULL THEN 'another source has this kind' END) AS missing
    FROM realtime.presets() AS preset LEFT JOIN realtime.sources s ON s.number = preset.number AND s.retired_at IS NULL
    UNION ALL
    (SELECT kind, coalesce(found, relation),
            CASE WHEN found IS NULL THEN format('there is no table %s', relation) END
     FROM realtime.sources, LATERAL (
         -- A table that was renamed since has its triggers still.
         SELECT CASE WHEN to_regclass(relation) IS NOT NULL THEN relation ELSE (
             SELECT format('%s.%I', relnamespace::regnamespace, relname)
             FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
             WHERE tgfoid = to_regprocedure(format('realtime.%I()', function)) AND tgparentid = 0 LIMIT 1
         ) END AS found) AS now
     WHERE NOT preset AND retired_at IS NULL ORDER BY number)";

/// Reads [`ALL`].
pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<Source>, sqlx::Error> {
    sqlx::query_as(ALL).fetch_all(connection).await
}

/// A source that the log may have events of, retired ones included.
#[derive(Debug, FromRow)]
struct Registered {
    /// `None` in the schema before sources.
    number: Option<i16>,
    kind: String,
    /// `None` in the schema before migration 9.
    layout: Option<Vec<String>>,
    truncated_layout: Option<Vec<String>>,
    /// `None` also where these operations have no layout of their own.
    update_layout: Option<Vec<String>>,
    delete_layout: Option<Vec<String>>,
}

/// The type of the users' ids. Null in the schema before migration 9, where `user_type` is no column of `realtime.state`
/// and means that of `absent`, and before the first source.
const USER_TYPE: &str = "
    SELECT found.user_type
    FROM (SELECT NULL::text AS user_type) AS absent,
         LATERAL (SELECT user_type FROM realtime.state) AS found";

impl Registered {
    fn layout(&self) -> Option<Result<Layout, NotALayout>> {
        let (whole, truncated) = (self.layout.as_ref()?, self.truncated_layout.as_ref()?);
        let parse = || {
            let truncated = Layout::parse(truncated)?;
            let layout =
                |pieces: &[_]| Ok(Layout::parse(pieces)?.with_truncated(truncated.clone()));
            let updated = self.update_layout.as_deref().map(layout).transpose()?;
            let deleted = self.delete_layout.as_deref().map(layout).transpose()?;
            Ok(layout(whole)?.with_operations(updated, deleted))
        };
        Some(parse())
    }
}

/// In the schema before a migration its layouts are no columns of `realtime.sources` and mean those of `absent`.
const REGISTERED: &str = "
    SELECT registered.*
    FROM (SELECT NULL::text[] AS layout, NULL::text[] AS truncated_layout, NULL::text[] AS update_layout,
                 NULL::text[] AS delete_layout) AS absent,
         LATERAL (SELECT number, kind, layout, truncated_layout, update_layout, delete_layout
                  FROM realtime.sources) AS registered
    ORDER BY kind, number";

/// The kinds of the schema before sources, where there is a log. Looked up in the catalogue, which needs no right.
const REGISTERED_BEFORE: &str = "
    SELECT NULL::smallint AS number, kind, NULL::text[] AS layout, NULL::text[] AS truncated_layout,
           NULL::text[] AS update_layout, NULL::text[] AS delete_layout
    FROM unnest(ARRAY['device', 'message', 'session']) AS kind
    WHERE EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = 'realtime' AND c.relname = 'events')";

/// Whether the log has events without JSON, which nobody can read without the layouts.
const NEEDS_LAYOUTS: &str = "
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'realtime' AND c.relname = 'log')";

/// None without a log.
async fn registered(pool: &PgPool) -> Result<Vec<Registered>, sqlx::Error> {
    let forbidden = match sqlx::query_as(REGISTERED).fetch_all(pool).await {
        Err(error) if is_forbidden(&error) => Some(error),
        Err(error) if is_undefined(&error) => None,
        registered => return registered,
    };
    if let Some(error) = forbidden
        && sqlx::query_scalar(NEEDS_LAYOUTS).fetch_one(pool).await?
    {
        return Err(error);
    }
    sqlx::query_as(REGISTERED_BEFORE).fetch_all(pool).await
}

/// The kinds that the log's events may have, those of retired sources included; none without a log.
pub(super) async fn kinds(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let registered = registered(pool).await?.into_iter();
    let mut kinds: Vec<_> = registered.map(|source| source.kind).collect();
    kinds.dedup();
    Ok(kinds)
}

/// Reads the type of the users' ids. Without a log they are uuids.
async fn user_type(pool: &PgPool) -> Result<UserType, sqlx::Error> {
    let name: Option<String> = match sqlx::query_scalar(USER_TYPE).fetch_optional(pool).await {
        Err(error) if is_undefined(&error) => None,
        Err(error) if is_forbidden(&error) => {
            if sqlx::query_scalar(NEEDS_LAYOUTS).fetch_one(pool).await? {
                return Err(error);
            }
            None
        }
        found => found?.flatten(),
    };
    match name {
        Some(name) => name.parse().map_err(|()| {
            let error = format!("realtime.state has users of the type {name:?}, which is unknown");
            sqlx::Error::Protocol(error)
        }),
        None => Ok(UserType::default()),
    }
}

/// Reads the kinds of the log's events, the layouts of its sources and the type of its users. From then on these are
/// known. Returns whether clients may have come as users of another type.
pub(super) async fn read_kinds(pool: &PgPool, kinds: &Kinds) -> Result<bool, sqlx::Error> {
    // After the sources: a source that was read has fixed the type before.
    let registered = registered(pool).await?;
    let user_type = user_type(pool).await?;
    let mut names: Vec<_> = registered
        .iter()
        .map(|source| source.kind.as_str())
        .collect();
    names.dedup();
    let left_out = kinds.set_logged(names);
    if left_out > 0 {
        tracing::warn!(
            event = "kinds_unnamed",
            kinds = left_out,
            advice = "this server has met as many kinds of events as it can name; those of other kinds are delivered \
                      and counted as kind other; a restart forgets the names that are no longer used"
        );
    }
    let sources = registered.iter().filter_map(|source| {
        let layout = source.layout()?;
        Some((source.number?, source.kind.as_str(), layout))
    });
    for (source, error) in kinds.set_sources(sources) {
        tracing::error!(
            event = "layout_unreadable",
            source,
            %error,
            advice = "this server skips the events of this source: it may be older than the schema, so run the newest \
                      release; realtime.sources has the layout"
        );
    }
    let has_changed = kinds.set_user_type(user_type);
    if has_changed {
        tracing::info!(event = "user_type", user_type = user_type.name());
    }
    Ok(has_changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migration_s_functions_are_found_and_call_none_that_may_not_be_there() {
        for mark in ["presets", "own", "misplaced"] {
            assert_eq!(TEXT.matches(&format!("${mark}$")).count(), 2, "{mark}");
        }
        for stage in [Stage::NoLog, Stage::Before] {
            for statement in [stage.misplaced(), stage.subscribed()] {
                assert!(statement.contains("FROM pg_trigger") || statement.contains("srrelid"));
                let calls = statement.replace("'realtime.%I()'", "");
                for function in ["realtime.own", "realtime.expected", "realtime.sources"] {
                    assert!(!calls.contains(function), "{function}: {calls}");
                }
            }
        }
    }
}
