//! Compares the events that arrived with the events that were committed.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::clients::{Finished, Habit};
use crate::ledger::{Outcome, Record};

/// Of each kind of fault, this many are shown.
const SHOWN_MAX: usize = 5;

/// The result of a scenario.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Committed events.
    pub events: usize,
    /// Committed events that devices had to get, summed over the devices.
    pub due: usize,
    /// Events on the wire.
    pub deliveries: usize,
    /// Events on the wire that their client already had.
    pub repeats: usize,
    pub connects: usize,
    /// Due and never received.
    pub lost: usize,
    /// Received although rolled back, or taken back by a crash.
    pub phantoms: usize,
    /// Committed, and taken back by a crash of PostgreSQL.
    pub taken_back: usize,
    /// Events of another user or of no writer.
    pub strange: usize,
    /// Handed out a second time: under another id, or after the client had forgotten the id.
    pub twice: usize,
    /// Received after an event that was written when this one had been committed.
    pub disordered: usize,
    /// The reasons of the resets that clients got.
    pub resets: Vec<String>,
    /// Clients of the specification that lost their connection: the events that they miss then do not count.
    pub plain_cuts: usize,
    /// Closes after which a client may not come back.
    pub refusals: usize,
    /// The longest time in which a faithful client got no event.
    pub pause_max: Duration,
    /// From the writer's COMMIT to a faithful client, sorted.
    latencies: Vec<Duration>,
    details: Vec<String>,
}

impl Verdict {
    /// Compares each client's arrivals with the ledger.
    pub fn new(records: &[Record], clients: &[Finished]) -> Self {
        let committed = records.iter().filter(|r| r.outcome == Outcome::Committed);
        let taken_back = records.iter().filter(|r| r.outcome == Outcome::TakenBack);
        let mut verdict = Self {
            events: committed.count(),
            taken_back: taken_back.count(),
            ..Self::default()
        };
        for (number, client) in clients.iter().enumerate() {
            verdict.judge(number, records, client);
        }
        verdict.latencies.sort_unstable();
        verdict
    }

    fn judge(&mut self, number: usize, records: &[Record], client: &Finished) {
        let library = &client.library;
        self.deliveries += library.deliveries;
        self.repeats += library.deliveries - library.arrivals.len();
        self.connects += library.connects;
        for (reason, count) in &library.resets {
            self.resets
                .extend(std::iter::repeat_n(reason.clone(), *count));
        }
        self.strange += library.strange.len();
        let strange = library.strange.iter().take(SHOWN_MAX);
        self.details
            .extend(strange.map(|text| format!("device {number}: {text}")));
        self.twice += library.twice.len();
        let twice = library.twice.iter().take(SHOWN_MAX);
        self.details
            .extend(twice.map(|text| format!("device {number} handed it out twice: {text}")));
        self.refusals += client.refusals.len();
        self.details.extend(client.refusals.iter().cloned());
        let cut_plain = client.habit == Habit::Plain && client.cuts > 0;
        self.plain_cuts += usize::from(cut_plain);

        for (message, record) in records.iter().enumerate() {
            if record.user != library.user || record.outcome != Outcome::Committed {
                continue;
            }
            self.due += 1;
            if !cut_plain && !library.has(message) {
                self.lost += 1;
                self.note(self.lost, || {
                    format!(
                        "device {number} ({:?}) lost {message}: {record:?}",
                        client.habit
                    )
                });
            }
        }
        if !matches!(client.habit, Habit::Restless { .. }) {
            let pauses = library
                .arrivals
                .windows(2)
                .map(|pair| pair[1].at - pair[0].at);
            self.pause_max = self.pause_max.max(pauses.max().unwrap_or_default());
        }
        for arrival in &library.arrivals {
            let record = &records[arrival.message];
            if !matches!(record.outcome, Outcome::Committed | Outcome::LeftBehind) {
                self.phantoms += 1;
                self.note(self.phantoms, || format!("device {number} got {record:?}"));
            }
            if record.user != library.user {
                self.strange += 1;
                self.note(self.strange, || format!("device {number} got {record:?}"));
            }
            let faithful = !matches!(client.habit, Habit::Restless { .. });
            if let Some(ended_at) = record.ended_at.filter(|_| faithful) {
                self.latencies
                    .push(arrival.at.saturating_duration_since(ended_at));
            }
        }
        self.judge_order(number, records, client);
    }

