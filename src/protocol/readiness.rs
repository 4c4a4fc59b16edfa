//! Why `/readyz` is not plainly ready: every reason, with its status and what to do about it.
//!
//! A new reason needs its declaration here, whoever finds it and reports it to the feed
//! (`delivery::HealthReport`), and its row in docs/operations.md, which a test asks for.

use enum_map::Enum;
use strum::IntoStaticStr;

/// What `/readyz` answers, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Readiness {
    /// 200: events arrive, and nothing is known to be wrong.
    Ready,
    /// 200: events arrive, and those of now come late, behind many others.
    CatchingUp,
    /// 200: events arrive, and something has to be mended.
    Degraded,
    /// 503: events do not arrive, or nothing proves that they do. Also a server that is ending.
    Unavailable,
}

impl Readiness {
    /// Whether new clients should be sent to this server: the answer is 200.
    #[must_use]
    pub fn takes_clients(self) -> bool {
        self < Self::Unavailable
    }
}

/// Makes the enum of the reasons from their declarations. One reads `Name: Status, "remedy";` and has its meaning as
/// its doc comment.
macro_rules! readiness_reasons {
    ($( $(#[doc = $meaning:literal])+ $name:ident: $readiness:ident, $remedy:literal; )+) => {
        /// A reason why `/readyz` is not plainly ready, in the order in which the answer lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
        #[strum(serialize_all = "snake_case")]
        pub enum ReadinessReason {
            $( $(#[doc = $meaning])+ $name, )+
        }

        impl ReadinessReason {
            /// What `/readyz` answers while only this reason is given.
            #[must_use]
            pub fn readiness(self) -> Readiness {
                match self { $( Self::$name => Readiness::$readiness, )+ }
            }

            /// What is the matter. One sentence or two.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $( Self::$name => concat!($($meaning),+).trim_ascii_start(), )+ }
            }

            /// What an operator does about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $( Self::$name => $remedy, )+ }
            }
        }
    };
}

readiness_reasons! {
    /// The server is ending.
    Draining: Unavailable, "Send new clients to another server.";
    /// The address leads to a pooler in transaction or statement mode: LISTEN does not work there, and what the service
    /// sets for its sessions would leak into others'.
    Pooler: Unavailable, "Connect directly to PostgreSQL, or set the pooler's mode for this database to session. The \
        server looks again by itself.";
    /// The database is in recovery: a standby takes no LISTEN and no writes.
    Recovery: Unavailable, "Nothing, if it is about to be promoted: the server looks again by itself. Else name the \
        primary in `DATABASE_URL`.";
    /// PostgreSQL answers, and refuses what events need: the service's role lacks a right (42501).
    Privilege: Unavailable, "Run `hushnet-realtime migrate grant --for serve --role` with the service's role, as the \
        owner of the schema `realtime`. `detail` has PostgreSQL's error.";
    /// The listener has no connection to PostgreSQL, or still reads what was committed meanwhile.
    ListenerDisconnected: Unavailable, "Nothing, if it passes: the listener reconnects by itself. If it lasts, check \
        that PostgreSQL is up, can be reached, and has a connection left (`max_connections`).";
    /// PostgreSQL refuses the barriers: nothing proves that events arrive.
    BarrierFailed: Unavailable, "`detail` has PostgreSQL's error, and the log says what to do about it \
        (`barrier_failed`).";
    /// PostgreSQL answers, but does not let a barrier commit. The application's transactions that notify wait as well.
    BarrierUncommitted: Unavailable, "Look in `pg_stat_activity`: `wait_event` `SyncRep` is a synchronous standby that \
        is gone; for `Lock`, end the session that `pg_blocking_pids()` names.";
    /// Barriers commit, and their notifications do not come back: nothing proves that events arrive.
    BarrierNotReturned: Unavailable, "The listener is rebuilt by itself. If it lasts, connect directly to PostgreSQL: \
        LISTEN does not work through a pooler in transaction mode.";
    /// A trigger that writes the log is not in its place, or something keeps changes from it: they may make no event.
    TriggerFaulty: Degraded, "`detail` has each table and its fault, and the log says what to do (`trigger_faulty`). \
        Mostly: run `hushnet-realtime migrate up`.";
    /// The service's role lacks rights that it needs for a part of its work.
    PrivilegeMissing: Degraded, "`detail` has the rights, and the log the command that grants them (`rights_missing`): \
        `hushnet-realtime migrate grant`.";
    /// In the last ten minutes rows of the log were skipped that this release cannot read: their events reached nobody.
    EventsSkipped: Degraded, "`detail` has the last, and the log each (`log_row_of_unknown_source`, `log_row_malformed`). \
        Mostly a newer release has added its source: run that release.";
    /// In the last ten minutes the event of a row could not be made, because what its source says of the table fails. The
    /// row was written, and every v1 client was reset.
    EventsFailed: Degraded, "`detail` has the last, the log each (`event_failed`), and PostgreSQL's log the error. Mend \
        the table or what the audience reads, or attach the table again; then this ends with the ten minutes.";
    /// The database says `ingest = wal`, and this server cannot stream: it reads the log every few milliseconds instead.
    NotStreaming: Degraded, "`detail` has the cause, and the log what to do (`wal_not_streaming`). Nothing is lost, and events \
        come a few milliseconds later.";
    /// The bus brings events of a later timeline of this database: a standby was promoted, and this server is still
    /// connected to the primary of before.
    NewerTimeline: Unavailable, "Lead `DATABASE_URL` to the new primary. The server connects again by itself.";
    /// There is no connection to the bus: this server reads the log itself, as every other server does that has none.
    BusDisconnected: Degraded, "`detail` has the cause, and the log what to do (`bus_disconnected`). Nothing is lost; the \
        database has more to do.";
    /// There is a connection to the bus, and no leader's messages come: this server reads the log itself.
    BusSilent: Degraded, "Nothing, if it passes: another server is elected in seconds. If it lasts, the bus brings nothing \
        to this server, or no server may lead (`leader_lost`, `election_failed`).";
    /// Events arrive, and those of now come late: the server still reads many that were committed before.
    CatchingUp: CatchingUp, "Nothing, if it passes. If it lasts, more is committed than this server can read: look at \
        its CPU, and at what commits so many events.";
    /// PostgreSQL's notification queue is more than half full. When it is full, every transaction that notifies fails.
    NotificationQueueFilling: Degraded, "Find the session that listens and does not read, or is idle in a transaction \
        (`pg_stat_activity`; PostgreSQL's log names it), and end it.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Label;

    const HEAD: &str = "| reason | `/readyz` | meaning | remedy |\n|---|---|---|---|\n";

    #[test]
    fn the_table_in_the_documentation_has_every_reason_with_its_status_and_remedy() {
        let rows = ReadinessReason::all().map(|reason| {
            let readiness = reason.readiness();
            let status = if readiness.takes_clients() { 200 } else { 503 };
            let (name, state) = (reason.as_str(), readiness.as_str());
            let (meaning, remedy) = (reason.meaning(), reason.remedy());
            format!("| `{name}` | {status} `{state}` | {meaning} | {remedy} |\n")
        });
        let wanted = rows.fold(HEAD.to_owned(), |table, row| table + &row);
        let page = include_str!("../../docs/operations.md");
        let begin = page
            .find(HEAD)
            .unwrap_or_else(|| panic!("no head:\n{wanted}"));
        let table = &page[begin..];
        let table = &table[..=table.find("\n\n").unwrap()];
        assert!(
            table == wanted,
            "docs/operations.md has another table than\n{wanted}"
        );
    }

    #[test]
    fn only_what_keeps_events_away_sends_clients_away() {
        assert!(Readiness::Ready.takes_clients() && Readiness::Degraded.takes_clients());
        assert!(Readiness::CatchingUp.takes_clients());
        assert!(!Readiness::Unavailable.takes_clients());
        assert!(Readiness::Ready < Readiness::CatchingUp);
        assert!(Readiness::CatchingUp < Readiness::Degraded);
    }
}
