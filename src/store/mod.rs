//! Everything that is asked of PostgreSQL: every SQL statement of the service stands here or in `sql/`.

mod address;
pub mod attach;
mod blockers;
mod bodies;
mod chunks;
mod control;
mod creation_times;
mod database;
mod deadline;
pub mod demo;
mod devices;
mod error;
pub mod event_shapes;
mod fields;
pub mod hushnet;
mod index;
mod known;
mod leader;
mod locks;
mod log;
mod log_row;
mod log_state;
mod maintenance;
pub mod migrate;
mod migrations;
mod nodes;
mod notifications;
mod plan;
mod probe;
mod reading;
mod rights;
mod schema;
mod session;
mod sources;
pub mod state;
mod stream;
mod streamed_row;
mod triggers;
mod unusable;
mod user_page_statements;
mod user_pages;
mod wake_lock;

pub use self::blockers::Blocker;
pub use self::bodies::RECENT_BYTES_MAX;
pub use self::chunks::{Chunk, ChunkRow, Chunks};
pub use self::control::CONTROL_CHANNEL;
pub use self::creation_times::Logged;
pub use self::database::{
    IDENTITY_CONNECTIONS_MAX, SERVICE_CONNECTIONS_MAX, STREAM_CONNECTIONS_MAX,
};
pub use self::deadline::deadline_passed;
pub use self::devices::Devices;
pub use self::error::{
    fault, is_forbidden, is_lock_not_available, is_undefined, is_undefined_function,
    is_undefined_table, is_without_schema, may_pass, summary,
};
pub use self::fields::Fields;
pub use self::leader::{Candidate, LEADER_IDLE_MAX, LeaderSession, Named};
pub use self::locks::{Blocked, Patience};
pub use self::log::Log;
pub use self::log_row::{Body, LogRow, Parts, skip_unknown};
pub use self::log_state::LogState;
pub use self::maintenance::Rotation;
pub use self::nodes::{Leader, NodeRow, NodeState, Role};
pub use self::notifications::Notifications;
pub use self::plan::Step;
pub use self::reading::{Durability, Reading};
pub use self::rights::{GrantError, MissingRights, Purpose};
pub use self::sources::Source;
pub use self::stream::{RowStream, StreamError, Streamed, Witness, slot_blockers};
pub use self::streamed_row::StreamedRow;
pub use self::triggers::FaultyTrigger;
pub use self::user_pages::{COUNTED_MAX, PAGE_BYTES_MAX, PAGE_EVENTS, Page, UserPages};
pub use self::wake_lock::HeldWakeLock;
