//! HTTP: the routes, which requests are admitted, and what they are answered with. Knows no SQL.
//!
//! `routes` puts the routes together. Each route is a file: `upgrade` (WebSockets), `state` (reads of state),
//! `probes` (health and metrics) and `console`. `admission` holds the checks that a request passes first, and
//! `error` and `reply` the answer to a request that does not pass. WebSockets are upgraded by hand: a
//! connection then costs a small buffer instead of warp's large one.

mod admission;
mod api;
mod console;
mod credentials;
mod error;
mod handshake;
mod origin;
mod probes;
mod readiness;
mod reply;
mod request;
mod routes;
mod state;
mod upgrade;

pub use self::admission::RESPONSE_PERMITS_MAX;
pub use self::api::{Api, Console, SocketBound};
pub use self::routes::{operator_routes, routes};
