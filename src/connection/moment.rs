//! A time of this process, in milliseconds. Pure: it is compared and added to, and never read from a clock here.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::Duration;

/// A time of this process, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// Before every other moment.
    pub const NEVER_YET: Self = Self(NonZeroU64::MIN);

    /// The moment this long after [`Moment::NEVER_YET`].
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(ms))
    }

    /// Milliseconds since [`Moment::NEVER_YET`].
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// The time from `earlier` to this moment; nothing if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_counts_milliseconds_from_the_first_one() {
        let (earlier, later) = (Moment::from_millis(7), Moment::from_millis(12));
        assert_eq!(Moment::from_millis(0), Moment::NEVER_YET);
        assert_eq!((earlier.as_millis(), later.as_millis()), (7, 12));
        assert_eq!(earlier + Duration::from_millis(5), later);
        assert_eq!(later.since(earlier), Duration::from_millis(5));
        assert_eq!(earlier.since(later), Duration::ZERO);
        assert!(later < later + Duration::MAX);
    }
}
