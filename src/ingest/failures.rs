//! Which of the barriers that fail are logged. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

use enum_map::EnumMap;

use crate::protocol::DatabaseFault;

/// A fault that lasts is logged once in this time.
const LOGGED_EVERY: Duration = Duration::from_mins(1);

/// The barriers that have failed one after another.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u64,
    /// When each fault was last logged. Kept when barriers commit again: faults that come and go are logged no more
    /// often than those that last.
    logged: EnumMap<DatabaseFault, Option<Instant>>,
    /// Whether one of those since the last commit was logged.
    is_logged: bool,
}

impl Failures {
    /// A barrier has failed. Returns how many have since the last commit, if that is to be logged.
    pub(super) fn add(&mut self, fault: DatabaseFault, now: Instant) -> Option<u64> {
        self.count += 1;
        let logged = &mut self.logged[fault];
        let is_due = logged.is_none_or(|at| now.saturating_duration_since(at) >= LOGGED_EVERY);
        if !is_due {
            return None;
        }
        *logged = Some(now);
        self.is_logged = true;
        Some(self.count)
    }

    /// A barrier has committed. Returns how many have failed before, if that was logged.
    pub(super) fn end(&mut self) -> Option<u64> {
        let count = std::mem::take(&mut self.count);
        std::mem::take(&mut self.is_logged).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DatabaseFault::{ReadOnly, Undefined};

    #[test]
    fn a_fault_is_logged_when_it_begins_and_once_a_minute_while_it_lasts() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let seconds = Duration::from_secs;
        assert_eq!(failures.end(), None);
        for second in 0..60 {
            let logged = failures.add(Undefined, start + seconds(second));
            assert_eq!(logged, (second == 0).then_some(1), "{second}");
        }
        assert_eq!(failures.add(Undefined, start + seconds(60)), Some(61));
        assert_eq!(failures.add(Undefined, start + seconds(61)), None);
        assert_eq!(
            failures.add(ReadOnly, start + seconds(61)),
            Some(63),
            "another fault"
        );
        assert_eq!(failures.end(), Some(63));
        assert_eq!(failures.end(), None);
    }

    #[test]
    fn faults_that_come_and_go_are_logged_no_more_often() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut lines = 0;
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            let fault = if second % 4 < 2 { Undefined } else { ReadOnly };
            lines += usize::from(failures.add(fault, now).is_some());
            lines += usize::from(failures.end().is_some());
        }
        assert_eq!(
            lines, 8,
            "two faults, two minutes, a beginning and an end of each"
        );
    }
}
