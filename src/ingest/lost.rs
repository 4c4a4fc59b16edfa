//! Why the listener gives up a connection.

use crate::nodes::Run;
use crate::protocol::DatabaseFault;
use crate::store;

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("barriers no longer come back, or cannot be written")]
    Dead,
    /// A leader publishes, and this node follows.
    #[error("another node leads")]
    Follow(Run),
    #[error("the bus brings events of a later timeline")]
    NewerTimeline,
}

impl Lost {
    /// Why, in the database's terms.
    pub(super) fn fault(&self) -> DatabaseFault {
        match self {
            Self::Database(error) => store::fault(error),
            Self::Closed | Self::Dead | Self::Follow(_) | Self::NewerTimeline => {
                DatabaseFault::Unreachable
            }
        }
    }

    /// The reason in one line that anyone may read.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Database(error) => store::summary(error),
            other => other.to_string(),
        }
    }
}
