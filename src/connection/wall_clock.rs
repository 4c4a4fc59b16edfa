//! The wall clock, by which proofs expire. It is set by hand or from the network, and goes on while the machine is
//! suspended; the process's own time does neither.

use std::fmt;
use std::time::{Duration, SystemTime};

/// A difference that counts as a change. Less of it is left to a clock that is being slewed.
const CHANGE: Duration = Duration::from_millis(500);

/// Where the wall clock is read.
pub struct WallClock(Box<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    /// Reads it there.
    #[must_use]
    pub fn new(read: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }

    /// The time of the wall clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// What the wall clock would show if it had gone on as the process's own time.
#[derive(Debug)]
pub(super) struct Expected {
    wall: SystemTime,
    at: Duration,
}

impl Expected {
    /// The wall clock shows this, when so much of the process's time has passed.
    pub(super) fn new(wall: SystemTime, at: Duration) -> Self {
        Self { wall, at }
    }

    /// Whether the wall clock has been changed, or the machine was suspended, since it was last asked. It is then
    /// expected to go on from here.
    pub(super) fn has_changed(&mut self, wall: SystemTime, at: Duration) -> bool {
        let passed = at.saturating_sub(self.at);
        let expected = self.wall.checked_add(passed).unwrap_or(wall);
        let apart = wall
            .duration_since(expected)
            .unwrap_or_else(|behind| behind.duration());
        let has_changed = apart >= CHANGE;
        if has_changed {
            *self = Self::new(wall, at);
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_jump_is_seen_once_in_either_direction_and_a_slewed_clock_when_it_is_half_a_second_off() {
        let begun = SystemTime::UNIX_EPOCH + seconds(1_000_000);
        let mut expected = Expected::new(begun, seconds(10));
        let mut seen = |wall, at| expected.has_changed(wall, at);
        assert!(!seen(begun + seconds(5), seconds(15)));
        // Suspended for an hour.
        assert!(seen(begun + seconds(3_605), seconds(15)));
        assert!(!seen(begun + seconds(3_606), seconds(16)));
        assert!(seen(begun - seconds(50), seconds(17)), "set back");
        assert!(!seen(begun - seconds(49), seconds(18)));
        for tenth in 1..10 {
            let slewed = begun - seconds(49) + Duration::from_millis(tenth * 100);
            assert_eq!(seen(slewed, seconds(18)), tenth == 5, "{tenth}");
        }
    }
}
