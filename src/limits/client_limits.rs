//! Every limit on the connections and requests of clients.

use std::fmt::{self, Debug};
use std::net::IpAddr;
use std::sync::Arc;

use super::address_prefix::AddressPrefix;
use super::connection_quota::{ConnectionQuota, Permit, QuotaBounds};
use super::large_events::{LargeEvents, LargePermit};
use super::rate::{KeyedRate, Rate, exceeded, keyed_rate, rate};
use super::rate_table::SPARE_RATES;
use super::replay_pages::{PagePermit, ReplayPages};
use crate::config::LimitSettings;
use crate::protocol::{Limit, Refusal, UserKey};

/// Connections of an address beyond its WebSockets, for other requests.
const REQUESTS_PER_ADDRESS_MAX: u32 = 64;

/// Tables of rates and of open connections, each of which may have an entry for a connection.
pub(crate) const RATES_PER_CONNECTION: usize = 7;

/// The limits on clients of one server.
pub struct Limits {
    settings: LimitSettings,
    /// New connections of all users together.
    connections: Rate,
    requests: KeyedRate<AddressPrefix>,
    replay_pages: ReplayPages,
    large_events: LargeEvents,
    peers: Arc<ConnectionQuota<AddressPrefix>>,
    addresses: Arc<ConnectionQuota<AddressPrefix>>,
    users: Arc<ConnectionQuota<UserKey>>,
}

impl Limits {
    /// Limits as these settings say, with no client connected. Pages of missed events are read over
    /// `database_pool_size` connections.
    #[must_use]
    pub fn new(settings: &LimitSettings, database_pool_size: u32) -> Self {
        let keys_max = settings.connections_max as usize + SPARE_RATES;
        let by_address = |open_max, per_second| {
            let bounds = QuotaBounds {
                open_max,
                open_limit: Limit::AddressOpen,
                per_second,
                rate_limit: Limit::AddressRate,
            };
            Arc::new(ConnectionQuota::new(bounds, keys_max))
        };
        let of_users = QuotaBounds {
            open_max: settings.connections_per_user_max,
            open_limit: Limit::UserOpen,
            per_second: settings.connections_per_second_per_user,
            rate_limit: Limit::UserRate,
        };
        Self {
            connections: rate(settings.connections_per_second),
            requests: keyed_rate(settings.requests_per_second_per_address, keys_max),
            replay_pages: ReplayPages::new(settings.replay_pages_per_second, database_pool_size),
            large_events: LargeEvents::default(),
            peers: by_address(
                settings
                    .connections_per_address_max
                    .saturating_add(REQUESTS_PER_ADDRESS_MAX),
                peer_rate(settings),
            ),
            addresses: by_address(
                settings.connections_per_address_max,
                settings.connections_per_second_per_address,
            ),
            users: Arc::new(ConnectionQuota::new(of_users, keys_max)),
            settings: settings.clone(),
        }
    }

    /// Counts one more connection of any kind from this peer until the permit is dropped; asked before a
    /// byte is read. `None` for a peer that is not limited, or that is a trusted proxy.
    ///
    /// # Errors
    /// [`Refusal`] when the peer has more connections open than its WebSockets and some requests can need,
    /// or connects far more often than it may.
    pub fn admit_peer(&self, peer: IpAddr) -> Result<Option<Permit<AddressPrefix>>, Refusal> {
        if self.settings.trusted_proxies.contain(peer) {
            return Ok(None);
        }
        self.admit_by_address(&self.peers, peer)
    }

    /// Counts one more WebSocket from this address until the permit is dropped. `None` for an address that
    /// is not limited.
    ///
    /// # Errors
    /// [`Refusal`] when the address has too many open, or too many in this second.
    pub fn admit_address(&self, address: IpAddr) -> Result<Option<Permit<AddressPrefix>>, Refusal> {
        self.admit_by_address(&self.addresses, address)
    }

    fn admit_by_address(
        &self,
        quota: &Arc<ConnectionQuota<AddressPrefix>>,
        address: IpAddr,
    ) -> Result<Option<Permit<AddressPrefix>>, Refusal> {
        if self.settings.unlimited_addresses.contain(address) {
            return Ok(None);
        }
        quota.admit(address.into()).map(Some)
    }

    /// Counts one more request from this address that queries the database and is not for a WebSocket.
    ///
    /// # Errors
    /// [`Refusal`] when there are too many in this second.
    pub fn admit_request(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.settings.unlimited_addresses.contain(address) {
            return Ok(());
        }
        self.requests
            .check_key(&address.into())
            .map_err(|until| exceeded(Limit::AddressRate, &until))
    }

    /// Counts one more connection of this user until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal`] when the user has too many open, or too many in this second, or when too many users
    /// connect in this second.
    pub fn admit_user(&self, user: UserKey) -> Result<Permit<UserKey>, Refusal> {
        let permit = self.users.admit(user)?;
        // Last: a connection that its address or user may not have takes nothing from the other users.
        match self.connections.check() {
            Ok(()) => Ok(permit),
            Err(until) => Err(exceeded(Limit::Rate, &until)),
        }
    }

    /// Waits until one more page of missed events may be read from the log; the permit is held meanwhile. The first
    /// page of a replay does not wait behind later ones.
    pub async fn replay_page(&self, is_first: bool) -> PagePermit<'_> {
        self.replay_pages.next(is_first).await
    }

    /// Waits until a connection may hold a large event of so many bytes; the permit is held until that is with the kernel.
    pub async fn large_event(&self, bytes: usize) -> LargePermit<'_> {
        self.large_events.hold(bytes).await
    }

    /// Waits until a large event may be read from the log. A connection to the database is left to first pages.
    pub async fn large_read(&self) -> PagePermit<'_> {
        self.replay_pages.read().await
    }
}

