//! One WebSocket client's life, from the upgrade to the close.

mod client;
mod clock;
mod drain;
mod lifetime;
mod replay;
mod turn;

pub use self::client::{Connection, Seat, Shared};
pub use self::clock::{Clock, Moment};
pub use self::drain::Drain;
pub(crate) use self::replay::REPLAYED_MAX;
