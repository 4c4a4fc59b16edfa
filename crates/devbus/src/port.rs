//! Ports that nobody else takes.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::error::BrokerError;

/// Below the ports that Linux gives out by itself, so that no connection takes the port while its server is down.
const PORTS: Range<u16> = 20_000..32_000;
const ATTEMPTS_MAX: usize = 1000;

/// A port on which nobody listens.
pub(crate) fn free() -> Result<u16, BrokerError> {
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(BrokerError::NoPort)
}
