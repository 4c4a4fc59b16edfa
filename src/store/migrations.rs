//! The migrations of `sql/realtime/`, and what each of them locks.
//!
//! sqlx's migrator applies them and records them in `realtime._sqlx_migrations`, apart from the application's own
//! migrations. Their text is fixed, since databases have its checksum. Some pieces of it would make the application
//! wait, or fail where it has other tables or after an `up` that was ended. They are changed in memory, where the program does the same in another
//! way. What is recorded is the checksum of the fixed text.

use std::borrow::Cow;
use std::collections::BTreeSet;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

use super::index::Index;
use super::locks::Locks;
use super::schema::APPLIED_TABLE;

/// The change of triggers that migration 3 makes.
const OF_TRIGGERS: Locks<'static> = Locks {
    tables: &TABLES_BEFORE,
    mode: "ACCESS EXCLUSIVE",
};

/// The tables that had triggers in the schema before sources.
pub(super) const TABLES_BEFORE: [&str; 4] = [
    "public.messages",
    "public.sessions",
    "public.devices",
    "public.users",
];

/// For a device that proves who it is by its key alone.
pub(super) const OF_DEVICES: Index = Index {
    table: "public.devices",
    name: "realtime_devices_identity_pubkey",
    column: "identity_pubkey",
};

/// Of the log, see migration 4.
const OF_EVENTS: Index = Index {
    table: "realtime.events",
    name: "events_id",
    column: "id",
};

/// A piece of a migration's text, from the one mark up to the other, and what is executed instead.
struct Piece {
    version: i64,
    migration_type: MigrationType,
    from: &'static str,
    to: &'static str,
    instead: &'static str,
}

/// Where there is no log yet. Triggers come at the end of everything, in the same transaction, and the index before. The
/// application need have none of HushNet's tables.
const LEFT_OUT_AT_FIRST: [Piece; 4] = [
    Piece {
        version: 1,
        migration_type: MigrationType::ReversibleUp,
        from: "DO $$\nDECLARE\n    missing text;",
        to: "-- The log, partitioned by time",
        // A trigger's function names the type of a table that may not be there.
        instead: "SET LOCAL check_function_bodies = off;\n\n",
    },
    Piece {
        version: 1,
        migration_type: MigrationType::ReversibleUp,
        from: "-- Take the place of the application's own triggers",
        to: "-- The first partitions.",
        instead: "",
    },
    Piece {
        version: 3,
        migration_type: MigrationType::ReversibleUp,
        from: "SELECT realtime.repair_triggers();",
        to: "",
        instead: "",
    },
    Piece {
        version: 8,
        migration_type: MigrationType::ReversibleUp,
        from: "-- What the triggers of the schema before tell of",
        to: "-- What can be installed besides.",
        instead: "",
    },
];

/// Which triggers are there, no name says. An `up` that was to build the index anew may have been ended before it had.
const CHANGED_AT_LAST: [Piece; 2] = [
    Piece {
        version: 3,
        migration_type: MigrationType::ReversibleDown,
        from: "SELECT realtime.lock_application_tables();",
        to: "-- With the triggers of TRUNCATE.",
        instead: "SELECT realtime.replace_application_triggers();\n\n",
    },
    Piece {
        version: 1,
        migration_type: MigrationType::ReversibleDown,
        from: "DROP TRIGGER messages_notify_trigger ON public.messages;",
        to: "\n\nDO $$",
        instead: include_str!("../../sql/realtime_triggers_gone.sql"),
    },
];

/// All migrations, for a database that has some of them.
pub(super) fn all() -> Migrator {
    let mut migrator = sqlx::migrate!("sql/realtime");
    migrator.dangerous_set_table_name(APPLIED_TABLE);
    migrator
}

/// All migrations, for a database without the log.
pub(super) fn at_first() -> Migrator {
    changed(&LEFT_OUT_AT_FIRST)
}

/// All migrations, to be undone.
pub(super) fn at_last() -> Migrator {
    changed(&CHANGED_AT_LAST)
}

