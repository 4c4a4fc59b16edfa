//! Sources of one's own: a table's changes are made events, and are no longer. The database checks each and makes the
//! triggers (`sql/realtime/`); this says what it is asked, and takes the table's lock in short attempts.

use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};

use super::error::{is_forbidden, is_undefined};
use super::locks::{self, Locks, Patience};
use super::migrate;
use super::sources::Stage;
use super::triggers::{self, Misplaced};
use crate::config::DatabaseUrl;

/// Which changes of which table are to be events, and whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The table, as SQL has its name; without a schema it is looked up in the role's search path.
    pub table: String,
    /// The events' `type`; without it the table's name.
    pub kind: Option<String>,
    /// Columns of users' ids: each user whom one of them names.
    pub user_columns: Vec<String>,
    /// A query of users' ids that may use NEW: those users besides.
    pub users: Option<String>,
    /// `insert`, `update`, `delete`; none is all three.
    pub operations: Vec<String>,
    /// The columns that the event shows besides the key.
    pub fields: Vec<String>,
    /// Whether an update shows only those of the fields that have changed, and is no event where none has.
    pub changed: bool,
    /// An expression over NEW; rows for which it is not true concern nobody.
    pub condition: Option<String>,
    /// The columns that the event shows as its key; none are those of the primary key.
    pub keys: Vec<String>,
    /// Whether logical replication writes the table.
    pub replica: bool,
    /// The most users whom one row may concern, where a query names them; without it 10,000.
    pub users_max: Option<u32>,
}

impl Attachment {
    /// The audience as `realtime.sources` has it: a column or a query.
    fn audience(&self) -> String {
        match (self.user_columns.as_slice(), &self.users) {
            ([column], None) => column.clone(),
            ([], Some(query)) => query.clone(),
            (columns, query) => {
                let columns = columns
                    .iter()
                    .map(|column| format!("SELECT NEW.\"{}\"", column.replace('"', "\"\"")));
                // What the query ends with may be a comment.
                let query = query.iter().map(|query| format!("({query}\n)"));
                columns.chain(query).collect::<Vec<_>>().join(" UNION ALL ")
            }
        }
    }
}

/// What [`attach`] does, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The events' `type`.
    pub kind: String,
    /// The table with its schema, each quoted where it has to be.
    pub relation: String,
    /// The statements that do the same.
    pub statement: String,
    /// The triggers, and the function that they execute.
    pub definition: Vec<String>,
    /// PostgreSQL's plan for the query that names the users, a line each; none where a column does.
    pub plan: Vec<String>,
}

/// How a database stands to an [`Attachment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No source of its kind is in force.
    Missing,
    /// A source of its kind is in force that says something else.
    Different,
    /// It is in force.
    InForce,
}

/// Why a source was not attached or detached. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Neither a column nor a query says whose the events are.
    #[error("no users: name a column of users' ids, or a query that returns them")]
    NoUsers,
    /// The database has no log.
    #[error("this database has no sources: run `hushnet-realtime migrate up` first")]
    NoSources,
    /// No source of this kind is in force.
    #[error("no source of the kind {0} is in force; `hushnet-realtime sources` lists them")]
    NoSuchKind(String),
    /// What the source says of its table does not hold, or the role may not add one.
    #[error("{message}{}{}", if .hint.is_empty() { "" } else { ". " }, .hint)]
    Refused {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The database could not be asked, or others have the table.
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
}

impl From<sqlx::Error> for AttachError {
    fn from(error: sqlx::Error) -> Self {
        if is_undefined(&error) {
            return Self::NoSources;
        }
        match error.as_database_error() {
            Some(refused) if is_forbidden(&error) => Self::Refused {
                message: refused.message().to_owned(),
                hint: "Connect as the owner of the schema realtime and of the table, or as a member of both"
                    .to_owned(),
            },
            Some(refused) => Self::Refused {
                message: refused.message().to_owned(),
                hint: refused
                    .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                    .and_then(sqlx::postgres::PgDatabaseError::hint)
                    .unwrap_or_default()
                    .to_owned(),
            },
            None => Self::Migrate(error.into()),
        }
    }
}

impl From<locks::LockError> for AttachError {
    fn from(error: locks::LockError) -> Self {
        Self::Migrate(error.into())
    }
}

