//! Why the log's rows are not streamed from the write-ahead log, or are no longer.

use enum_map::Enum;
use strum::IntoStaticStr;

/// Why a server polls where it is to stream: the label `cause` in the metrics. Nothing is lost by any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum StreamFault {
    /// No credential was given.
    NoUrl,
    /// PostgreSQL's `wal_level` is not `logical`.
    WalLevel,
    /// There is no publication `realtime_log`.
    NoPublication,
    /// The publication is another than `migrate up` makes, or was altered while its rows came.
    PublicationAltered,
    /// The role may not log in for replication.
    Privilege,
    /// The credential leads to another server, or to another database.
    Elsewhere,
    /// PostgreSQL has no replication slot or no walsender left.
    Slots,
    /// A transaction that runs keeps the slot from being made.
    Blocked,
    /// The connection cannot be made, or was lost.
    Unreachable,
    /// PostgreSQL has ended the walsender: no answer of this server has reached it in time.
    WalSenderTimeout,
    /// PostgreSQL has invalidated the slot.
    Invalidated,
    /// PostgreSQL keeps too much of the write-ahead log for the slot.
    Lag,
    /// A transaction is so large that the events behind it would wait.
    LongTransaction,
    /// Barriers commit and are notified, and their rows do not come.
    Silent,
    /// More events wait to be visible, or to be joined to what was read, than there is room for.
    Overflow,
    /// PostgreSQL refuses, or sends what is not understood.
    Refused,
}

impl StreamFault {
    /// What an operator does about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoUrl => {
                "name in --replication-url the same database for a role that has REPLICATION, or choose another way of ingest"
            }
            Self::WalLevel => {
                "set wal_level = logical and restart PostgreSQL, or choose another way of ingest"
            }
            Self::NoPublication => {
                "run hushnet-realtime migrate up as a role that may CREATE in the database; where that is done: CREATE PUBLICATION \
                 realtime_log FOR TABLE realtime.log WITH (publish = 'insert', publish_via_partition_root = true)"
            }
            Self::PublicationAltered => {
                "make it anew: DROP PUBLICATION realtime_log; CREATE PUBLICATION realtime_log FOR TABLE realtime.log WITH (publish = 'insert', \
                 publish_via_partition_root = true)"
            }
            Self::Privilege => {
                "check user and password in --replication-url, ALTER ROLE ... REPLICATION, the role's right to CONNECT, and \
                 pg_hba.conf"
            }
            Self::Elsewhere => {
                "name in --replication-url the same server and the same database as in DATABASE_URL"
            }
            Self::Slots => {
                "raise max_replication_slots and max_wal_senders to one for each server and restart PostgreSQL, or drop slots that \
                 nobody uses (pg_replication_slots)"
            }
            Self::Blocked => {
                "end the transactions that are named, or wait for them: making a slot waits for every transaction that runs"
            }
            Self::Unreachable => {
                "check that PostgreSQL can be reached at --replication-url; its log says why it ended a walsender"
            }
            Self::WalSenderTimeout => {
                "look for what keeps this server's answers from PostgreSQL (a proxy, a firewall, a process that was stopped), \
                 or raise wal_sender_timeout"
            }
            Self::Invalidated => {
                "raise max_slot_wal_keep_size above wal_lag_bytes_max, and look at idle_replication_slot_timeout"
            }
            Self::Lag => {
                "look for a transaction that has long been open (pg_stat_activity, xact_start), or raise wal_lag_bytes_max"
            }
            Self::LongTransaction => {
                "nothing: the log is read until the transaction has been dealt with"
            }
            Self::Silent => {
                "look whether the walsender works (pg_stat_replication), and whether somebody changes the publication realtime_log"
            }
            Self::Overflow => {
                "nothing, if it passes: the log is read meanwhile; else look at a synchronous standby that does not answer"
            }
            Self::Refused => "PostgreSQL's log has the statement and the whole error",
        }
    }

    /// Of an error that PostgreSQL has answered with.
    #[must_use]
    pub fn of_sqlstate(code: &str, message: &str) -> Self {
        match code {
            "42501" | "3D000" => Self::Privilege,
            "53300" | "53400" => Self::Slots,
            "55P03" => Self::Blocked,
            "42704" if message.contains("publication") => Self::NoPublication,
            "55000" if message.contains("wal_level") => Self::WalLevel,
            "55000" if message.contains("replication slot") => Self::Invalidated,
            _ => match code.get(..2) {
                Some("28") => Self::Privilege,
                Some("08" | "57") => Self::Unreachable,
                _ => Self::Refused,
            },
        }
    }

    /// Whether it is to be expected now and then, and ends by itself.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Blocked | Self::LongTransaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_follows_from_the_sqlstate_and_the_message() {
        for (code, message, fault) in [
            (
                "28P01",
                "password authentication failed",
                StreamFault::Privilege,
            ),
            (
                "42501",
                "permission denied to start WAL sender",
                StreamFault::Privilege,
            ),
            (
                "53400",
                "all replication slots are in use",
                StreamFault::Slots,
            ),
            (
                "53300",
                "number of requested standby connections",
                StreamFault::Slots,
            ),
            (
                "55P03",
                "canceling statement due to lock timeout",
                StreamFault::Blocked,
            ),
            (
                "42704",
                "publication \"realtime_log\" does not exist",
                StreamFault::NoPublication,
            ),
            (
                "55000",
                "logical decoding requires wal_level",
                StreamFault::WalLevel,
            ),
            (
                "55000",
                "can no longer access replication slot",
                StreamFault::Invalidated,
            ),
            ("57P01", "terminating connection", StreamFault::Unreachable),
            ("XX000", "", StreamFault::Refused),
        ] {
            assert_eq!(
                StreamFault::of_sqlstate(code, message),
                fault,
                "{code} {message}"
            );
        }
    }
}
