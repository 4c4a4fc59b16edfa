//! Whom a connection comes from, and the place that it holds.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use warp::http::HeaderMap;

use crate::config::Networks;
use crate::limits::{AddressPrefix, Permit};

/// A connection's place among all that may be open; free again when the last clone is dropped.
pub(crate) type Place = Arc<Held>;

/// What a connection holds from its first byte to its last.
#[derive(Debug)]
#[allow(dead_code, reason = "held for their drop")]
pub(crate) struct Held {
    pub(crate) of_all: OwnedSemaphorePermit,
    pub(crate) of_peer: Option<Permit<AddressPrefix>>,
}

/// A request's headers. [`super::serve`] takes them out of the request, and filters share them: each clone of
/// theirs costs more than finding the route.
pub(crate) type Headers = Arc<HeaderMap>;

/// Whom the connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Whom a request comes from: the peer, or whom the proxies say that they come for, as far as they are
/// trusted. The last address of `X-Forwarded-For` was written by the nearest proxy.
pub(crate) fn client_address(Peer(peer): Peer, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut address = peer;
    // By bytes: what the client wrote may be anything, and what the proxy has added is still to be read.
    let said = headers.get_all("x-forwarded-for").iter().rev();
    let hops = said.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !trusted.contain(address) {
            return address;
        }
        let before = str::from_utf8(hop).map(|hop| hop.trim().parse());
        let Ok(Ok(before)) = before else {
            return address;
        };
        address = before;
    }
    address
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed_whom_they_come_for() {
        let trusted: Networks = "10.0.0.0/8".parse().unwrap();
        for (peer, said, client) in [
            ("192.0.2.1", &b"198.51.100.9"[..], "192.0.2.1"),
            ("10.0.0.1", &b"198.51.100.9"[..], "198.51.100.9"),
            // The client itself wrote what stands before.
            (
                "10.0.0.1",
                &b"203.0.113.5, 198.51.100.9"[..],
                "198.51.100.9",
            ),
            ("10.0.0.1", &b"198.51.100.9, 10.0.0.2"[..], "198.51.100.9"),
            ("10.0.0.1", &b"198.51.100.9, unknown"[..], "10.0.0.1"),
            ("10.0.0.1", &b""[..], "10.0.0.1"),
            ("10.0.0.1", &b"2001:db8::7"[..], "2001:db8::7"),
            ("10.0.0.1", b"\xe9, 198.51.100.9", "198.51.100.9"),
            ("10.0.0.1", b"198.51.100.9, \xe9", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_bytes(said).unwrap());
            let peer = Peer(peer.parse().unwrap());
            let found = client_address(peer, &headers, &trusted);
            assert_eq!(found.to_string(), client, "{peer:?} {said:?}");
        }
    }
}
