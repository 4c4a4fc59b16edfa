//! The PROXY protocol, versions 1 and 2: a header before all other bytes, in which a proxy names the client.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use ppp::{PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest header of version 1.
const V1_BYTES_MAX: usize = 107;
/// Version 2 begins with as many bytes: the signature, version, command and family, and the length of the rest.
const V2_START_BYTES: usize = 16;
/// Where the length of the rest stands.
const V2_LENGTH: Range<usize> = 14..V2_START_BYTES;
/// The longest addresses, those of two Unix sockets. The extensions behind them are skipped, however long.
const V2_ADDRESS_BYTES_MAX: u16 = 216;
/// What is read of a header.
const V2_READ_BYTES: usize = V2_START_BYTES + 216;
/// Between two looks at a header that is incomplete. Headers come in one packet.
const PEEK_INTERVAL: Duration = Duration::from_millis(5);

/// Reads the header, and nothing behind it. Returns the client's address; `None` if the proxy connects for
/// itself, as for a health check.
///
/// # Errors
/// The connection's, and `InvalidData` for bytes that are no such header.
pub(super) async fn read_header(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if v2::PROTOCOL_PREFIX.starts_with(&first) {
        read_v2(stream).await
    } else {
        read_v1(stream).await
    }
}

/// Version 1 ends with its line, so its bytes are looked at before they are read.
async fn read_v1(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut beginning = [0; V1_BYTES_MAX];
    loop {
        let length = stream.peek(&mut beginning).await?;
        let parsed = v1::Header::try_from(&beginning[..length]);
        if parsed.is_incomplete() && 0 < length && length < V1_BYTES_MAX {
            tokio::time::sleep(PEEK_INTERVAL).await;
            continue;
        }
        let header = parsed.map_err(|_| io::ErrorKind::InvalidData)?;
        let (bytes, client) = (header.header.len(), client_v1(&header));
        stream.read_exact(&mut beginning[..bytes]).await?;
        return Ok(client);
    }
}

/// Version 2 says how long it is.
async fn read_v2(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut header = [0; V2_READ_BYTES];
    stream.read_exact(&mut header[..V2_START_BYTES]).await?;
    let announced = u16::from_be_bytes([header[V2_LENGTH.start], header[V2_LENGTH.start + 1]]);
    let kept = announced.min(V2_ADDRESS_BYTES_MAX);
    header[V2_LENGTH].copy_from_slice(&kept.to_be_bytes());
    let end = V2_START_BYTES + usize::from(kept);
    stream.read_exact(&mut header[V2_START_BYTES..end]).await?;
    let parsed = v2::Header::try_from(&header[..end]);
    let client = client_v2(&parsed.map_err(|_| io::ErrorKind::InvalidData)?);
    let extensions = u64::from(announced - kept);
    let skipped = tokio::io::copy(&mut stream.take(extensions), &mut tokio::io::sink()).await?;
    if skipped < extensions {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(client)
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A header of version 2, with so many bytes behind the addresses.
    fn v2_header(command: u8, family: u8, addresses: &[u8], extensions: usize) -> Vec<u8> {
        let length = u16::try_from(addresses.len() + extensions).unwrap();
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend(length.to_be_bytes());
        header.extend(addresses);
        header.resize(header.len() + extensions, 4);
        header
    }

    /// What is found in a header that comes in two pieces, and what is read behind it.
    async fn read(header: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        let (first, second) = header.split_at(header.len() / 2);
        let sent = async {
            proxy.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            // The other end may have closed.
            let _ = proxy.write_all(second).await;
            let _ = proxy.write_all(b"GET").await;
            proxy.shutdown().await
        };
        let received = async {
            let found = read_header(&mut accepted).await;
            let mut rest = Vec::new();
            if found.is_ok() {
                accepted.read_to_end(&mut rest).await.unwrap();
            }
            (found, rest)
        };
        tokio::join!(received, sent).0
    }

    #[tokio::test]
    async fn a_header_of_any_length_is_read_and_nothing_behind_it() {
        let v4 = [198, 51, 100, 3, 192, 0, 2, 1, 3, 232, 0, 80];
        let v6 = [[0x20; 16], [0x21; 16]].concat();
        let v6 = [&v6[..], &[3, 232, 0, 80]].concat();
        let v6_client = "2020:2020:2020:2020:2020:2020:2020:2020";
        for (header, client) in [
            (v2_header(0x21, 0x11, &v4, 0), Some("198.51.100.3")),
            (v2_header(0x21, 0x11, &v4, 600), Some("198.51.100.3")),
            (v2_header(0x21, 0x11, &v4, 65_523), Some("198.51.100.3")),
            (v2_header(0x21, 0x21, &v6, 65_499), Some(v6_client)),
            (v2_header(0x21, 0x31, &[1; 216], 65_319), None),
            (v2_header(0x20, 0, &[], 65_535), None),
            (v2_header(0x20, 0, &[], 0), None),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                b"PROXY TCP4 198.51.100.3 192.0.2.1 1000 80\r\n".to_vec(),
                Some("198.51.100.3"),
            ),
        ] {
            let (found, rest) = read(&header).await;
            let found = found.unwrap().map(|address| address.to_string());
            assert_eq!(found.as_deref(), client, "{} bytes", header.len());
            assert_eq!(rest, b"GET", "{} bytes", header.len());
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for header in [
            &b"PROXY nonsense\r\n"[..],
            b"\r\n\r\n\0\r\nQUAT\n\x21\x11\0\x0c",
            &[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
            &v2_header(0x21, 0x11, &[1; 11], 0),
        ] {
            assert!(read(header).await.0.is_err(), "{header:?}");
        }
    }
}
