//! What the routes are built from.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::config::{AuthMode, Origins};
use crate::connection::Shared;

/// How the page at `/console` is served.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// How its users prove their identity.
    pub auth: AuthMode,
    /// Whether it may act for the demo users.
    pub demo: bool,
}

impl Console {
    /// Whether the page sends messages for the demo users: never where users have to prove an identity.
    pub(super) fn acts(self) -> bool {
        self.demo && self.auth == AuthMode::None
    }
}

/// What bounds the number of open WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketBound {
    /// `connections_max`
    Setting,
    /// The process's limit of open files.
    Descriptors,
}

/// What the routes are built from. Each route keeps only the parts that it uses.
#[derive(Debug, Clone)]
pub struct Api {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Permits of the WebSockets that may be open.
    pub socket_permits: Arc<Semaphore>,
    /// What bounds their number.
    pub socket_bound: SocketBound,
    /// Whether a token may stand in the query.
    pub token_in_query: bool,
    /// The origins of web pages that may connect.
    pub origins: Origins,
    /// Whether requests are served whichever host they name.
    pub any_host: bool,
    /// Whether `/metrics` is served at the clients' address.
    pub metrics: bool,
    /// How the console is served, if it is.
    pub console: Option<Console>,
    /// The tasks of the WebSockets.
    pub tasks: TaskTracker,
}
