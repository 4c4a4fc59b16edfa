//! One WebSocket client's life, from the upgrade to the close.
//!
//! A connection is a few pure parts and a loop. The parts decide:
//! - `choice`: which of its user's events the client is sent;
//! - `position`: what has been sent, and which cursor the client may keep;
//! - `deadlines`: when the connection has to act, or end;
//! - `wall_clock`: by which proofs expire;
//! - `revocation`: who holds the connection, and whether a revocation closes it;
//! - `outbox`: what is owed to the socket.
//!
//! The loop (`run`) and the connection's own moves (`client`) carry bytes between the hub, the socket and these
//! parts. `replay` sends what the client has missed, and repairs a lag; `large` sends large events. Nothing here knows HTTP, TLS or
//! PostgreSQL's notifications.

mod choice;
mod client;
mod clock;
mod deadlines;
mod drain;
mod large;
#[cfg(test)]
mod model;
mod moment;
mod outbox;
#[cfg(test)]
mod pair;
mod pending;
mod position;
mod replay;
mod revocation;
mod run;
mod shared;
mod wall_clock;

pub use self::client::Connection;
pub use self::clock::Clock;
pub use self::deadlines::Timeouts;
pub use self::drain::Drain;
pub use self::moment::Moment;
pub use self::pending::{PendingConnection, Since};
pub use self::run::run;
pub use self::shared::Shared;
pub use self::wall_clock::WallClock;
