//! Rates: so many per second on average, and as many at once.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Instant;

use governor::clock::{Clock, MonotonicClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};

use super::rate_table::RateTable;
use crate::protocol::{Limit, Refusal};

/// One rate for all clients together.
pub(super) type Rate = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;
/// One rate for each key.
pub(super) type KeyedRate<K> = RateLimiter<K, RateTable<K>, MonotonicClock>;

pub(super) fn rate(per_second: u32) -> Rate {
    Rate::new(quota(per_second), InMemoryState::default(), MonotonicClock)
}

/// The rate of each key, of which at most `keys_max` are held.
pub(super) fn keyed_rate<K: Hash + Eq + Clone>(per_second: u32, keys_max: usize) -> KeyedRate<K> {
    KeyedRate::new(quota(per_second), RateTable::new(keys_max), MonotonicClock)
}

/// The refusal of a client that has exceeded a rate.
pub(super) fn exceeded(limit: Limit, until: &NotUntil<Instant>) -> Refusal {
    Refusal {
        limit,
        retry_after: until.wait_time_from(MonotonicClock.now()),
    }
}

fn quota(per_second: u32) -> Quota {
    Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN))
}
