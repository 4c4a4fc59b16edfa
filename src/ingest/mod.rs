//! What turns commits into events: the listener, and what it knows of the database's state.

mod arrivals;
pub mod auto;
mod awaiting_disk;
mod barriers;
mod bus_intake;
mod catch_up;
mod control_message;
#[cfg(test)]
mod driven;
mod failed_events;
mod failures;
mod following;
mod held;
mod ingest_choice;
pub mod injector;
mod intake;
mod joining;
mod leader_watch;
mod listener;
mod lost;
mod node;
mod outstanding;
mod presents;
mod repair;
mod resets;
mod schedule;
mod shard_times;
mod sources_doubt;
mod statement;
mod stream;
mod streaming;
pub mod wake_lock;
mod wants;
mod without_id;

pub use self::awaiting_disk::AWAITING_DISK_BYTES_MAX;
pub use self::barriers::Barriers;
pub use self::control_message::{BareBarrierState, BarrierState, ControlMessage};
#[cfg(test)]
pub(crate) use self::driven::Driven;
pub use self::held::HELD_BYTES_MAX;
pub use self::listener::Listener;
pub use self::node::{Node, NodeParts};
pub use self::stream::{STREAM_BYTES_MAX, StreamTask};
pub use self::streaming::JOINING_BYTES_MAX;
pub use self::without_id::WITHOUT_ID_BYTES_MAX;