/// A row of `realtime.sources` as the attachment has it. The role's search path finds the table.
macro_rules! wanted {
    () => {
        "SELECT coalesce($1, found.name, $2) AS kind, coalesce(found.relation, $2) AS relation, $3 AS audience,
                CASE WHEN $4 = '{}' THEN '{insert,update,delete}' ELSE $4 END AS operations, $5 AS fields, $6 AS condition,
                $7 AS keys, $8 AS changed, $9 AS for_rows, coalesce($10, 10000)::integer AS users_max
         FROM (VALUES (1)) AS one LEFT JOIN LATERAL (
             SELECT relname::text AS name, format('%s.%I', relnamespace::regnamespace, relname) AS relation
             FROM pg_class WHERE oid = to_regclass($2)) AS found ON true"
    };
}

const ADD: &str = concat!(
    "INSERT INTO realtime.sources
         (kind, relation, audience, operations, fields, condition, keys, changed, for_rows, users_max) ",
    wanted!(),
    " RETURNING number, kind, relation, format(
          'SELECT realtime.add_source(%L, %L, %L, operations => %L, fields => %L%s);', kind, relation, audience, operations,
          fields, concat(', condition => ' || quote_literal(condition),
                         CASE WHEN $7 <> '{}' THEN format(', keys => %L', keys) END,
                         CASE WHEN changed THEN ', changed => true' END, CASE WHEN for_rows THEN ', for_rows => true' END,
                         CASE WHEN users_max <> 10000 THEN ', users_max => ' || users_max END)) AS statement"
);

