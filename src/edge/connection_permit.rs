//! The permit that a connection holds from its first byte to its last.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{AddressPrefix, Permit};

/// The permit of one connection, among all that may be open, among those of its peer, and among those of the client that
/// a proxy names. Clones share it; it is returned when the last of them is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionPermit(#[allow(dead_code, reason = "held for its drop")] Arc<Permits>);

#[derive(Debug)]
#[allow(dead_code, reason = "held for their drop")]
pub(super) struct Permits {
    pub(super) all: OwnedSemaphorePermit,
    pub(super) peer: Option<Permit<AddressPrefix>>,
    pub(super) client: Option<Permit<AddressPrefix>>,
}

impl ConnectionPermit {
    pub(super) fn new(permits: Permits) -> Self {
        Self(Arc::new(permits))
    }
}
