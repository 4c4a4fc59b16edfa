//! What `migrate up` would do, for people.

use std::fmt;

use sqlx::{FromRow, PgConnection};

use super::index::Part;
use super::locks::Locks;
use super::migrations::{self, OF_DEVICES, PLACES_TRIGGERS, TABLES_BEFORE};
use super::sources::{self, Stage};
use super::triggers::{self, Misplaced};

/// A step of `migrate up`. Its text is one line, and one more for each trigger.
#[derive(Debug)]
pub struct Step(What);

#[derive(Debug)]
enum What {
    Index(Part),
    /// All migrations, in one transaction with the triggers.
    Install(Vec<String>),
    Migration {
        name: String,
        locks: Option<Locks<'static>>,
        note: &'static str,
        parts: Vec<Part>,
        changes: Vec<Misplaced>,
    },
    Triggers {
        tables: Vec<Table>,
        changes: Vec<Misplaced>,
    },
}

/// A table that is locked.
#[derive(Debug, FromRow)]
struct Table {
    name: String,
    rows: i64,
    size: String,
}

/// The steps for a database that has these migrations.
pub(super) async fn steps(
    connection: &mut PgConnection,
    applied: &[i64],
) -> Result<Vec<Step>, sqlx::Error> {
    let parts = if sources::has_devices(connection).await? {
        OF_DEVICES.missing(connection).await?
    } else {
        Vec::new()
    };
    let mut steps: Vec<_> = parts.into_iter().map(What::Index).collect();
    let pending = migrations::pending(applied);
    let names = pending
        .iter()
        .map(|(version, description)| format!("{version:04} {description}"));
    let mut changes = triggers::misplaced(connection, Stage::of(applied)).await?;
    if applied.is_empty() {
        steps.push(What::Install(names.collect()));
    } else {
        for ((version, _), name) in pending.iter().zip(names) {
            let parts = match migrations::index_before(*version) {
                Some(index) => index.missing(connection).await?,
                None => Vec::new(),
            };
            steps.push(What::Migration {
                name,
                locks: migrations::locks_of(*version),
                note: migrations::note_of(*version),
                parts,
                changes: if *version == PLACES_TRIGGERS {
                    let is_before =
                        |change: &mut Misplaced| TABLES_BEFORE.contains(&&*change.relation);
                    changes.extract_if(.., is_before).collect()
                } else {
                    Vec::new()
                },
            });
        }
    }
    if !changes.is_empty() {
        let tables = sizes(connection, &triggers::tables(&changes)).await?;
        steps.push(What::Triggers { tables, changes });
    }
    Ok(steps.into_iter().map(Step).collect())
}

async fn sizes(connection: &mut PgConnection, tables: &[&str]) -> Result<Vec<Table>, sqlx::Error> {
    sqlx::query_as(
        "SELECT name, reltuples::bigint AS rows, pg_size_pretty(pg_table_size(c.oid)) AS size
         FROM unnest($1::text[]) WITH ORDINALITY AS own (name, number)
         JOIN pg_class c ON c.oid = to_regclass(name) ORDER BY number",
    )
    .bind(tables)
    .fetch_all(connection)
    .await
}

fn size(rows: i64, size: &str) -> String {
    if rows < 0 {
        return size.to_owned();
    }
    format!("about {rows} rows, {size}")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            What::Index(part) => index(f, part),
            What::Install(names) => write!(
                f,
                "apply {} in one transaction with what follows: makes the log; locks nothing of the application's",
                names.join(", ")
            ),
            What::Migration {
                name,
                locks,
                note,
                parts,
                changes,
            } => {
                for part in parts {
                    index(f, part)?;
                    writeln!(f)?;
                }
                write!(f, "apply {name}: ")?;
                match locks {
                    Some(locks) => {
                        let Locks { tables, mode } = locks;
                        write!(f, "lock {} IN {mode} MODE{note}", tables.join(", "))?;
                    }
                    None => f.write_str("locks nothing that others use")?,
                }
                list(f, changes)
            }
            What::Triggers { tables, changes } => {
                let tables: Vec<_> = tables
                    .iter()
                    .map(|table| format!("{} ({})", table.name, size(table.rows, &table.size)))
                    .collect();
                write!(f, "lock {} IN ACCESS EXCLUSIVE MODE:", tables.join(", "))?;
                changes
                    .iter()
                    .try_for_each(|change| write!(f, "\n  {change}"))
            }
        }
    }
}

fn index(f: &mut fmt::Formatter<'_>, part: &Part) -> fmt::Result {
    if let Some(former) = &part.former {
        writeln!(
            f,
            "drop the index {former} CONCURRENTLY: it was not completed"
        )?;
    }
    write!(
        f,
        "build an index of {} ({}) CONCURRENTLY: others read and write meanwhile",
        part.relation,
        size(part.rows, &part.size)
    )
}

fn list(f: &mut fmt::Formatter<'_>, changes: &[Misplaced]) -> fmt::Result {
    changes
        .iter()
        .try_for_each(|change| write!(f, "\n  {change}"))
}
