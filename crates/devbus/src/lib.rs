//! Private brokers for tests: Redis or NATS, each in a directory of its own, on a port of its own of 127.0.0.1.
//!
//! A [`BrokerServer`] keeps nothing: a restart is empty, on the same port. It can be killed, frozen and continued. It
//! never outlives its test: a shell kills it when the test's end of a pipe closes, and the kernel closes that end however
//! the test ends.
//!
//! A [`BrokerProxy`] stands between nodes and a broker: it drops, repeats, delays and swaps single messages by a seed, cuts
//! connections, and freezes them, also in one direction only.
//!
//! A [`NatsCluster`] is three NATS servers, whose routes can be cut while their clients stay connected. A [`RedisPair`] is a
//! Redis and its replica, whose places an operator changes by hand.
//!
//! Must never: listen on another address, use a service that runs on this machine, keep data. A failed start is reported
//! with the last lines of the server's log.
//!
//! The files, each of which uses only those above it:
//!
//! | file | subject |
//! |---|---|
//! | `error.rs` | [`BrokerError`] |
//! | `options.rs` | [`BrokerKind`], [`BrokerOptions`], and the servers' configuration files |
//! | `port.rs` | ports that nobody else takes |
//! | `supervisor.rs` | the shell that kills the server when the test ends |
//! | `server.rs` | [`BrokerServer`] |
//! | `frames/` | what a broker sends, cut into single messages and the rest |
//! | `faults.rs` | [`Faults`]: what happens to single messages |
//! | `proxy.rs` | [`BrokerProxy`] |
//! | `cluster.rs` | [`NatsCluster`] |
//! | `redis_pair.rs` | [`RedisPair`] |

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod cluster;
mod error;
mod faults;
mod frames;
mod options;
mod port;
mod proxy;
mod redis_pair;
mod server;
mod supervisor;

pub use self::cluster::NatsCluster;
pub use self::error::BrokerError;
pub use self::faults::{FaultCounts, Faults};
pub use self::options::{BrokerKind, BrokerOptions, BrokerTls};
pub use self::proxy::{BrokerProxy, Direction};
pub use self::redis_pair::RedisPair;
pub use self::server::BrokerServer;
