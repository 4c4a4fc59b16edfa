//! Why the database does not do what the service asks of it.

use enum_map::Enum;
use strum::IntoStaticStr;

/// Why a statement of the service failed: the label `cause` in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DatabaseFault {
    /// A schema, table or function is not there.
    Undefined,
    /// The role lacks a right.
    Privilege,
    /// The database takes no writes: it is in recovery.
    ReadOnly,
    /// The address leads to a pooler that gives the session's connection to others.
    Pooler,
    /// A disk, the memory or the notification queue is full.
    Full,
    /// The server or the role has no connection left.
    Connections,
    /// The role may not log in, or there is no such database.
    Login,
    /// The statement waited for a lock, or for an answer, for too long.
    Timeout,
    /// The connection was lost, or none can be made.
    Unreachable,
    /// None of the others.
    Other,
}

impl DatabaseFault {
    /// Of an error that PostgreSQL has answered with.
    #[must_use]
    pub fn of_sqlstate(code: &str) -> Self {
        match code {
            "3F000" | "42P01" | "42883" => Self::Undefined,
            "42501" => Self::Privilege,
            "25006" => Self::ReadOnly,
            // The statements that the service has prepared are its session's.
            "26000" | "42P05" => Self::Pooler,
            // 54000 is what a full notification queue is answered with.
            "53100" | "53200" | "54000" | "58030" => Self::Full,
            "53300" => Self::Connections,
            "3D000" => Self::Login,
            "25P03" | "25P04" | "55P03" | "57014" => Self::Timeout,
            _ => match &code.get(..2) {
                Some("28") => Self::Login,
                Some("08" | "57") => Self::Unreachable,
                _ => Self::Other,
            },
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Undefined => {
                "run hushnet-realtime migrate up; if it says that nothing is missing, undo what has renamed or \
                 dropped a part of the schema realtime"
            }
            Self::Privilege => {
                "run hushnet-realtime migrate grant --for serve --role with the service's role, as the owner of the schema \
                 realtime"
            }
            Self::ReadOnly => {
                "name the primary in DATABASE_URL: this server is in recovery, or takes no writes at all"
            }
            Self::Pooler => {
                "connect directly to PostgreSQL, or through a pooler in session mode: in transaction or statement mode \
                 LISTEN does not work, and settings would leak into others' sessions"
            }
            Self::Full => {
                "free what is full: PostgreSQL's disk, its memory, or its notification queue \
                 (pg_notification_queue_usage())"
            }
            Self::Connections => {
                "raise max_connections or the role's CONNECTION LIMIT, or end sessions that nobody uses"
            }
            Self::Login => "check user, password and database in DATABASE_URL, and pg_hba.conf",
            Self::Timeout => {
                "look in pg_stat_activity at what holds the lock that it waits for (pg_blocking_pids()), or why the \
                 database is slow"
            }
            Self::Unreachable => "check that PostgreSQL is up and can be reached",
            Self::Other => "PostgreSQL's log has the statement and the whole error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_follows_from_the_sqlstate() {
        for (code, fault) in [
            ("42883", DatabaseFault::Undefined),
            ("42501", DatabaseFault::Privilege),
            ("25006", DatabaseFault::ReadOnly),
            ("26000", DatabaseFault::Pooler),
            ("42P05", DatabaseFault::Pooler),
            ("53100", DatabaseFault::Full),
            ("54000", DatabaseFault::Full),
            ("53300", DatabaseFault::Connections),
            ("28P01", DatabaseFault::Login),
            ("57014", DatabaseFault::Timeout),
            ("57P01", DatabaseFault::Unreachable),
            ("08006", DatabaseFault::Unreachable),
            ("P0001", DatabaseFault::Other),
            ("", DatabaseFault::Other),
        ] {
            assert_eq!(DatabaseFault::of_sqlstate(code), fault, "{code}");
        }
    }
}
