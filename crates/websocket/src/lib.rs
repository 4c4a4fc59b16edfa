//! A server's end of a WebSocket (RFC 6455), over any stream of bytes.
//!
//! | file | what it owns |
//! |---|---|
//! | `handshake.rs` | which request asks for a WebSocket, and the response that opens it |
//! | `frame.rs` | the frames that a server sends |
//! | `decoder.rs` | a client's frames and messages, from its bytes |
//! | `write_buffer.rs` | the frames of one socket that the kernel has not taken |
//! | `readiness.rs` | whether a socket may have bytes to read |
//! | `socket.rs` | one socket: reads, writes, answers pings, closes |
//! | `close_queue.rs` | how many sockets are closed at the same time |
//! | `growth.rs` | how buffers grow without passing their bound |
//!
//! `handshake`, `frame`, `decoder`, `write_buffer` and `growth` are pure: no I/O, no clock.
//!
//! The crate must never know what a message means, who the peer is, or why the service closes a connection:
//! no event, no metric, no close code other than those that the caller passes. It holds no buffer for a
//! socket that is silent in both directions, and never more for a socket than
//! [`SocketLimits::held_bytes_max`].
//!
//! It fails with [`HandshakeError`] before a socket exists, and afterwards with [`Ended`], which says whether
//! the peer, the network or a violation of the protocol has ended the connection. It never panics, whatever
//! the peer sends.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod close_queue;
mod decoder;
mod frame;
mod growth;
mod handshake;
mod readiness;
mod socket;
#[cfg(test)]
mod testing;
mod write_buffer;

pub use self::close_queue::CloseQueue;
pub use self::decoder::{Decoder, Incoming, Violation};
pub use self::frame::Frame;
pub use self::handshake::{Handshake, HandshakeError};
pub use self::socket::{Close, Ended, Socket, SocketEvent, SocketLimits, Stream};
