//! What goes over the wire, and the small types that every other part speaks of.
//!
//! Pure: no I/O, no clock. This is the only module that serializes or parses JSON that a client or
//! a trigger wrote. A notified event is parsed only as far as routing needs it; its text is kept as the
//! database wrote it and shared by every device that gets it. An event of the log is written by the layout of its
//! source. Fails by returning a typed error, never by panicking, whatever the bytes.

mod channel;
mod client_frame;
mod close_code;
mod closed;
mod cursor;
mod database_fault;
mod error_body;
mod event;
mod flat_json;
mod gap;
mod held_bytes;
mod in_log;
mod json;
mod kind;
mod kinds;
mod label;
mod layout;
mod notice;
mod notification;
mod readiness;
mod recipient;
mod refusal;
mod repair_cause;
mod reset_reason;
mod secret;
mod sequence;
mod shard;
mod signal;
mod skipped_row;
mod stream_fault;
#[cfg(test)]
mod tests;
mod trailer;
mod trigger_fault;
mod user;
mod xid;

pub use self::channel::{
    CHANNEL_BYTES_MAX, CHANNELS_MAX, Channel, Channels, HUSHNET_CHANNELS, is_own_channel,
};
pub use self::client_frame::{Answer, ClientFrame};
pub use self::close_code::CloseCode;
pub use self::closed::Closed;
pub use self::cursor::{Cursor, Epoch, NotACursor, Snapshot};
pub use self::database_fault::DatabaseFault;
pub use self::error_body::{ErrorBody, RETRY_AFTER};
pub use self::event::{EVENT_BYTES_MAX, Encoding, Event};
pub use self::gap::Gap;
pub use self::held_bytes::{Held, HeldBytes};
pub use self::in_log::{INLINE_BYTES_MAX, InLog, LARGE_BYTES_MAX};
pub use self::kind::{KIND_BYTES_MAX, KINDS_MAX, Kind, NotKinds, WantedKinds, is_reserved};
pub use self::kinds::Kinds;
pub use self::label::Label;
pub use self::layout::{Layout, NotALayout, Op};
pub use self::notice::Notice;
pub use self::notification::{MalformedEvent, Notification, Subject, is_asynchronous};
pub use self::readiness::{Readiness, ReadinessReason};
pub use self::recipient::Recipient;
pub use self::refusal::{AuthError, Limit, Refusal};
pub use self::repair_cause::RepairCause;
pub use self::reset_reason::ResetReason;
pub use self::secret::Secret;
pub use self::sequence::Sequence;
pub use self::shard::{SHARDS, Shard, ShardSet};
pub use self::signal::{Reset, Revocation, Signal};
pub use self::skipped_row::SkippedRow;
pub use self::stream_fault::StreamFault;
pub use self::trigger_fault::TriggerFault;
pub use self::user::{NotAUser, USER_BYTES_MAX, UserKey, UserType, is_text};
pub use self::xid::Xid;
