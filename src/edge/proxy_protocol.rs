//! The PROXY protocol, versions 1 and 2: a header before all other bytes, in which a proxy names the client.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header that is read: version 2 with addresses of Unix sockets and some extensions.
const HEADER_BYTES_MAX: usize = 512;
/// Between two looks at a header that is incomplete. Headers come in one packet.
const PEEK_INTERVAL: Duration = Duration::from_millis(5);

/// Reads the header, and nothing behind it. Returns the client's address; `None` if the proxy connects for
/// itself, as for a health check.
///
/// # Errors
/// The connection's, and `InvalidData` for bytes that are no such header.
pub(super) async fn read_header(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut beginning = [0; HEADER_BYTES_MAX];
    loop {
        let length = stream.peek(&mut beginning).await?;
        let parsed = HeaderResult::parse(&beginning[..length]);
        if parsed.is_incomplete() && 0 < length && length < HEADER_BYTES_MAX {
            tokio::time::sleep(PEEK_INTERVAL).await;
            continue;
        }
        let (header, client) = match parsed {
            HeaderResult::V1(Ok(header)) => (header.header.len(), client_v1(&header)),
            HeaderResult::V2(Ok(header)) => (header.len(), client_v2(&header)),
            HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        stream.read_exact(&mut beginning[..header]).await?;
        return Ok(client);
    }
}

fn client_v1(header: &v1::Header<'_>) -> Option<IpAddr> {
    match header.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Unknown => None,
    }
}

fn client_v2(header: &v2::Header<'_>) -> Option<IpAddr> {
    match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => {
            Some(addresses.source_address.into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => {
            Some(addresses.source_address.into())
        }
        _ => None,
    }
}
