//! Why the service could not run, or did not end well.

use std::io;
use std::net::SocketAddr;

use super::supervisor::TaskEnded;
use crate::config::ConfigError;

/// Why the service could not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is missing or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The limit of open files leaves nothing for clients.
    #[error(
        "the limit of {limit} open files leaves none for clients: the service itself needs {reserved}; \
         raise it to {wanted} with ulimit -n, or LimitNOFILE= under systemd"
    )]
    NoDescriptors {
        /// The process's limit.
        limit: u64,
        /// The descriptors that no client is given.
        reserved: u64,
        /// The limit under which `connections_max` fit.
        wanted: u64,
    },
    /// An address other than the clients' cannot be served on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The setting `metrics_listen`, or a benchmark's.
        address: SocketAddr,
        /// The operating system's answer.
        cause: io::Error,
    },
    /// A task ended that the service cannot do without.
    #[error(transparent)]
    Task(#[from] TaskEnded),
    /// Some tasks had not ended when the time was over; they were aborted.
    #[error("{tasks} tasks had not ended {deadline_ms} ms after the signal to stop")]
    DrainDeadline {
        /// How many.
        tasks: usize,
        /// The setting `drain_deadline_ms`.
        deadline_ms: u32,
    },
}
