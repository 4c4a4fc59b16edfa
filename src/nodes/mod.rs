//! Many nodes over one bus: one of them, the leader, reads the log and publishes what it routes; the others, the followers,
//! route what the bus brings, and the log repairs what the bus loses.

mod election;
mod follower;
mod link;
mod message;
mod orders;
mod presence;
mod publisher;
mod publishing;
mod status;

pub use self::election::{Election, StepDown};
pub use self::follower::{Follower, HELD_BATCHES_BYTES_MAX, Verdict};
pub use self::link::{Incoming, Link};
pub use self::message::{
    Items, MESSAGE_BYTES_MAX, Message, Numbers, Published, Run, Unreadable, VERSION,
    VERSION_OLDEST, read,
};
pub use self::orders::{Order, Orders};
pub use self::presence::Presence;
pub use self::publisher::{Destination, OPEN_BATCHES_BYTES_MAX, Publisher};
pub use self::publishing::{MARK_INTERVAL, Publishing, is_silence};
pub use self::status::Status;
