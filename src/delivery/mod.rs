//! From the router to the connections: the order of events, who is connected, and the newest events.

mod feed;
mod health;
mod hub;
mod interest;
pub mod latency;
mod relay;
mod replay_buffer;
mod routed_set;
mod router;
mod served_shards;

pub use self::feed::{Feed, HealthReport};
pub use self::health::Finding;
pub use self::hub::{Hub, Subscription};
pub use self::interest::Interest;
pub use self::latency::LatencySampler;
pub use self::relay::Relay;
pub use self::replay_buffer::{
    Bounds, FORGOTTEN_BYTES_MAX, Found, ReplayBuffer, SEGMENT_BYTES_MAX,
};
pub use self::router::{HELD_EVENTS_BYTES_MAX, ROUTED_BYTES_MAX, Router, SEGMENT_MIN};
pub use self::served_shards::ServedShards;
