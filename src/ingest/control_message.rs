//! What servers tell themselves and one another on the control channel. Pure.

use std::fmt;
use std::time::Instant;

use uuid::Uuid;

use crate::config::Ingest;
use crate::protocol::{Cursor, Snapshot};

/// A message on the control channel.
#[derive(Debug, PartialEq)]
pub enum ControlMessage {
    /// A server is about to read the log continuously: events need not notify.
    Awake,
    /// The log has a row that is for all users.
    Changed,
    /// The sources say more than they did: the type of the users.
    Sources,
    /// A barrier of this process that is sent where there is no log.
    BareBarrier(BareBarrierState),
    /// A barrier of this process, with what its transaction saw.
    Barrier(BarrierState),
}

impl ControlMessage {
    /// The memory that it has beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Awake | Self::Changed | Self::Sources => 0,
            Self::BareBarrier(state) => state.snapshot.bytes(),
            Self::Barrier(state) => state.cursor.snapshot.bytes(),
        }
    }
}

/// What the transaction of a barrier without a log saw.
#[derive(Debug, PartialEq)]
pub struct BareBarrierState {
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// Whether there is a log by now.
    pub has_log: bool,
}

/// What the transaction of a barrier saw.
#[derive(Debug, PartialEq)]
pub struct BarrierState {
    /// Its snapshot.
    pub cursor: Cursor,
    /// How events reach the server.
    pub ingest: Ingest,
    /// Whether there may be events that have not notified.
    pub silent: bool,
    /// Share of PostgreSQL's notification queue in use, 0 to 1.
    pub queue_usage: f64,
    /// The number of the transaction; `None` in the schema before migration 5.
    pub transaction: Option<u64>,
}

/// Tells a barrier from all others: a fresh random number, which nobody knows before the barrier returns. So
/// no other role can notify a barrier that this process would accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonce(Uuid);

impl Nonce {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text of a notification on the control channel, parsed as far as it says whose it is.
#[derive(Debug, PartialEq)]
pub(super) enum ControlPayload<'a> {
    Awake,
    Changed,
    Sources,
    /// Any process's barrier, and the text of its state.
    Barrier(Nonce, &'a str),
}

impl<'a> ControlPayload<'a> {
    /// `None` for a text that this version does not know.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "awake" => Some(Self::Awake),
            "changed" => Some(Self::Changed),
            "sources" => Some(Self::Sources),
            "barrier" => {
                let (nonce, state) = rest.split_once(' ').unwrap_or((rest, ""));
                Some(Self::Barrier(Nonce::parse(nonce)?, state))
            }
            _ => None,
        }
    }
}

impl ControlMessage {
    /// The message of a barrier that was sent at this time, with this state: the epoch of the release before, snapshot, way
    /// of ingest, `t` where events may be silent, the queue's usage, epoch, the transaction's number, and the way of ingest
    /// again, which may be `wal` here. The schema before migration 5 lacks the last three, and that before migration 11 the
    /// last. Of one that is sent where there is no log: `log` or `no_log`, and the snapshot. `None` for a state that this
    /// version cannot read.
    pub(super) fn of_barrier(state: &str, sent: Option<Instant>) -> Option<Self> {
        let mut words = state.split(' ');
        let first = words.next()?;
        if let "log" | "no_log" = first {
            return Some(Self::BareBarrier(BareBarrierState {
                snapshot: words.next()?.parse().ok()?,
                has_log: first == "log",
            }));
        }
        let snapshot = words.next()?.parse().ok()?;
        let ingest: Ingest = words.next()?.parse().ok()?;
        let silent = words.next()? == "t";
        let queue_usage = words.next()?.parse().ok()?;
        let epoch = words.next().unwrap_or(first).parse().ok()?;
        let transaction = words.next().map(str::parse).transpose().ok()?;
        // A server of the release before takes `wal` for `tail`, whose triggers it has.
        let ingest = words.next().map_or(Some(ingest), |way| way.parse().ok())?;
        Some(Self::Barrier(BarrierState {
            cursor: Cursor {
                epoch,
                snapshot,
                sent,
            },
            ingest,
            silent,
            queue_usage,
            transaction,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[test]
    fn a_barrier_is_parsed_with_its_state() {
        let text = format!("barrier {NONCE} 1-1 5:9:7 adaptive t 0.25");
        let (nonce, now) = (Nonce::parse(NONCE).unwrap(), Instant::now());
        let state = "1-1 5:9:7 adaptive t 0.25";
        assert_eq!(
            ControlPayload::parse(&text),
            Some(ControlPayload::Barrier(nonce, state))
        );
        let barrier = |epoch, transaction| {
            let mut cursor: Cursor = format!("{epoch}.5:9:7").parse().unwrap();
            cursor.sent = Some(now);
            Some(ControlMessage::Barrier(BarrierState {
                cursor,
                ingest: Ingest::Adaptive,
                silent: true,
                queue_usage: 0.25,
                transaction,
            }))
        };
        let of_schema_4 = ControlMessage::of_barrier(state, Some(now));
        assert_eq!(of_schema_4, barrier("1-1", None));
        for present in ["8-1 12", "8-1 12 adaptive"] {
            let present = ControlMessage::of_barrier(&format!("{state} {present}"), Some(now));
            assert_eq!(present, barrier("8-1", Some(12)));
        }
        let streams = "1-1 5:9:7 tail t 0.25 8-1 12 wal t";
        let Some(ControlMessage::Barrier(streams)) = ControlMessage::of_barrier(streams, None)
        else {
            panic!("{streams}");
        };
        assert_eq!(streams.ingest, Ingest::Wal);
    }

    #[test]
    fn a_barrier_without_a_log_says_whether_there_is_one_by_now() {
        for (word, has_log) in [("no_log", false), ("log", true)] {
            let text = format!("barrier {NONCE} {word} 5:9:7");
            let Some(ControlPayload::Barrier(nonce, state)) = ControlPayload::parse(&text) else {
                panic!("{text}");
            };
            assert_eq!(nonce.to_string(), NONCE);
            let snapshot = "5:9:7".parse().unwrap();
            let expected = BareBarrierState { snapshot, has_log };
            assert_eq!(
                ControlMessage::of_barrier(state, None),
                Some(ControlMessage::BareBarrier(expected))
            );
        }
    }

    #[test]
    fn unknown_texts_are_ignored() {
        assert_eq!(ControlPayload::parse("awake"), Some(ControlPayload::Awake));
        for text in ["", "asleep", "barrier", "barrier 7", "barrier x"] {
            assert_eq!(ControlPayload::parse(text), None, "{text:?}");
        }
        for state in [
            "",
            "log",
            "no_log 9:5:",
            "1-1",
            "1-1 5:9:7 telepathy t 0",
            "1-1 9:5: notify t 0",
            "1-1 5:9: notify t 0 8 12",
            "1-1 5:9: notify t 0 8-1 x",
        ] {
            assert_eq!(ControlMessage::of_barrier(state, None), None, "{state:?}");
        }
    }
}