    fn judge_order(&mut self, number: usize, records: &[Record], client: &Finished) {
        let library = &client.library;
        // The earliest end among all that arrived later.
        let mut ended = u64::MAX;
        let mut by = 0;
        for arrival in library.arrivals.iter().rev() {
            if library.refetched.contains(&arrival.message) {
                continue;
            }
            let record = &records[arrival.message];
            if ended < record.started {
                self.disordered += 1;
                self.note(self.disordered, || {
                    format!(
                        "device {number} ({:?}) got {} before {by}, which had been committed when \
                         it was written",
                        client.habit, arrival.message
                    )
                });
            }
            if record.ended < ended {
                (ended, by) = (record.ended, arrival.message);
            }
        }
    }

    fn note(&mut self, so_far: usize, text: impl FnOnce() -> String) {
        if so_far <= SHOWN_MAX {
            self.details.push(text());
        }
    }

    fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        // A position, so never negative and never past the end.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let position = (share * last as f64) as usize;
        self.latencies.get(position).copied().unwrap_or_default()
    }

    /// Panics unless every promise was kept; `resets` says whether they belong to the scenario, and
    /// `cuts` whether a client of the specification may have been cut off.
    pub fn assert_flawless(&self, resets: bool, cuts: bool) {
        assert!(self.events > 0, "nothing was written");
        let kept = self.lost == 0
            && self.phantoms == 0
            && self.strange == 0
            && self.twice == 0
            && self.disordered == 0
            && self.refusals == 0
            && (resets || self.resets.is_empty())
            && (cuts || self.plain_cuts == 0);
        assert!(kept, "{self}");
    }
}

/// The longest that a faithful client waited for an event, of the time after `from`.
pub fn recovered_after(from: Instant, records: &[Record], clients: &[Finished]) -> Duration {
    let faithful = clients
        .iter()
        .filter(|client| !matches!(client.habit, Habit::Restless { .. }));
    faithful
        .flat_map(|client| &client.library.arrivals)
        .filter_map(|arrival| {
            let ended_at = records[arrival.message].ended_at?;
            Some(arrival.at.saturating_duration_since(ended_at.max(from)))
        })
        .max()
        .unwrap_or_default()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |share| self.latency(share).as_secs_f64() * 1_000.0;
        write!(
            f,
            "{} events, {} due, {} deliveries, {} repeats, {} connections; lost {}, phantom {}, \
             strange {}, twice {}, out of causal order {}; latency ms p50 {:.1} p99 {:.1} max {:.0}; \
             longest pause of a client {:.1} s",
            self.events,
            self.due,
            self.deliveries,
            self.repeats,
            self.connects,
            self.lost,
            self.phantoms,
            self.strange,
            self.twice,
            self.disordered,
            ms(0.5),
            ms(0.99),
            ms(1.0),
            self.pause_max.as_secs_f64(),
        )?;
        let reasons: HashSet<&String> = self.resets.iter().collect();
        if !reasons.is_empty() {
            write!(f, "; {} resets {reasons:?}", self.resets.len())?;
        }
        if self.taken_back > 0 {
            write!(f, "; {} taken back by a crash", self.taken_back)?;
        }
        if self.plain_cuts > 0 {
            write!(
                f,
                "; {} clients of the specification cut off",
                self.plain_cuts
            )?;
        }
        for detail in &self.details {
            write!(f, "\n  {detail}")?;
        }
        Ok(())
    }
}
