//! Messages between nodes, over Redis (PUBLISH and SUBSCRIBE) or NATS (core subjects).
//!
//! Knows nothing of what the messages say. [`open`] returns a [`Bus`] to publish and subscribe with, [`BusEvents`] to
//! receive from, and the driver: a future that holds the connection, and that the caller runs as a task.
//!
//! # The contract, the same over both brokers
//!
//! - **A message may be lost, and is never promised.** [`Bus::publish`] never waits. A message that it has taken is lost
//!   with the connection.
//! - **Messages of one subject that one node has published come in the order in which they were published**, or do not
//!   come. There is one connection for all subjects, and its messages come in the order in which the broker sent them.
//! - **After [`BusEvent::Subscribed`]** every message that this node's server takes for the subject comes, until
//!   [`BusEvent::Gap`] or [`BusEvent::Disconnected`]. Of a NATS cluster, what another server takes may be missing without a
//!   word: its route is cut, or it has not learnt of the subscription yet. Whoever needs to know numbers the messages.
//!   Messages of a subject may come before its `Subscribed`, and, since they were queued, for a moment after
//!   [`Bus::unsubscribe`].
//! - A node receives also what it has published itself, if it is subscribed to the subject.
//! - The driver connects for ever: after each failure it waits 100 ms to 5 s. It makes all subscriptions again.
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | messages that wait to be published | [`PUBLISH_BYTES_MAX`]; more are refused |
//! | messages that wait for [`BusEvents::next`] | [`INBOUND_BYTES_MAX`]; more are dropped, and a `Gap` says so |
//! | other events that wait | `CONTROL_EVENTS_MAX`; the driver neither connects nor subscribes before there is room |
//! | a message on its way in | `FRAME_BYTES_MAX`; a longer one ends the connection |
//! | subjects | [`SUBJECTS_MAX`] |
//! | a connection attempt | `CONNECT_MAX`, 5 s, for TCP, TLS and login together |
//! | a broker that does not answer | `SILENCE_MAX`, 2 s after a ping, which is sent each second |
//!
//! # Why it is built on codecs
//!
//! The protocols are those of `redis-protocol`, on which `fred` is built, and `watermelon-proto`: codecs that own no
//! socket. The clients that are built on such codecs were read, and have no bound where one is needed:
//!
//! | client | what it holds | what it does not tell |
//! |---|---|---|
//! | `redis` 1.8, `aio::PubSub` | requests and messages in unbounded channels; it reads the socket as fast as it can | why the connection ended |
//! | `redis` 1.8, `MultiplexedConnection` | nothing of pushes: they go to the caller's channel or function | it would do, but publishing waits for the answers, or for a task for each batch |
//! | `async-nats` 0.51 | for each subscription 65,536 messages of any size; it never leaves the socket unread. 2,048 commands, which are kept while it is disconnected and published late. 128 events | the broker's confirmation: its `flush` ends when the bytes are written, not at a PONG. Why the connection ended. Drops and violations of permissions, when 128 events wait |
//!
//! With `async-nats` each subscription is a channel, so that the order across subjects is lost, too.
//!
//! What follows from it here: NATS is asked for its version 0 of the protocol, which sends INFO once; a message's
//! payload is copied out of the read buffer, so that a kept message keeps only itself.
//!
//! # Other topologies
//!
//! `servers.rs` alone knows which addresses there are. Redis Sentinel would ask another address for it there; in a Redis
//! Cluster each node carries what is published with PUBLISH, so that any of them is the broker.
//!
//! The files, each of which uses only those above it:
//!
//! | file | subject |
//! |---|---|
//! | `subject.rs` | [`Subject`] |
//! | `error.rs` | [`BusError`], [`BusCause`]: what went wrong, and what the operator can do |
//! | `url.rs` | [`BusUrl`] |
//! | `event.rs` | [`BusEvent`], [`GapCause`] |
//! | `inbound.rs` | the queue of events |
//! | `outbound.rs` | the queue of messages, and the subjects that are wanted |
//! | `handle.rs` | [`Bus`], [`BusEvents`] |
//! | `tls.rs` | [`TlsSettings`] |
//! | `transport.rs` | TCP and TLS |
//! | `wire/` | the protocols, without a socket |
//! | `login.rs` | from the socket to a connection that is logged in |
//! | `liveness.rs` | pings, and when a broker is silent |
//! | `backoff.rs` | how long to wait before the next attempt |
//! | `servers.rs` | the address of the next attempt |
//! | `session.rs` | one connection's life |
//! | `driver.rs` | [`open`] |

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod backoff;
mod driver;
mod error;
mod event;
mod handle;
mod inbound;
mod liveness;
mod login;
mod outbound;
mod servers;
mod session;
mod subject;
mod tls;
mod transport;
mod url;
mod wire;

pub use self::driver::open;
pub use self::error::{BusCause, BusError};
pub use self::event::{BusEvent, GapCause};
pub use self::handle::{Bus, BusEvents};
pub use self::inbound::INBOUND_BYTES_MAX;
pub use self::outbound::{Dropped, PUBLISH_BYTES_MAX, SUBJECTS_MAX};
pub use self::subject::{SUBJECT_BYTES_MAX, Subject, SubjectError};
pub use self::tls::TlsSettings;
pub use self::url::{Broker, BusUrl, BusUrlError};
