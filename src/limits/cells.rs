//! The state of the rates by key, in bounded memory.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use governor::nanos::Nanos;
use governor::state::StateStore;

/// Keys that are held beyond one for each connection that may be open.
pub(crate) const SPARE: usize = 65_536;
/// Between two searches for keys that may be forgotten.
const SWEEP_MIN: Duration = Duration::from_secs(1);

/// One rate for each key. A key whose rate is unspent again is forgotten when its place is needed; while
/// none is, all that are not in the table share one rate.
pub(super) struct Cells<K: Hash + Eq> {
    known: DashMap<K, Cell>,
    known_max: usize,
    others: Cell,
    start: Instant,
    swept: Mutex<Option<Instant>>,
}

/// When a key's rate will be unspent again, as nanoseconds since the limiter began; 0 for unspent.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
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

impl<K: Hash + Eq + Clone> Cells<K> {
    pub(super) fn new(known_max: usize) -> Self {
        Self {
            known: DashMap::new(),
            known_max,
            others: Cell::default(),
            start: Instant::now(),
            swept: Mutex::new(None),
        }
    }

    /// Whether there is a place for one more.
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
        self.known.retain(|_, cell| cell.0.load(Relaxed) > now);
        self.known.len() < self.known_max
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl<K: Hash + Eq + Clone> StateStore for Cells<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(cell) = self.known.get(key) {
            return cell.measure(decide);
        }
        if self.has_room() {
            return self.known.entry(key.clone()).or_default().measure(decide);
        }
        self.others.measure(decide)
    }
}
