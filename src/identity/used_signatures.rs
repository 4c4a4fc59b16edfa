//! The signatures that have been used: each is accepted once. Pure: the caller says what time it is.

use std::collections::HashSet;
use std::mem;
use std::time::{Duration, Instant};

use super::lookup::LOOKUP_TIMEOUT;
use super::signed_time::SignedSecond;
use crate::protocol::AuthError;

/// The seconds that have been used, for as long as a signature of them could be verified again.
///
/// They stand in two generations. The older generation is forgotten when the younger one becomes the
/// older, so each second is remembered for one lifetime of a generation or longer.
#[derive(Debug)]
pub(super) struct UsedSignatures {
    /// How long a signature can be offered after it was accepted.
    lifetime: Duration,
    /// In one generation.
    signatures_max: usize,
    current: HashSet<SignedSecond>,
    previous: HashSet<SignedSecond>,
    rotated: Instant,
}

impl UsedSignatures {
    /// For signatures whose time may be off by `window`, either way.
    pub(super) fn new(window: Duration, signatures_max: usize, now: Instant) -> Self {
        Self {
            // A signature from the future is good for twice the window from now on, and it may then
            // wait for its device to be looked up.
            lifetime: 2 * window + LOOKUP_TIMEOUT,
            signatures_max,
            current: HashSet::new(),
            previous: HashSet::new(),
            rotated: now,
        }
    }

    /// Accepts a signed second, once. When the memory is full, new ones are refused: to forget one
    /// would allow its use again.
    pub(super) fn accept(&mut self, second: SignedSecond, now: Instant) -> Result<(), AuthError> {
        if now.duration_since(self.rotated) > self.lifetime {
            self.previous = mem::take(&mut self.current);
            self.rotated = now;
        }
        if self.previous.contains(&second) || self.current.contains(&second) {
            return Err(AuthError::SignatureReplayed);
        }
        if self.current.len() >= self.signatures_max {
            return Err(AuthError::Unavailable);
        }
        self.current.insert(second);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);
    /// Twice the window, and the time of a look-up.
    const OFFERED_SECONDS: u64 = 70;

    fn of(key: u8, second: u64) -> SignedSecond {
        ([key; 32], second)
    }

    #[test]
    fn a_signature_is_accepted_once() {
        let now = Instant::now();
        let mut used = UsedSignatures::new(WINDOW, 10, now);
        used.accept(of(1, 1_000), now).unwrap();
        assert_eq!(
            used.accept(of(1, 1_000), now),
            Err(AuthError::SignatureReplayed)
        );
        used.accept(of(1, 1_001), now).unwrap();
        used.accept(of(2, 1_000), now).unwrap();
    }

    #[test]
    fn when_full_it_refuses_new_ones_and_forgets_none() {
        let now = Instant::now();
        let mut used = UsedSignatures::new(WINDOW, 2, now);
        used.accept(of(1, 1_000), now).unwrap();
        used.accept(of(1, 1_001), now).unwrap();
        assert_eq!(used.accept(of(1, 1_002), now), Err(AuthError::Unavailable));
        assert_eq!(
            used.accept(of(1, 1_001), now),
            Err(AuthError::SignatureReplayed)
        );
    }

    #[test]
    fn a_signature_is_remembered_for_as_long_as_it_can_be_offered() {
        // At whatever time of a generation it is first used, and however often others are used after it.
        for first_use in 0..=2 * OFFERED_SECONDS {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut used = UsedSignatures::new(WINDOW, 1_000, start);
            used.accept(of(1, 1_000), at(first_use)).unwrap();
            for later in first_use..=first_use + OFFERED_SECONDS {
                used.accept(of(2, later), at(later)).unwrap();
                assert_eq!(
                    used.accept(of(1, 1_000), at(later)),
                    Err(AuthError::SignatureReplayed),
                    "used at {first_use} s and again at {later} s"
                );
            }
        }
    }

    #[test]
    fn the_memory_of_old_signatures_is_freed() {
        let start = Instant::now();
        let mut used = UsedSignatures::new(WINDOW, 1, start);
        for generation in 0..4 {
            let now = start + Duration::from_secs(generation * (OFFERED_SECONDS + 1));
            used.accept(of(1, generation), now).unwrap();
            assert!(used.previous.len() + used.current.len() <= 2);
        }
    }
}
