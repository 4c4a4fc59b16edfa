//! Events that could not be made, and when the clients are reset for them: at once, and then at most every
//! [`INTERVAL`] for each source.
//!
//! Until the last of these resets no client is given a cursor that has seen the failure: one that leaves before it comes
//! back with an older cursor, and the replay from the log finds the failure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two resets for events of one source.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// Sources with an interval of their own. There are more only where sources are replaced all the time.
const SOURCES_MAX: usize = 256;

/// When clients were last reset for a source, and the failures since.
#[derive(Debug)]
struct Failed {
    reset: Instant,
    since: u64,
}

/// The failures of each source in the last [`INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct FailedEvents(BTreeMap<i16, Failed>);

impl FailedEvents {
    /// An event of this source has failed. Returns whether the clients are to be reset at once.
    pub(super) fn failed(&mut self, source: i16, now: Instant) -> bool {
        if let Some(failed) = self.0.get_mut(&source) {
            failed.since += 1;
            return now.saturating_duration_since(failed.reset) >= INTERVAL;
        }
        if self.0.len() < SOURCES_MAX {
            let failed = Failed {
                reset: now,
                since: 1,
            };
            self.0.insert(source, failed);
        }
        true
    }

    /// Whether the clients are to be reset for what has failed in the meantime.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        let mut failed = self.0.values();
        failed.any(|failed| {
            failed.since > 0 && now.saturating_duration_since(failed.reset) >= INTERVAL
        })
    }

    /// The clients have been reset. Returns how many events had failed since the reset before, by source.
    pub(super) fn clients_reset(&mut self, now: Instant) -> Vec<(i16, u64)> {
        let covered = self.0.iter_mut().filter(|(_, failed)| failed.since > 0);
        let covered = covered.map(|(source, failed)| {
            let events = failed.since;
            *failed = Failed {
                reset: now,
                since: 0,
            };
            (*source, events)
        });
        let covered = covered.collect();
        self.0
            .retain(|_, failed| now.saturating_duration_since(failed.reset) < INTERVAL);
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_resets_at_once_and_the_last_at_the_end_of_the_interval() {
        let (mut events, start) = (FailedEvents::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(events.failed(16, at(0)));
        assert_eq!(events.clients_reset(at(0)), [(16, 1)]);
        assert!(!events.failed(16, at(3)) && !events.failed(16, at(9)));
        assert!(events.failed(17, at(9)), "each source has its own interval");
        assert!(!events.are_due(at(9)));
        assert!(events.are_due(at(10)));
        assert_eq!(events.clients_reset(at(10)), [(16, 2), (17, 1)]);
        assert!(!events.are_due(at(30)), "nothing has failed since");
        assert!(!events.failed(16, at(19)));
        assert!(events.failed(16, at(20)), "a late failure resets at once");
        assert_eq!(events.clients_reset(at(20)), [(16, 2)]);
        events.clients_reset(at(40));
        assert!(events.0.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_not_resets_at_once() {
        let (mut events, now) = (FailedEvents::default(), Instant::now());
        for source in 0..1_000 {
            assert!(events.failed(source, now));
        }
        assert_eq!(events.0.len(), SOURCES_MAX);
    }
}
