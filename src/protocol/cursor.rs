//! A client's position in the stream of events: a database snapshot, and the history it belongs to.
//!
//! A snapshot names exactly which transactions its reader has seen, so "everything after it" has no
//! gap, whatever the order of commits. A cursor is written as `history-timeline.xmin:xmax:xip,…`. Clients treat it as
//! opaque. Parsing a cursor allocates at most [`TEXT_BYTES_MAX`] and fails on anything that PostgreSQL could not have
//! written. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use super::Xid;

/// The longest snapshot that clients are given, in bytes.
const SNAPSHOT_BYTES_MAX: usize = 256;
/// Longer than any cursor that we write: two 20-digit numbers and a snapshot.
const TEXT_BYTES_MAX: usize = SNAPSHOT_BYTES_MAX + 64;

/// The run of transaction numbers that a snapshot's numbers belong to. Those of another history, or of another
/// timeline, cannot be compared with these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// `history` of `realtime.state`, a random number; in the schema before migration 5 the database's system
    /// identifier. 0: the log belongs to another database, and a new history is about to begin.
    pub history: u64,
    /// The timeline of the write-ahead log.
    pub timeline: u32,
}

impl Epoch {
    /// Whether a standby was promoted between that time and this one.
    #[must_use]
    pub fn is_of_a_later_timeline_than(self, other: Self) -> bool {
        self.history == other.history && self.timeline > other.timeline
    }
}

/// The transactions that had ended when the snapshot was taken: PostgreSQL's `pg_snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// The transactions between `xmin` and `xmax` that were still running, ascending.
    running: Box<[u64]>,
}

/// A position in the stream of events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The history it belongs to.
    pub epoch: Epoch,
    /// What has been seen.
    pub snapshot: Snapshot,
    /// When the barrier was sent whose cursor this is: the snapshot was taken later. `None` for a cursor that came
    /// from elsewhere.
    pub sent: Option<Instant>,
}

impl Cursor {
    /// The same position in the form that clients are given. A text that would be too long is shortened so that more
    /// events are repeated and none is lost.
    #[must_use]
    pub fn for_clients(&self) -> Self {
        Self {
            epoch: self.epoch,
            snapshot: self.snapshot.shortened(),
            sent: self.sent,
        }
    }
}

/// With this the release before ends the text of a cursor that it gives out over a WebSocket.
const STREAM_MARK: char = '~';

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NotACursor;

impl Snapshot {
    /// The memory that a notified snapshot has beside itself at most, in bytes: a barrier's is shortened beyond 7,000
    /// characters, and the shortest different numbers of so many are 1,630.
    pub const NOTIFIED_BYTES_MAX: usize = 1_630 * size_of::<u64>();

    /// The memory that it has beside itself, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.running)
    }

    /// The oldest transaction that was still running. All transactions before it had ended.
    #[must_use]
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// One past the highest transaction that had ended: no transaction from here on is visible.
    #[must_use]
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Whether a transaction that has committed is visible in this snapshot.
    #[must_use]
    #[inline]
    pub fn sees(&self, xid: Xid) -> bool {
        let xid = xid.get();
        xid < self.xmin || xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// Whether every transaction from `first` to `last` that has committed is visible in this snapshot.
    #[must_use]
    pub fn sees_all(&self, first: Xid, last: Xid) -> bool {
        let after = self.running.partition_point(|xid| *xid < first.get());
        let is_running = self
            .running
            .get(after)
            .is_some_and(|xid| *xid <= last.get());
        last.get() < self.xmax && !is_running
    }

    /// The form that clients are given: cut at the first running transaction that has no room, as if nothing from
    /// there on had been seen. The same as `realtime.snapshot_text`.
    pub(crate) fn shortened(&self) -> Self {
        if self.to_string().len() <= SNAPSHOT_BYTES_MAX {
            return self.clone();
        }
        // xmin, xmax and each running transaction take one byte more than the longest of them has digits.
        let digits = self.xmax.to_string().len();
        let fit = SNAPSHOT_BYTES_MAX / (digits + 1) - 2;
        let (running, cut) = self.running.split_at(fit.min(self.running.len()));
        Self {
            xmin: self.xmin,
            xmax: cut.first().copied().unwrap_or(self.xmax),
            running: running.into(),
        }
    }

    /// Whether every transaction that is visible in `earlier` is visible in this snapshot.
    #[must_use]
    pub fn covers(&self, earlier: &Self) -> bool {
        self.xmax >= earlier.xmax
            && self
                .running
                .iter()
                .take_while(|xid| **xid < earlier.xmax)
                .all(|xid| earlier.running.binary_search(xid).is_ok())
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (position, xid) in self.running.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{xid}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}.{}",
            self.epoch.history, self.epoch.timeline, self.snapshot
        )
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NotACursor);
        }
        let text = text.strip_suffix(STREAM_MARK).unwrap_or(text);
        let (epoch, snapshot) = text.split_once('.').ok_or(NotACursor)?;
        Ok(Self {
            epoch: epoch.parse()?,
            snapshot: snapshot.parse()?,
            sent: None,
        })
    }
}

