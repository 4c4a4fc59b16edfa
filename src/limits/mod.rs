//! How much a client may use: open connections, new connections and requests per second, and frames per
//! second on one connection.
//!
//! Everything that is counted is bounded: open connections by `connections_max`, and the rates of addresses
//! and users by a `RateTable`. Knows no HTTP and no WebSocket.

mod address_prefix;
mod allowance;
mod client_limits;
mod connection_quota;
mod large_events;
mod rate;
mod rate_table;
mod replay_pages;
mod write_timeouts;

pub use self::address_prefix::AddressPrefix;
pub use self::allowance::Allowance;
pub use self::client_limits::Limits;
pub(crate) use self::client_limits::RATES_PER_CONNECTION;
pub use self::connection_quota::Permit;
pub use self::large_events::{LARGE_EVENTS_BYTES_MAX, LargePermit};
pub(crate) use self::rate_table::SPARE_RATES;
pub use self::replay_pages::PagePermit;
pub(crate) use self::write_timeouts::write_timeouts;
