//! The permit that a connection holds from its first byte to its last.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::limits::{AddressPrefix, Permit};

/// The permit of one connection, among all that may be open and among those of its peer. Clones share it; it
/// is returned when the last of them is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionPermit(#[allow(dead_code, reason = "held for its drop")] Arc<Permits>);

#[derive(Debug)]
#[allow(dead_code, reason = "held for their drop")]
struct Permits {
    of_all: OwnedSemaphorePermit,
    of_peer: Option<Permit<AddressPrefix>>,
}

impl ConnectionPermit {
    pub(super) fn new(
        of_all: OwnedSemaphorePermit,
        of_peer: Option<Permit<AddressPrefix>>,
    ) -> Self {
        Self(Arc::new(Permits { of_all, of_peer }))
    }
}
