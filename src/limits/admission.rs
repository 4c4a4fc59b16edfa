//! How much a client may: connections from one address and of one user, how many of them in a second,
//! and what one connection may send.
//!
//! Everything that is counted is bounded: open connections by `connections_max`, and the rates of
//! addresses and users by a table ([`cells`]). Nobody in it is forgotten for somebody else's sake: when
//! it is full, those who are not in it share one rate. Knows no HTTP and no WebSocket.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::clock::{Clock, MonotonicClock};
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ipnet::Ipv6Net;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::cells::{self, Cells};
use crate::config::LimitSettings;
use crate::protocol::{Limit, Refusal};

/// Of an IPv6 address, what one customer of a network has.
const IPV6_PREFIX: u8 = 64;

/// Connections of an address beyond its WebSockets, for requests that are none.
const REQUESTS_PER_ADDRESS_MAX: u32 = 64;

/// Tables of rates and of open connections, each of which may have an entry for a connection.
pub(crate) const RATES_PER_CONNECTION: usize = 7;

/// Who counts as one: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbourhood(IpAddr);

impl From<IpAddr> for Neighbourhood {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Net::new(address, IPV6_PREFIX)
                .map_or(address, |network| network.network())
                .into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The limits on connections of one server.
pub struct Limits {
    settings: LimitSettings,
    all: Rate,
    requests: Rates<Neighbourhood>,
    replay_pages: Rate,
    /// Who waits for a page, one after another.
    replay_turn: Mutex<()>,
    peers: Arc<Gate<Neighbourhood>>,
    addresses: Arc<Gate<Neighbourhood>>,
    users: Arc<Gate<Uuid>>,
}

impl Limits {
    /// Nobody is connected.
    #[must_use]
    pub fn new(settings: &LimitSettings) -> Self {
        let tracked = settings.connections_max as usize + cells::SPARE;
        Self {
            all: rate(settings.connections_per_second),
            requests: Rates::new(
                quota(settings.requests_per_second_per_address),
                Cells::new(tracked),
                MonotonicClock,
            ),
            replay_pages: rate(settings.replay_pages_per_second),
            replay_turn: Mutex::new(()),
            peers: Arc::new(Gate::new(
                settings
                    .connections_per_address_max
                    .saturating_add(REQUESTS_PER_ADDRESS_MAX),
                peer_rate(settings),
                tracked,
            )),
            addresses: Arc::new(Gate::new(
                settings.connections_per_address_max,
                settings.connections_per_second_per_address,
                tracked,
            )),
            users: Arc::new(Gate::new(
                settings.connections_per_user_max,
                settings.connections_per_second_per_user,
                tracked,
            )),
            settings: settings.clone(),
        }
    }

    /// One more connection of any kind from this peer, before it has said anything; held until it is
    /// closed. `None` for a peer that is not counted, or that comes for others.
    ///
    /// # Errors
    /// [`Refusal`] when it has more than its WebSockets and some requests can need, or comes far more often
    /// than it may.
    pub fn admit_peer(&self, peer: IpAddr) -> Result<Option<Admitted<Neighbourhood>>, Refusal> {
        if self.settings.unlimited_addresses.contain(peer)
            || self.settings.trusted_proxies.contain(peer)
        {
            return Ok(None);
        }
        self.peers
            .admit(peer.into(), Limit::AddressOpen, Limit::AddressRate)
            .map(Some)
    }

    /// One more WebSocket from this address; held until it is closed. `None` for an address that is not
    /// counted.
    ///
    /// # Errors
    /// [`Refusal`] when there are too many, or too many in this second.
    pub fn admit_address(
        &self,
        address: IpAddr,
    ) -> Result<Option<Admitted<Neighbourhood>>, Refusal> {
        if self.settings.unlimited_addresses.contain(address) {
            return Ok(None);
        }
        self.addresses
            .admit(address.into(), Limit::AddressOpen, Limit::AddressRate)
            .map(Some)
    }

