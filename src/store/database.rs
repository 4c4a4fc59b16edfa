//! Connections to the database, in three pools: requests of clients never keep the service from its own work, and no
//! replay keeps a client from proving who it is.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};

use super::address::Address;
use super::control;
use super::session;
use super::unusable::Unusable;
use crate::protocol::Kinds;

/// Time that a query may wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections for the service's own work.
const OWN_CONNECTIONS_MAX: u32 = 3;
/// Connections for look-ups of identities. They are short, and one of them may be of many connections together.
pub const IDENTITY_CONNECTIONS_MAX: u32 = 4;
const LISTENER_CONNECTIONS: u32 = 1;
const WAKE_LOCK_CONNECTIONS: u32 = 1;
/// The one that asks whether the database is reachable.
const REACH_CONNECTIONS: u32 = 1;
/// The two sessions of a probe; there is one probe at a time.
const PROBE_CONNECTIONS: u32 = 2;
/// The stream of the write-ahead log, and the one that asks what is visible; only with a credential for replication.
pub const STREAM_CONNECTIONS_MAX: u32 = 2;
/// Connections beside those for requests and for look-ups of identities.
pub const SERVICE_CONNECTIONS_MAX: u32 = OWN_CONNECTIONS_MAX
    + LISTENER_CONNECTIONS
    + WAKE_LOCK_CONNECTIONS
    + REACH_CONNECTIONS
    + PROBE_CONNECTIONS;
/// The database is unreachable when a new connection has not answered by then.
const REACH_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct Pools {
    own: PgPool,
    requests: PgPool,
    identity: PgPool,
}

impl Pools {
    fn new(address: &Address, requests_max: u32) -> Self {
        Self {
            own: pool(address, OWN_CONNECTIONS_MAX),
            requests: pool(address, requests_max),
            identity: pool(address, IDENTITY_CONNECTIONS_MAX),
        }
    }
}

/// The connections to one database. Cheap to clone; every clone uses the same connections.
#[derive(Debug, Clone)]
pub(super) struct Database {
    address: Address,
    requests_max: u32,
    pools: Arc<RwLock<Pools>>,
    kinds: Arc<Kinds>,
}

impl Database {
    /// Connects when first needed; for requests of clients, up to `requests_max` times.
    pub(super) fn new(options: PgConnectOptions, requests_max: u32) -> Self {
        let address = Address::new(options);
        let pools = Pools::new(&address, requests_max);
        Self {
            address,
            requests_max,
            pools: Arc::new(RwLock::new(pools)),
            kinds: Arc::default(),
        }
    }

    /// The kinds of events that are known by name.
    pub(super) fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds)
    }

    /// Where the connections lead.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    fn pools(&self) -> Pools {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.clone()
    }

    /// The connections for the service's own work: barriers, the listener's reads, maintenance.
    pub(super) fn own(&self) -> PgPool {
        self.pools().own
    }

    /// The connections for requests of clients.
    pub(super) fn requests(&self) -> PgPool {
        self.pools().requests
    }

    /// The connections for look-ups of identities.
    pub(super) fn identity(&self) -> PgPool {
        self.pools().identity
    }

    /// Gives up all connections and begins with new ones: in a network that swallows packets, the old
    /// ones may hang for as long as the kernel retries. Queries that wait for a connection fail. Idle
    /// connections end at once, the others with their query.
    pub(super) fn renew(&self) {
        self.address.forget();
        let fresh = Pools::new(&self.address, self.requests_max);
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *pools, fresh);
        drop(pools);
        // `close` closes the pool when it is called; its future would only wait for the last query.
        drop((old.own.close(), old.requests.close(), old.identity.close()));
    }

    /// Closes all connections, and waits for their queries.
    pub(super) async fn close(&self) {
        let pools = self.pools();
        tokio::join!(
            pools.own.close(),
            pools.requests.close(),
            pools.identity.close()
        );
    }

    /// What [`super::Log::reach`] does. Sets nothing for the session.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) async fn reach(&self) -> Result<bool, sqlx::Error> {
        let ask = async {
            let mut connection = self.address.options().connect().await?;
            control::awaits_lock(&mut connection).await
        };
        tokio::time::timeout(REACH_TIMEOUT, ask)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

fn pool(address: &Address, connections_max: u32) -> PgPool {
    let probed = address.clone();
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            let probed = probed.clone();
            Box::pin(async move {
                match probed.ready().await {
                    // sqlx would try again until the time for a connection is over, and log each time.
                    Err(error) if Unusable::of(&error).is_some() => std::future::pending().await,
                    probed => probed?,
                }
                session::own(connection).await
            })
        })
        .connect_lazy_with(address.options().clone())
}
