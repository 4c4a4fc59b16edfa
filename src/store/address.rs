//! The address of the database, and whether the service may use it.
//!
//! Every connection of the service is made here or by a pool that asks here first. Nothing is SET for a session until
//! a probe of the address has passed (`probe`): behind a pooler the settings would leak into others' sessions. A probe
//! holds until the address may lead elsewhere: the listener's connection is lost, or all connections are given up.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use super::unusable::Unusable;
use super::{probe, session};

/// A probe with the wait for another that is under way.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the last probe has found.
#[derive(Debug, Clone, Copy, Default)]
struct Knowledge {
    /// `None` while it is not known.
    found: Option<Result<(), Unusable>>,
    /// How often what was known has been forgotten. A probe that began before proves nothing of now.
    forgotten: u64,
}

/// The address of one database. Cheap to clone; every clone knows the same of it.
#[derive(Clone)]
pub(super) struct Address {
    options: PgConnectOptions,
    known: Arc<Mutex<Knowledge>>,
    /// Held during a probe: there is one at a time.
    probing: Arc<tokio::sync::Mutex<()>>,
}

impl Address {
    /// Of which nothing is known yet.
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            known: Arc::default(),
            probing: Arc::default(),
        }
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns when a probe has passed.
    ///
    /// # Errors
    /// [`Unusable`], or the database's, or `PoolTimedOut` after [`READY_TIMEOUT`].
    pub(super) async fn ready(&self) -> Result<(), sqlx::Error> {
        if let Some(found) = self.known().found {
            return Ok(found?);
        }
        let probing = async {
            // A caller that waits here need not probe again.
            let _turn = self.probing.lock().await;
            let before = *self.known();
            if let Some(found) = before.found {
                return Ok(found?);
            }
            let found = probe::run(&self.options).await?;
            let mut known = self.known();
            if known.forgotten == before.forgotten {
                known.found = Some(found);
            }
            Ok(found?)
        };
        tokio::time::timeout(READY_TIMEOUT, probing)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// The address may lead elsewhere by now.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        known.found = None;
        known.forgotten += 1;
    }

    /// One of the service's own connections, outside the pools.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.ready().await?;
        let mut connection = self.options.connect().await?;
        session::own(&mut connection).await?;
        Ok(connection)
    }

    fn known(&self) -> MutexGuard<'_, Knowledge> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the options, which have the password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut address = f.debug_struct("Address");
        address.field("known", &*self.known());
        address.finish_non_exhaustive()
    }
}