    /// One more request from this address that asks the database and is no WebSocket.
    ///
    /// # Errors
    /// [`Refusal`] when there are too many in this second.
    pub fn admit_request(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.settings.unlimited_addresses.contain(address) {
            return Ok(());
        }
        let checked = self.requests.check_key(&address.into());
        checked.map_err(|until| Refusal {
            limit: Limit::AddressRate,
            retry_after: until.wait_time_from(MonotonicClock.now()),
        })
    }

    /// One more connection of this user; held until it is closed.
    ///
    /// # Errors
    /// [`Refusal`] when there are too many, or too many in this second, of this user's or of all.
    pub fn admit_user(&self, user_id: Uuid) -> Result<Admitted<Uuid>, Refusal> {
        let admitted = self
            .users
            .admit(user_id, Limit::UserOpen, Limit::UserRate)?;
        // Last: what one address or user may not have, it does not take from the others.
        match self.all.check() {
            Ok(()) => Ok(admitted),
            Err(until) => Err(Refusal {
                limit: Limit::Rate,
                retry_after: until.wait_time_from(MonotonicClock.now()),
            }),
        }
    }

    /// Waits until one more page of missed events may be read from the log, in the order of asking.
    pub async fn replay_page(&self) {
        let _turn = self.replay_turn.lock().await;
        while let Err(until) = self.replay_pages.check() {
            tokio::time::sleep(until.wait_time_from(MonotonicClock.now())).await;
        }
    }
}

impl Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The rate of all together.
type Rate = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;
/// The rates of many.
type Rates<K> = RateLimiter<K, Cells<K>, MonotonicClock>;

/// How long a client waits that has as many connections open as it may: until it has closed one.
const RETRY_AFTER_OPEN: Duration = Duration::from_secs(10);

/// The connections of each key: how many are open, and how many came lately.
struct Gate<K: Hash + Eq + Clone> {
    open: DashMap<K, u32>,
    open_max: u32,
    rate: Rates<K>,
}

impl<K: Hash + Eq + Clone + Debug> Gate<K> {
    fn new(open_max: u32, per_second: u32, tracked: usize) -> Self {
        Self {
            open: DashMap::new(),
            open_max,
            rate: Rates::new(quota(per_second), Cells::new(tracked), MonotonicClock),
        }
    }

    fn admit(
        self: &Arc<Self>,
        key: K,
        open_limit: Limit,
        rate_limit: Limit,
    ) -> Result<Admitted<K>, Refusal> {
        self.rate.check_key(&key).map_err(|until| Refusal {
            limit: rate_limit,
            retry_after: until.wait_time_from(MonotonicClock.now()),
        })?;
        let mut open = self.open.entry(key.clone()).or_insert(0);
        if *open >= self.open_max {
            return Err(Refusal {
                limit: open_limit,
                retry_after: RETRY_AFTER_OPEN,
            });
        }
        *open += 1;
        drop(open);
        Ok(Admitted {
            gate: Arc::clone(self),
            key,
        })
    }
}

impl<K: Hash + Eq + Clone> Debug for Gate<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("open", &self.open.len())
            .field("open_max", &self.open_max)
            .finish_non_exhaustive()
    }
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Admitted<K: Hash + Eq + Clone> {
    gate: Arc<Gate<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Drop for Admitted<K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.gate.open.entry(self.key.clone()) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

fn rate(per_second: u32) -> Rate {
    Rate::new(quota(per_second), InMemoryState::default(), MonotonicClock)
}

/// Connections of a peer in a second: those that it may open, as many again that are told so, and those for
/// its reads of state. More are not worth an answer.
fn peer_rate(settings: &LimitSettings) -> u32 {
    settings
        .connections_per_second_per_address
        .saturating_mul(2)
        .saturating_add(settings.requests_per_second_per_address)
}

/// So many in a second on the average, and as many at once.
fn quota(per_second: u32) -> Quota {
    Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN))
}

/// What one connection may send: so many frames in a second on the average, and as many at once. By
/// itself smaller than a limiter of the library, since every connection has one.
#[derive(Debug, Default)]
pub struct Allowance {
    /// When all that was taken will have been earned again.
    earned_at: Option<Instant>,
}

impl Allowance {
    /// Takes one; `false` if that is more than `per_second` admits.
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
#[path = "tests.rs"]
mod tests;
