//! From the router to the connections: the order of events, who is connected, and the newest events.

mod feed;
mod hub;
pub mod latency;
mod replay_buffer;
mod routed_set;
mod router;

pub use self::feed::{CommitHealth, Feed};
pub use self::hub::{Hub, Subscription};
pub use self::latency::LatencySampler;
pub use self::replay_buffer::{Bounds, Found, ReplayBuffer};
pub use self::router::Router;
