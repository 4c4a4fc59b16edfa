//! The connections of each key: how many are open, and how many come per second.

use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::rate::{KeyedRate, exceeded, keyed_rate};
use crate::protocol::{Limit, Refusal};

/// The time after which a client that has all its connections open may try again. The server does not know when
/// the client will close one.
const RETRY_AFTER_OPEN: Duration = Duration::from_secs(10);

/// What a [`ConnectionQuota`] allows each key.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotaBounds {
    /// Connections that may be open.
    pub(super) open_max: u32,
    /// The limit that is met when they are.
    pub(super) open_limit: Limit,
    /// New connections per second.
    pub(super) per_second: u32,
    /// The limit that is met when more come.
    pub(super) rate_limit: Limit,
}

/// Counts the connections of each key.
pub(super) struct ConnectionQuota<K: Hash + Eq + Clone> {
    open: DashMap<K, u32>,
    rate: KeyedRate<K>,
    bounds: QuotaBounds,
}

impl<K: Hash + Eq + Clone> ConnectionQuota<K> {
    /// No connection is open. The rates of at most `keys_max` keys are held.
    pub(super) fn new(bounds: QuotaBounds, keys_max: usize) -> Self {
        Self {
            open: DashMap::new(),
            rate: keyed_rate(bounds.per_second, keys_max),
            bounds,
        }
    }

    /// Counts one more connection of this key until the permit is dropped.
    pub(super) fn admit(self: &Arc<Self>, key: K) -> Result<Permit<K>, Refusal> {
        self.rate
            .check_key(&key)
            .map_err(|until| exceeded(self.bounds.rate_limit, &until))?;
        let mut open = self.open.entry(key.clone()).or_insert(0);
        if *open >= self.bounds.open_max {
            return Err(Refusal {
                limit: self.bounds.open_limit,
                retry_after: RETRY_AFTER_OPEN,
            });
        }
        *open += 1;
        drop(open);
        Ok(Permit {
            quota: Arc::clone(self),
            key,
        })
    }
}

impl<K: Hash + Eq + Clone> Debug for ConnectionQuota<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionQuota")
            .field("open", &self.open.len())
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// A connection that counts against its key's quota until this is dropped.
#[derive(Debug)]
pub struct Permit<K: Hash + Eq + Clone> {
    quota: Arc<ConnectionQuota<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Drop for Permit<K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.quota.open.entry(self.key.clone()) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNLIMITED: u32 = 1_000_000;

    fn quota(open_max: u32, per_second: u32) -> Arc<ConnectionQuota<u8>> {
        let bounds = QuotaBounds {
            open_max,
            open_limit: Limit::UserOpen,
            per_second,
            rate_limit: Limit::UserRate,
        };
        Arc::new(ConnectionQuota::new(bounds, 100))
    }

    #[test]
    fn a_key_may_have_so_many_connections_open_until_one_is_dropped() {
        let quota = quota(2, UNLIMITED);
        let first = quota.admit(7).unwrap();
        let second = quota.admit(7).unwrap();
        let refusal = quota.admit(7).unwrap_err();
        assert_eq!(refusal.limit, Limit::UserOpen);
        assert_eq!(refusal.retry_after, RETRY_AFTER_OPEN);
        let other = quota.admit(8).unwrap();
        drop(first);
        let third = quota.admit(7).unwrap();
        assert!(quota.admit(7).is_err());
        drop((second, third, other));
        assert!(
            quota.open.is_empty(),
            "a key without connections is not held"
        );
    }

    #[test]
    fn a_key_that_exceeds_its_rate_is_told_when_to_come_back() {
        let quota = quota(UNLIMITED, 5);
        let mut held = Vec::new();
        let refusal = loop {
            match quota.admit(7) {
                Ok(permit) => held.push(permit),
                Err(refusal) => break refusal,
            }
        };
        assert!(held.len() >= 5, "{}", held.len());
        assert_eq!(refusal.limit, Limit::UserRate);
        assert!(refusal.retry_after <= Duration::from_millis(200));
        assert!(quota.admit(8).is_ok());
    }
}