impl Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Connections per second that are accepted from one peer: those that may become WebSockets, as many again
/// that are refused with an answer, and those for reads of state. More get no answer.
fn peer_rate(settings: &LimitSettings) -> u32 {
    settings
        .connections_per_second_per_address
        .saturating_mul(2)
        .saturating_add(settings.requests_per_second_per_address)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn limits(change: impl FnOnce(&mut LimitSettings)) -> Limits {
        let mut settings = crate::config::Config::default().limits;
        settings.unlimited_addresses = "".parse().unwrap();
        change(&mut settings);
        Limits::new(&settings, 4)
    }

    fn user() -> UserKey {
        uuid::Uuid::new_v4().into()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Calls until one is refused. Returns how many were not, and the limit that was met.
    fn until_refused<T>(mut admit: impl FnMut() -> Result<T, Refusal>) -> (usize, Limit) {
        let mut held = Vec::new();
        loop {
            match admit() {
                Ok(permit) => held.push(permit),
                Err(refusal) => return (held.len(), refusal.limit),
            }
        }
    }

    #[test]
    fn an_address_and_a_user_have_so_many_connections_open() {
        let limits = limits(|settings| {
            settings.connections_per_address_max = 2;
            settings.connections_per_user_max = 3;
        });
        let client = address("192.0.2.7");
        let met = until_refused(|| limits.admit_address(client));
        assert_eq!(met, (2, Limit::AddressOpen));
        assert!(limits.admit_address(address("192.0.2.8")).is_ok());
        assert!(limits.admit_address(client).is_ok());

        let user_id = user();
        let met = until_refused(|| limits.admit_user(user_id));
        assert_eq!(met, (3, Limit::UserOpen));
        assert!(limits.admit_user(user()).is_ok());
        assert!(limits.admit_user(user_id).is_ok());
    }

    #[test]
    fn a_peer_may_connect_as_often_as_its_sockets_refusals_and_reads_need() {
        let limits = limits(|settings| {
            settings.connections_per_address_max = 1_000_000;
            settings.connections_per_second_per_address = 10;
            settings.requests_per_second_per_address = 5;
        });
        let (admitted, limit) = until_refused(|| limits.admit_peer(address("192.0.2.7")));
        assert!(admitted >= 25, "{admitted}");
        assert_eq!(limit, Limit::AddressRate);
        assert!(limits.admit_peer(address("192.0.2.8")).is_ok());
    }

    #[test]
    fn a_peer_may_open_some_connections_beyond_its_websockets() {
        let limits = limits(|settings| {
            settings.connections_per_address_max = 2;
            settings.connections_per_second_per_address = 1_000_000;
        });
        let (open, limit) = until_refused(|| limits.admit_peer(address("192.0.2.7")));
        assert_eq!(open, 2 + REQUESTS_PER_ADDRESS_MAX as usize);
        assert_eq!(limit, Limit::AddressOpen);
    }

    #[test]
    fn requests_of_an_address_have_a_rate() {
        let limits = limits(|settings| settings.requests_per_second_per_address = 5);
        let (admitted, limit) = until_refused(|| limits.admit_request(address("192.0.2.7")));
        assert!(admitted >= 5, "{admitted}");
        assert_eq!(limit, Limit::AddressRate);
        assert!(limits.admit_request(address("192.0.2.8")).is_ok());
    }

    #[test]
    fn unlimited_addresses_and_trusted_proxies_are_not_counted() {
        let limits = limits(|settings| {
            settings.connections_per_address_max = 1;
            settings.requests_per_second_per_address = 1;
            settings.unlimited_addresses = "127.0.0.0/8, ::1".parse().unwrap();
            settings.trusted_proxies = "10.0.0.0/8".parse().unwrap();
        });
        for _ in 0..5 {
            for unlimited in ["127.0.0.1", "127.9.9.9", "::1"] {
                let unlimited = address(unlimited);
                assert!(limits.admit_address(unlimited).unwrap().is_none());
                assert!(limits.admit_peer(unlimited).unwrap().is_none());
                assert!(limits.admit_request(unlimited).is_ok());
            }
            assert!(limits.admit_peer(address("10.0.0.1")).unwrap().is_none());
        }
        assert!(limits.admit_address(address("10.0.0.1")).unwrap().is_some());
    }

    #[test]
    fn a_user_that_connects_too_often_takes_nothing_from_the_others() {
        let limits = limits(|settings| {
            settings.connections_per_second = 100;
            settings.connections_per_second_per_user = 5;
        });
        let begun = Instant::now();
        let flood = user();
        let refused = (0..10_000)
            .filter_map(|_| limits.admit_user(flood).err())
            .inspect(|refusal| assert_eq!(refusal.limit, Limit::UserRate))
            .count();
        // The burst, and what is earned while the machine takes its time.
        let earned = 5.0 * begun.elapsed().as_secs_f64();
        assert!((10_000 - refused) as f64 <= 5.0 + earned + 1.0, "{refused}");
        for _ in 0..75 {
            limits.admit_user(user()).unwrap();
        }
        let (_, limit) = until_refused(|| limits.admit_user(user()));
        assert_eq!(limit, Limit::Rate);
    }
}
