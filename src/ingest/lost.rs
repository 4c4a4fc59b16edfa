//! Why the listener gives up a connection.

use std::time::Duration;

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
