//! The state of the rates by key, in bounded memory.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use governor::nanos::Nanos;
use governor::state::StateStore;

/// Keys that are held beyond one for each connection that may be open.
pub(crate) const SPARE_RATES: usize = 65_536;
/// Between two searches for keys that may be forgotten.
const SWEEP_MIN: Duration = Duration::from_secs(1);

/// One rate for each key. A key is forgotten only when its rate is unspent again and a new key needs the
/// room. While there is no room, all keys that are not in the table share one rate: a flood of new keys
/// never takes the rate of a key that is known.
pub(super) struct RateTable<K: Hash + Eq> {
    known: DashMap<K, RateState>,
    known_max: usize,
    /// Shared by the keys that are not in the table.
    others: RateState,
    start: Instant,
    swept: Mutex<Option<Instant>>,
}

/// When a key's rate will be unspent again, as nanoseconds since the limiter began; 0 for unspent.
#[derive(Debug, Default)]
struct RateState(AtomicU64);

impl RateState {
    fn measure<T, E>(
        &self,
        decide: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let mut found = self.0.load(Relaxed);
        loop {
            let known = (found > 0).then(|| Nanos::from(found));
            let (outcome, next) = decide(known)?;
            let exchanged = self
                .0
                .compare_exchange_weak(found, next.as_u64(), Relaxed, Relaxed);
            match exchanged {
                Ok(_) => return Ok(outcome),
                Err(changed) => found = changed,
            }
        }
    }
}

impl<K: Hash + Eq + Clone> RateTable<K> {
    /// An empty table for at most `known_max` keys.
    pub(super) fn new(known_max: usize) -> Self {
        Self {
            known: DashMap::new(),
            known_max,
            others: RateState::default(),
            start: Instant::now(),
            swept: Mutex::new(None),
        }
    }

    /// Whether there is room for one more key; forgets the keys whose rate is unspent if there is none.
    fn has_room(&self) -> bool {
        if self.known.len() < self.known_max {
            return true;
        }
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|at| at.elapsed() < SWEEP_MIN) {
            return false;
        }
        *swept = Some(Instant::now());
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.known.retain(|_, state| state.0.load(Relaxed) > now);
        self.known.len() < self.known_max
    }
}

impl<K: Hash + Eq + Clone> StateStore for RateTable<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(state) = self.known.get(key) {
            return state.measure(decide);
        }
        if self.has_room() {
            return self.known.entry(key.clone()).or_default().measure(decide);
        }
        self.others.measure(decide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spends a key's rate until the given time after the limiter began.
    fn spend(table: &RateTable<u32>, key: u32, until: Duration) {
        let until = Nanos::from(u64::try_from(until.as_nanos()).unwrap());
        let spent: Result<(), ()> = table.measure_and_replace(&key, |_| Ok(((), until)));
        spent.unwrap();
    }

    /// When the key's rate will be unspent, in nanoseconds.
    fn state_of(table: &RateTable<u32>, key: u32) -> Option<u128> {
        let seen: Result<(), Option<Nanos>> = table.measure_and_replace(&key, Err);
        seen.unwrap_err().map(|nanos| nanos.as_u64().into())
    }

    const LATER: Duration = Duration::from_hours(1);

    #[test]
    fn a_full_table_keeps_every_key_that_still_counts() {
        let table = RateTable::new(100);
        for key in 0..100 {
            spend(&table, key, LATER + Duration::from_nanos(key.into()));
        }
        for key in 1_000..10_000 {
            spend(&table, key, LATER * 2);
        }
        assert_eq!(table.known.len(), 100);
        for key in 0..100 {
            let spent = LATER.as_nanos() + u128::from(key);
            assert_eq!(state_of(&table, key), Some(spent));
        }
    }

    #[test]
    fn keys_without_room_share_one_rate() {
        let table = RateTable::new(1);
        spend(&table, 0, LATER);
        spend(&table, 1, LATER * 2);
        assert_eq!(state_of(&table, 2), state_of(&table, 3));
        assert_eq!(state_of(&table, 2), Some((LATER * 2).as_nanos()));
    }

    #[test]
    fn a_key_whose_rate_is_unspent_makes_room() {
        let table = RateTable::new(10);
        for key in 0..10 {
            spend(&table, key, Duration::from_nanos(1));
        }
        spend(&table, 10, LATER);
        assert_eq!(table.known.len(), 1);
        assert!(table.known.contains_key(&10));
    }

    #[test]
    fn a_refusal_spends_nothing() {
        let table = RateTable::new(1);
        spend(&table, 0, LATER);
        let refused: Result<(), ()> = table.measure_and_replace(&0, |_| Err(()));
        assert!(refused.is_err());
        assert_eq!(state_of(&table, 0), Some(LATER.as_nanos()));
    }
}
