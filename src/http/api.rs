//! What the routes serve from.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::config::{AuthMode, Networks, Origins};
use crate::connection::Shared;

/// Answers with state that are held at once, each until the client has taken it. One that takes nothing
/// loses its connection after [`accept`]'s `TCP_USER_TIMEOUT`.
pub const ANSWERS_MAX: usize = 256;

/// How the page at `/console` is served.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// The proof of identity that the page has to ask for.
    pub auth: AuthMode,
    /// Whether the page may act for the demo users.
    pub demo: bool,
}

impl Console {
    /// Whether the page sends messages for the demo users: never where users have to prove an identity.
    pub(super) fn acts(self) -> bool {
        self.demo && self.auth == AuthMode::None
    }
}

/// What the routes serve from.
#[derive(Debug, Clone)]
pub struct Api {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Places for WebSockets.
    pub places: Arc<Semaphore>,
    /// Places for answers with state; [`ANSWERS_MAX`] of them.
    pub answers: Arc<Semaphore>,
    /// Whether a token may stand in the query.
    pub token_in_query: bool,
    /// Proxies that say for whom they come.
    pub trusted_proxies: Networks,
    /// Web pages that may connect.
    pub origins: Origins,
    /// The page to look at, if it is served.
    pub console: Option<Console>,
    /// The WebSockets.
    pub tasks: TaskTracker,
}

/// Shared, since a clone of each of its parts would be made at every request.
pub(super) fn with_api(
    api: &Api,
) -> impl Filter<Extract = (Arc<Api>,), Error = Infallible> + Clone + use<> {
    let api = Arc::new(api.clone());
    warp::any().map(move || Arc::clone(&api))
}
