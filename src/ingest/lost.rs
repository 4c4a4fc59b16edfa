//! Why the listener gives up a connection.

use std::time::Duration;

use crate::store;

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("barriers no longer came back")]
    Dead,
    #[error("the log was not read within {} s", .0.as_secs())]
    ReadTimeout(Duration),
}

impl Lost {
    /// The reason in one line that anyone may read.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Database(error) => store::summary(error),
            other => other.to_string(),
        }
    }
}
