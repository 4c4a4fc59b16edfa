//! The protocols, without a socket: bytes in, bytes out.

mod contract;
mod nats;
mod redis;
#[cfg(test)]
mod tests;

pub(crate) use self::contract::{Incoming, Wire};
pub(crate) use self::nats::{NatsInfo, NatsWire};
pub(crate) use self::redis::RedisWire;
