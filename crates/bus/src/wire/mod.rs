//! The protocols, without a socket: bytes in, bytes out.

mod contract;
mod nats;
mod redis;

pub(crate) use self::contract::{Incoming, Wire};
pub(crate) use self::nats::{NatsInfo, NatsWire};
pub(crate) use self::redis::RedisWire;
