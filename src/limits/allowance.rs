//! The rate of the frames that one connection sends.

use std::time::{Duration, Instant};

/// The frames that one connection may yet send: so many per second on average, and as many at once. Smaller
/// than the rate limiter of the library, since every connection holds one.
#[derive(Debug, Default)]
pub struct Allowance {
    /// When every frame that was taken will have been earned again.
    earned_at: Option<Instant>,
}

impl Allowance {
    /// Takes one frame; `false` if that exceeds `per_second`.
    pub fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let each = Duration::from_secs(1) / per_second.max(1);
        let earned_at = self.earned_at.map_or(now, |at| at.max(now)) + each;
        let allowed = earned_at.duration_since(now) <= Duration::from_secs(1);
        if allowed {
            self.earned_at = Some(earned_at);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// For rates and pauses of all sizes: no second has more than twice the rate (the burst, and what is
    /// earned meanwhile).
    #[test]
    fn an_allowance_is_never_exceeded() {
        for seed in 0..200_u64 {
            let mut rng = StdRng::seed_from_u64(seed);
            let per_second = rng.random_range(1..200_u32);
            let longest_us = rng.random_range(1..200_000_u64);
            let mut allowance = Allowance::default();
            let mut now = Instant::now();
            let mut granted = VecDeque::new();
            for _ in 0..2_000 {
                now += Duration::from_micros(rng.random_range(0..=longest_us));
                if allowance.take(per_second, now) {
                    granted.push_back(now);
                }
                while granted
                    .front()
                    .is_some_and(|at| now - *at >= Duration::from_secs(1))
                {
                    granted.pop_front();
                }
                assert!(granted.len() <= 2 * per_second as usize, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_client_that_keeps_to_the_rate_is_never_refused() {
        for per_second in 1..200_u32 {
            let mut allowance = Allowance::default();
            let mut now = Instant::now();
            let each =
                Duration::from_secs(1).div_f64(f64::from(per_second)) + Duration::from_nanos(1);
            for _ in 0..2_000 {
                now += each;
                assert!(allowance.take(per_second, now), "{per_second}/s");
            }
        }
    }

    #[test]
    fn a_burst_is_as_large_as_the_rate() {
        for per_second in [1, 2, 30, 199] {
            let mut allowance = Allowance::default();
            let now = Instant::now();
            let taken = (0..1_000).filter(|_| allowance.take(per_second, now));
            assert_eq!(taken.count(), per_second as usize);
        }
    }
}