impl FromStr for Epoch {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (history, timeline) = text.split_once('-').ok_or(NotACursor)?;
        Ok(Self {
            history: number(history)?,
            timeline: u32::try_from(number(timeline)?).map_err(|_| NotACursor)?,
        })
    }
}

impl FromStr for Snapshot {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(NotACursor);
        let (xmin, xmax, running) = (number(part()?)?, number(part()?)?, part()?);
        let running = match running {
            "" => Box::default(),
            list => list
                .split(',')
                .map(number)
                .collect::<Result<Box<[u64]>, _>>()?,
        };
        let ascending = running.is_sorted_by(|a, b| a < b);
        let within = running.iter().all(|xid| (xmin..xmax).contains(xid));
        // PostgreSQL's transaction numbers of 64 bits are signed where they are stored as bigint.
        let possible = 0 < xmin && xmin <= xmax && i64::try_from(xmax).is_ok();
        if ascending && within && possible {
            Ok(Self {
                xmin,
                xmax,
                running,
            })
        } else {
            Err(NotACursor)
        }
    }
}

/// Digits and nothing else: no sign, no blank, as `u64::from_str` alone would admit a plus.
fn number(text: &str) -> Result<u64, NotACursor> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| NotACursor)
    } else {
        Err(NotACursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "7301234567890123456-1.734:734:",
            "7301234567890123456-12.734:740:734,736",
            "1-1.9223372036854775806:9223372036854775807:9223372036854775806",
        ] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_snapshot_sees_a_range_if_none_of_it_is_running_or_to_come() {
        let snapshot = snapshot("5:12:5,9");
        let xid = |number| Xid::new(number).unwrap();
        for first in 1..14 {
            for last in first..14 {
                let each = (first..=last).all(|number| snapshot.sees(xid(number)));
                assert_eq!(
                    snapshot.sees_all(xid(first), xid(last)),
                    each,
                    "{first} {last}"
                );
            }
        }
    }

    #[test]
    fn a_cursor_of_the_release_before_is_read() {
        let read: Cursor = "1-1.5:9:5,6~".parse().unwrap();
        assert_eq!(read.to_string(), "1-1.5:9:5,6");
    }

    #[test]
    fn what_postgresql_cannot_have_written_is_no_cursor() {
        for text in [
            "",
            ".",
            "1-1",
            "1-1.",
            "1.5:5:",
            "1-1.5:5",
            "1-1.5:4:",
            "1-1.0:4:",
            "1-1.5:9:5,5",
            "1-1.5:9:7,6",
            "1-1.5:9:9",
            "1-1.5:9:4",
            "1-1.5:9:5,",
            "1-1.5:9:,",
            "1-1.+5:9:",
            "1-1. 5:9:",
            "1-1.5:9:5:6",
            "1-1.5:9:~~",
            "~",
            "1-4294967296.5:9:",
            "1-1.5:9223372036854775808:",
            "1-1.5:99999999999999999999:",
            "1-1.٥:9:",
            "'; DROP TABLE users; --",
            "null",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
        let long = format!("1-1.5:9:{}", "5,".repeat(200));
        assert_eq!(long.parse::<Cursor>(), Err(NotACursor));
    }

    #[test]
    fn a_snapshot_says_where_the_running_transactions_begin_and_end() {
        let snapshot = snapshot("734:740:735,736");
        assert_eq!((snapshot.xmin(), snapshot.xmax()), (734, 740));
    }

    /// A snapshot with this `xmax` and so many running transactions of seven digits.
    fn with_running(running: usize, xmax: u64) -> String {
        let running = (1_000_000_u64..).take(running);
        let running: Vec<_> = running.map(|xid| xid.to_string()).collect();
        format!("1000000:{xmax}:{}", running.join(","))
    }

    #[test]
    fn a_cursor_of_320_bytes_is_read_and_a_longer_one_is_not() {
        let text = |xmax: u64| format!("1-1.{}", with_running(37, xmax));
        let (longest, longer) = (text(10_u64.pow(11)), text(10_u64.pow(12)));
        assert_eq!((longest.len(), longer.len()), (320, 321));
        assert_eq!(longest.parse::<Cursor>().unwrap().to_string(), longest);
        assert_eq!(longer.parse::<Cursor>(), Err(NotACursor));
    }

    #[test]
    fn a_snapshot_of_more_than_256_bytes_is_cut_at_the_first_running_transaction_that_does_not_fit()
    {
        let (longest, longer) = (with_running(30, 10_000_000), with_running(30, 100_000_000));
        assert_eq!((longest.len(), longer.len()), (256, 257));
        assert_eq!(snapshot(&longest).shortened(), snapshot(&longest));
        let cut = snapshot(&with_running(23, 1_000_023));
        assert_eq!(snapshot(&longer).shortened(), cut);
        // With the longest numbers that there are, all that fit.
        let numbers = (i64::MAX as u64 - 60)..(i64::MAX as u64);
        let running: Vec<_> = numbers.map(|xid| xid.to_string()).collect();
        let xmin = &running[0];
        let text = format!("{xmin}:{}:{}", i64::MAX, running.join(","));
        let cut = snapshot(&text).shortened().to_string();
        assert!((236..=256).contains(&cut.len()), "{cut}");
    }

    /// Every snapshot over the transactions 1 to 6, against the definition transaction by
    /// transaction.
    #[test]
    fn covering_is_having_seen_all_of_it() {
        let mut all = Vec::new();
        for xmin in 1..6_u64 {
            for xmax in xmin..=6 {
                for subset in 0..(1_u32 << (xmax - xmin)) {
                    let running: Vec<String> = (xmin..xmax)
                        .filter(|xid| subset & (1 << (xid - xmin)) != 0)
                        .map(|xid| xid.to_string())
                        .collect();
                    all.push(snapshot(&format!("{xmin}:{xmax}:{}", running.join(","))));
                }
            }
        }
        let seen = |s: &Snapshot, xid: u64| xid < s.xmax && s.running.binary_search(&xid).is_err();
        for later in &all {
            for earlier in &all {
                let has_seen_all = (1..=6).all(|xid| !seen(earlier, xid) || seen(later, xid));
                // Of an earlier xmax, `covers` answers no even if every transaction in between was running.
                let expected = has_seen_all && later.xmax >= earlier.xmax;
                assert_eq!(later.covers(earlier), expected, "{later} covers {earlier}");
            }
        }
        assert!(snapshot("10:10:").covers(&snapshot("5:9:5,7")));
        assert!(!snapshot("5:12:5").covers(&snapshot("6:9:")));
    }
}