/// Whether the source in force of the kind says the same; no row without one.
const COMPARE: &str = concat!(
    "SELECT (s.relation, s.audience, s.fields, s.condition, s.changed, s.for_rows, s.users_max)
            IS NOT DISTINCT FROM (w.relation, w.audience, w.fields, w.condition, w.changed, w.for_rows, w.users_max)
            AND s.operations @> w.operations AND s.operations <@ w.operations
            AND s.keys = CASE WHEN w.keys = '{}' THEN realtime.key_columns(w.relation)::text[] ELSE w.keys END
     FROM (",
    wanted!(),
    ") AS w JOIN realtime.sources AS s ON s.kind = w.kind AND s.retired_at IS NULL"
);

/// What there is of the kind is retired, if it is of this table or of one that is there no longer. Its triggers are dropped
/// when the triggers are repaired. Returns the tables that have them.
const RETIRE: &str = "
    WITH found AS MATERIALIZED (
        SELECT relname::text AS name, format('%s.%I', relnamespace::regnamespace, relname) AS relation
        FROM pg_class WHERE oid = to_regclass($2)
    ), retired AS (
        UPDATE realtime.sources SET retired_at = clock_timestamp()
        WHERE kind = coalesce($1, (SELECT name FROM found), $2) AND retired_at IS NULL AND NOT preset
          AND (relation = (SELECT relation FROM found) OR to_regclass(relation) IS NULL)
        RETURNING function
    )
    SELECT DISTINCT format('%s.%I', c.relnamespace::regnamespace, c.relname)
    FROM retired JOIN pg_trigger AS t ON t.tgfoid = to_regprocedure(format('realtime.%I()', function))
        JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE t.tgparentid = 0";

/// The tables that have the triggers of the kind in force; no row where none is.
const TABLES: &str = "
    SELECT relation, ARRAY(
        SELECT DISTINCT format('%s.%I', c.relnamespace::regnamespace, c.relname)
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE t.tgfoid = to_regprocedure(format('realtime.%I()', function)) AND t.tgparentid = 0)
    FROM realtime.sources WHERE kind = $1 AND retired_at IS NULL";

#[derive(FromRow)]
struct Added {
    number: i16,
    kind: String,
    relation: String,
    statement: String,
}

/// Binds what [`wanted`] takes.
macro_rules! bind {
    ($query:expr, $attachment:expr) => {
        $query
            .bind(&$attachment.kind)
            .bind(&$attachment.table)
            .bind($attachment.audience())
            .bind(&$attachment.operations)
            .bind(&$attachment.fields)
            .bind(&$attachment.condition)
            .bind(&$attachment.keys)
            .bind($attachment.changed)
            .bind($attachment.replica)
            .bind($attachment.users_max.map(i64::from))
    };
}

async fn add(connection: &mut PgConnection, attachment: &Attachment) -> Result<Added, sqlx::Error> {
    bind!(sqlx::query_as(ADD), attachment)
        .fetch_one(connection)
        .await
}

/// Returns the tables of what was in force.
async fn retire(
    connection: &mut PgConnection,
    attachment: &Attachment,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(RETIRE)
        .bind(&attachment.kind)
        .bind(&attachment.table)
        .fetch_all(connection)
        .await
}

/// The triggers of a source, and the text of their function.
const DEFINITION: &str = "
    SELECT format('CREATE TRIGGER %I %s EXECUTE FUNCTION realtime.%I();', own.name, own.fires, s.function)
    FROM realtime.sources AS s JOIN realtime.own_triggers() AS own
        ON own.name ~ format('^realtime_source_%s(_|$)', s.number)
    WHERE s.number = $1
    UNION ALL
    SELECT format('-- realtime.%I():%s', function, realtime.source_text(s)) FROM realtime.sources AS s WHERE number = $1";

/// PostgreSQL's plan for the users of a row, as the trigger's function asks for them. Nothing is executed.
const PLAN: &str = "
    SELECT format(E'EXPLAIN SELECT audience.* FROM (SELECT %s FROM %s LIMIT 1) AS new, LATERAL (%s\\n) AS audience',
                  realtime.seen_columns(relation), relation, audience)
    FROM realtime.sources AS s WHERE number = $1 AND NOT realtime.has_audience_column(s)";

async fn plan(connection: &mut PgConnection, number: i16) -> Result<Vec<String>, sqlx::Error> {
    let explain: Option<String> = sqlx::query_scalar(PLAN)
        .bind(number)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(explain) = explain else {
        return Ok(Vec::new());
    };
    sqlx::raw_sql("SET LOCAL search_path = pg_catalog, pg_temp")
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_all(connection)
        .await
}

/// What [`attach`] would do. The database checks the attachment as it would then; it locks no table and changes nothing.
///
/// # Errors
/// [`AttachError`].
pub async fn preview(
    url: &DatabaseUrl,
    attachment: &Attachment,
    instead: Instead,
) -> Result<Attached, AttachError> {
    if attachment.user_columns.is_empty() && attachment.users.is_none() {
        return Err(AttachError::NoUsers);
    }
    let mut connection = migrate::connect(url).await?;
    let mut transaction = connection.begin().await?;
    if instead == Instead::OfOther {
        retire(&mut transaction, attachment).await?;
    }
    let added = add(&mut transaction, attachment).await?;
    let definition = sqlx::query_scalar(DEFINITION).bind(added.number);
    let definition = definition.fetch_all(&mut *transaction).await?;
    let plan = plan(&mut transaction, added.number).await?;
    transaction.rollback().await?;
    connection.close().await?;
    let statement = match instead {
        Instead::OfNone => added.statement,
        // A kind has no letter that SQL quotes.
        Instead::OfOther => format!(
            "SELECT realtime.remove_source('{}');\n{}",
            added.kind, added.statement
        ),
    };
    Ok(Attached {
        kind: added.kind,
        relation: added.relation,
        statement,
        definition,
        plan,
    })
}

/// Makes changes of the table events from now on, in one transaction that holds the table's lock for some milliseconds.
///
/// # Errors
/// [`AttachError`].
pub async fn attach(
    url: &DatabaseUrl,
    attachment: &Attachment,
    instead: Instead,
    patience: &Patience,
) -> Result<Attached, AttachError> {
    let attached = preview(url, attachment, instead).await?;
    let mut connection = migrate::connect(url).await?;
    let mut transaction = connection.begin().await?;
    let mut tables = vec![attached.relation.clone()];
    if instead == Instead::OfOther {
        tables.extend(retire(&mut transaction, attachment).await?);
    }
    let misplaced = lock(&mut transaction, tables, patience).await?;
    add(&mut transaction, attachment).await?;
    triggers::repair(&mut transaction, &misplaced).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(attached)
}

/// Whether a source that says the same is in force.
///
/// # Errors
/// [`AttachError`].
pub async fn standing(url: &DatabaseUrl, attachment: &Attachment) -> Result<Standing, AttachError> {
    let mut connection = migrate::connect(url).await?;
    let is_same: Option<bool> = bind!(sqlx::query_scalar(COMPARE), attachment)
        .fetch_optional(&mut connection)
        .await?;
    connection.close().await?;
    Ok(match is_same {
        None => Standing::Missing,
        Some(false) => Standing::Different,
        Some(true) => Standing::InForce,
    })
}

/// Ends the events of the kind; returns the table. Those that the log has stay in it.
///
/// # Errors
/// [`AttachError`].
pub async fn detach(
    url: &DatabaseUrl,
    kind: &str,
    patience: &Patience,
) -> Result<String, AttachError> {
    let mut connection = migrate::connect(url).await?;
    let mut transaction = connection.begin().await?;
    let found: Option<(String, Vec<String>)> = sqlx::query_as(TABLES)
        .bind(kind)
        .fetch_optional(&mut *transaction)
        .await?;
    let (relation, tables) = found.ok_or_else(|| AttachError::NoSuchKind(kind.to_owned()))?;
    lock(&mut transaction, tables, patience).await?;
    sqlx::query("SELECT realtime.remove_source($1)")
        .bind(kind)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(relation)
}

/// Locks these tables, and those whose triggers the repair behind it puts in their places: a table that is locked later waits
/// for a writer who may wait for one that is locked already. Returns what the repair changes.
async fn lock(
    transaction: &mut PgConnection,
    mut tables: Vec<String>,
    patience: &Patience,
) -> Result<Vec<Misplaced>, AttachError> {
    let misplaced = triggers::misplaced(transaction, Stage::Present).await?;
    tables.extend(misplaced.iter().map(|one| one.relation.clone()));
    tables.sort_unstable();
    tables.dedup();
    let locks = Locks {
        tables: &tables.iter().map(String::as_str).collect::<Vec<_>>(),
        mode: "ACCESS EXCLUSIVE",
    };
    locks::take(transaction, locks, patience).await?;
    Ok(misplaced)
}

/// What becomes of a source in force of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// It stays, and the attachment is refused.
    OfNone,
    /// It ends in the transaction in which the new one begins, if it is of the same table, or of one that is gone.
    OfOther,
}