fn changed(pieces: &[Piece]) -> Migrator {
    let mut migrations: Vec<Migration> = all().iter().cloned().collect();
    for migration in &mut migrations {
        let is_of = |piece: &&Piece| {
            piece.version == migration.version && piece.migration_type == migration.migration_type
        };
        for piece in pieces.iter().filter(is_of) {
            if let Some(rest) = piece.change(migration.sql.as_str()) {
                migration.sql = AssertSqlSafe(rest).into_sql_str();
            }
        }
    }
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(APPLIED_TABLE);
    migrator
}

impl Piece {
    /// The text with the piece changed; `None` where the marks are not in it.
    fn change(&self, text: &str) -> Option<String> {
        let (before, piece) = text.split_once(self.from)?;
        let end = match self.to {
            "" => piece.len(),
            mark => piece.find(mark)?,
        };
        Some(format!("{before}{}{}", self.instead, &piece[end..]))
    }
}

/// What a migration locks that others use, where there is a log already.
pub(super) fn locks_of(version: i64) -> Option<Locks<'static>> {
    let (tables, mode): (&[&str], _) = match version {
        2 => (&["realtime.events", "realtime.state"], "ACCESS EXCLUSIVE"),
        PLACES_TRIGGERS => return Some(OF_TRIGGERS),
        4 => (&["realtime.events"], "SHARE"),
        5 | 11 => (&["realtime.state"], "ACCESS EXCLUSIVE"),
        8 => (&["realtime.events"], "ACCESS EXCLUSIVE"),
        9 => (
            // Writers lock the state and then the log: those that come meanwhile wait for the state and have neither.
            &["realtime.state", "realtime.events", "realtime.sources"],
            "ACCESS EXCLUSIVE",
        ),
        // A writer of a long event has read it, until its transaction ends.
        10 => (&["realtime.sources"], "ACCESS EXCLUSIVE"),
        _ => return None,
    };
    Some(Locks { tables, mode })
}

/// The migration that puts every trigger in its place, and needs the locks for it.
pub(super) const PLACES_TRIGGERS: i64 = 3;

/// What writers of the application notice of a migration besides its locks.
pub(super) fn note_of(version: i64) -> &'static str {
    if version == 2 {
        ", and copies up to 100,000 events meanwhile"
    } else {
        ""
    }
}

/// The index of which the partitions' parts are built before this migration puts them together.
pub(super) fn index_before(version: i64) -> Option<Index> {
    (version == 4).then_some(OF_EVENTS)
}

/// The migrations that are not among the applied ones, in order.
pub(super) fn pending(applied: &[i64]) -> Vec<(i64, Cow<'static, str>)> {
    let applied: BTreeSet<_> = applied.iter().collect();
    let migrator = all();
    let pending = migrator.iter().filter(|migration| {
        migration.migration_type.is_up_migration() && !applied.contains(&migration.version)
    });
    pending
        .map(|migration| (migration.version, migration.description.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(migrator: &Migrator, of: &Piece) -> (String, Vec<u8>) {
        let is_of =
            |m: &&Migration| m.version == of.version && m.migration_type == of.migration_type;
        let migration = migrator.iter().find(is_of).unwrap();
        (
            migration.sql.as_str().to_owned(),
            migration.checksum.to_vec(),
        )
    }

    #[test]
    fn each_piece_is_found_once_and_the_checksum_stays() {
        for (migrator, pieces) in [
            (at_first(), &LEFT_OUT_AT_FIRST[..]),
            (at_last(), &CHANGED_AT_LAST[..]),
        ] {
            for piece in pieces {
                let ((whole, checksum), (rest, same)) =
                    (text(&all(), piece), text(&migrator, piece));
                assert_eq!(whole.matches(piece.from).count(), 1, "{}", piece.from);
                assert!(rest != whole && !rest.contains(piece.from));
                assert_eq!(checksum, same);
            }
        }
    }

    #[test]
    fn without_a_log_no_migration_touches_the_application_s_tables() {
        for migration in at_first().iter() {
            if !migration.migration_type.is_up_migration() {
                continue;
            }
            for statement in ["CREATE TRIGGER", "DROP TRIGGER", "CREATE INDEX"] {
                for line in migration.sql.as_str().lines() {
                    let is_code =
                        line.starts_with(statement) || line.starts_with("SELECT realtime.repair");
                    assert!(
                        !is_code || line.contains("ON realtime."),
                        "{}: {line}",
                        migration.version
                    );
                }
            }
        }
    }
}
