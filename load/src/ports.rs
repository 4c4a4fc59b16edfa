//! Where connections come from: loopback addresses and ports in turn.
//!
//! The kernel could choose the ports. But closed connections leave theirs in `TIME_WAIT` for a minute, and
//! among tens of thousands of those it takes the kernel milliseconds to find a free one, which would be
//! told as the server's slowness. Taken in turn, a port comes again only after all others.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use rand::RngExt;
use socket2::{Domain, Socket, Type};

/// Linux's own choice of ports for clients.
const FIRST_PORT: u16 = 32_768;
const PORTS: u64 = 60_999 - 32_768 + 1;
/// Ports that others may have taken in a row.
const ATTEMPTS_MAX: usize = 1_000;
/// An `EINPROGRESS`, for which `ErrorKind` has no stable name.
const IN_PROGRESS: i32 = 115;

#[derive(Debug)]
pub(crate) struct Ports {
    addresses: u8,
    /// How many have been taken, from a place where an earlier run hardly was.
    taken: u64,
}

impl Ports {
    /// Of 127.0.0.2 and the addresses after it, so many; with a single one the kernel chooses.
    pub(crate) fn new(addresses: u8) -> Self {
        Self {
            addresses,
            taken: rand::rng().random_range(0..PORTS * u64::from(addresses.max(1))),
        }
    }

    /// Begins a connection to `server`.
    pub(crate) fn connect(&mut self, server: SocketAddr) -> io::Result<TcpStream> {
        if self.addresses < 2 || !server.is_ipv4() {
            return begin(None, server);
        }
        let mut error = io::Error::from(ErrorKind::AddrNotAvailable);
        for _ in 0..ATTEMPTS_MAX {
            match begin(Some(self.next()), server) {
                Err(taken)
                    if matches!(
                        taken.kind(),
                        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
                    ) =>
                {
                    error = taken;
                }
                begun => return begun,
            }
        }
        Err(error)
    }

    fn next(&mut self) -> SocketAddr {
        let addresses = u64::from(self.addresses);
        let (address, port) = (self.taken % addresses, self.taken / addresses % PORTS);
        self.taken += 1;
        // Neither remainder is out of bounds.
        let address = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(address).unwrap_or(0));
        SocketAddr::from((address, FIRST_PORT + u16::try_from(port).unwrap_or(0)))
    }
}

fn begin(source: Option<SocketAddr>, server: SocketAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(server);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if let Some(source) = source {
        // Also a port in `TIME_WAIT`, if it has been there for a second.
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn no_port_comes_again_before_all_others_have() {
        let mut ports = Ports::new(2);
        let all: HashSet<SocketAddr> = (0..2 * PORTS).map(|_| ports.next()).collect();
        assert_eq!(all.len() as u64, 2 * PORTS);
        let addresses: HashSet<String> = all.iter().map(|at| at.ip().to_string()).collect();
        assert_eq!(
            addresses,
            ["127.0.0.2", "127.0.0.3"].map(str::to_owned).into()
        );
        assert!(all.iter().all(|at| (32_768..=60_999).contains(&at.port())));
        assert!(all.contains(&ports.next()));
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let mut ports = Ports::new(2);
        let first = ports.connect(server).unwrap();
        ports.taken -= 1;
        let second = ports.connect(server).unwrap();
        assert_ne!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }
}