/// A source in force.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct SourceInForce {
    /// The events' `type`.
    pub kind: String,
    /// The table with its schema.
    pub relation: String,
    /// Whose the events are: a column or a query.
    pub audience: String,
    /// Of `insert`, `update` and `delete`.
    pub operations: Vec<String>,
    /// The columns that the event shows besides the key; HushNet's kinds have a form of their own.
    pub fields: Vec<String>,
    /// The rows that concern somebody; `None` is all.
    pub condition: Option<String>,
    /// Whether an update shows only what has changed of the fields.
    pub changed: bool,
    /// The columns that the event shows as its key; HushNet's kinds have none.
    pub keys: Vec<String>,
    /// Why its changes are no events by now: the table or a column is gone. Only for tables of one's own.
    pub wrong: Option<String>,
    /// The events among the newest of the log.
    pub recent: i64,
    /// Their bytes in the log.
    pub recent_bytes: i64,
    /// The seconds since the oldest of these newest events, of whatever source.
    pub recent_seconds: f64,
}

/// The sources in force, with their events among the newest 10,000 of the log; HushNet's first.
const IN_FORCE: &str = "
    WITH newest AS MATERIALIZED (
        SELECT source, created_at, pg_column_size(log.*) AS bytes FROM realtime.log ORDER BY xid DESC LIMIT 10000
    ), span AS (
        SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS seconds FROM newest
    )
    SELECT kind, relation, audience, operations, fields, condition, changed, keys,
           CASE WHEN NOT preset THEN realtime.wrong_table(sources) END AS wrong, recent.events AS recent, recent.bytes AS recent_bytes,
           span.seconds AS recent_seconds
    FROM realtime.sources, span, LATERAL (
        SELECT count(*) AS events, coalesce(sum(bytes), 0)::bigint AS bytes FROM newest WHERE source = number) AS recent
    WHERE retired_at IS NULL ORDER BY number";

/// The sources in force, HushNet's first.
///
/// # Errors
/// [`AttachError`].
pub async fn sources_in_force(url: &DatabaseUrl) -> Result<Vec<SourceInForce>, AttachError> {
    let mut connection = migrate::connect(url).await?;
    let sources = sqlx::query_as(IN_FORCE).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audience_is_a_column_or_the_union_of_all_that_is_named() {
        let audience = |columns: &[&str], users: Option<&str>| {
            let attachment = Attachment {
                user_columns: columns.iter().map(|&column| column.to_owned()).collect(),
                users: users.map(str::to_owned),
                ..Attachment::default()
            };
            attachment.audience()
        };
        assert_eq!(audience(&["buyer id"], None), "buyer id");
        assert_eq!(audience(&[], Some("SELECT 1")), "SELECT 1");
        assert_eq!(
            audience(&["buyer", "sel\"ler"], Some("SELECT 1 -- one")),
            "SELECT NEW.\"buyer\" UNION ALL SELECT NEW.\"sel\"\"ler\" UNION ALL (SELECT 1 -- one\n)"
        );
    }
}
