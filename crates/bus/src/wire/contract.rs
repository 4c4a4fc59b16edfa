//! What a session needs of a protocol.

use bytes::{Buf, Bytes};

use crate::error::{BusCause, BusError};
use crate::outbound::PUBLISH_BYTES_MAX;
use crate::subject::Subject;

/// The longest message that is taken from the broker, with its head: longer than any that a node can publish.
pub(crate) const FRAME_BYTES_MAX: usize = PUBLISH_BYTES_MAX + 64 * 1024;

/// What the broker has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Message {
        subject: Subject,
        payload: Bytes,
    },
    /// The subscription is confirmed.
    Subscribed(Subject),
    /// The broker has ended a subscription that it was not asked to end.
    Unsubscribed(Subject),
    /// The answer to [`Wire::ping`].
    Pong,
}

/// A client's end of a protocol after the login.
pub(crate) trait Wire: Send {
    /// What is to be written.
    type Out: Buf + Send;

    /// Writes a message.
    fn publish(&mut self, subject: &Subject, payload: Bytes);

    /// Ends and makes subscriptions, in this order. While [`Wire::is_confirming`] it may not be called.
    fn change(&mut self, unsubscribe: &[Subject], subscribe: Vec<Subject>);

    /// Whether some of the last change is not confirmed.
    fn is_confirming(&self) -> bool;

    /// Asks for a [`Incoming::Pong`]. One at a time.
    fn ping(&mut self);

    /// What is to be written; what is written is to be advanced over.
    fn outgoing(&mut self) -> &mut Self::Out;

    /// Takes what was read.
    fn feed(&mut self, bytes: &[u8]);

    /// What comes next of the bytes that were fed; `None` until more are fed.
    ///
    /// # Errors
    ///
    /// The connection is of no more use.
    fn next(&mut self) -> Result<Option<Incoming>, BusError>;
}

/// Counts the bytes of a message that has not come whole, so that it is held up to [`FRAME_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    bytes: usize,
}

impl Unfinished {
    pub(super) fn fed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
    }

    /// A whole message was found: what is left is of another, and at most what was fed last.
    pub(super) fn finished(&mut self) {
        self.bytes = 0;
    }

    /// No whole message was found.
    pub(super) fn check(&self) -> Result<(), BusError> {
        if self.bytes <= FRAME_BYTES_MAX {
            return Ok(());
        }
        let detail = format!("a message from the broker is longer than {FRAME_BYTES_MAX} bytes");
        Err(BusError::new(BusCause::PayloadTooLarge, detail))
    }
}

/// Longest beginning of what a server has sent that is shown.
const SHOWN_BYTES_MAX: usize = 60;

/// The error of a login whose answer is not of the protocol.
pub(super) fn wrong_protocol(expected: &str, received: &[u8]) -> BusError {
    // A TLS record of the type alert.
    if received.starts_with(&[0x15, 0x03]) {
        let detail = "the server expects TLS on this port";
        return BusError::new(BusCause::Tls, detail);
    }
    let found = if received.starts_with(b"INFO {") {
        "a NATS server"
    } else if received.starts_with(b"+PONG") || received.starts_with(b"-NOAUTH") {
        "a Redis server"
    } else if received.starts_with(b"HTTP/") {
        "an HTTP server"
    } else {
        "another server"
    };
    let shown = &received[..received.len().min(SHOWN_BYTES_MAX)];
    let shown = shown.escape_ascii();
    let detail = format!("{found} answers where {expected} was expected: {shown}");
    BusError::new(BusCause::WrongProtocol, detail)
}
