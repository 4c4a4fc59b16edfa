//! The address that a request comes from.

use std::net::IpAddr;

use warp::http::HeaderMap;

use crate::config::Networks;

/// The address of the client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// The peer, or the client that trusted proxies name in `X-Forwarded-For`. The last address there was
    /// written by the nearest proxy; each is believed only if the one behind it is a trusted proxy.
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> Self {
        let mut address = peer;
        // Split as bytes: the client may have written anything, and what the proxy has added is still read.
        let values = headers.get_all("x-forwarded-for").iter().rev();
        let hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            if !trusted.contain(address) {
                break;
            }
            let Some(hop) = parse(hop) else { break };
            address = hop;
        }
        Self(address)
    }
}

fn parse(hop: &[u8]) -> Option<IpAddr> {
    str::from_utf8(hop).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn found(peer: &str, forwarded: &[&[u8]]) -> String {
        let trusted: Networks = "10.0.0.0/8".parse().unwrap();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append("x-forwarded-for", value);
        }
        let ClientAddress(address) = ClientAddress::of(peer.parse().unwrap(), &headers, &trusted);
        address.to_string()
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        for (peer, forwarded, client) in [
            ("192.0.2.1", &b"198.51.100.9"[..], "192.0.2.1"),
            ("10.0.0.1", b"198.51.100.9", "198.51.100.9"),
            // The first address was written by the client itself.
            ("10.0.0.1", b"203.0.113.5, 198.51.100.9", "198.51.100.9"),
            ("10.0.0.1", b"198.51.100.9, 10.0.0.2", "198.51.100.9"),
            ("10.0.0.1", b"198.51.100.9, unknown", "10.0.0.1"),
            ("10.0.0.1", b"", "10.0.0.1"),
            ("10.0.0.1", b"2001:db8::7", "2001:db8::7"),
            ("10.0.0.1", b"\xe9, 198.51.100.9", "198.51.100.9"),
            ("10.0.0.1", b"198.51.100.9, \xe9", "10.0.0.1"),
        ] {
            assert_eq!(found(peer, &[forwarded]), client, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn without_the_header_the_client_is_the_peer() {
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(found("192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn several_headers_are_read_from_the_last_to_the_first() {
        let forwarded: [&[u8]; 2] = [b"203.0.113.5", b"198.51.100.9, 10.0.0.2"];
        assert_eq!(found("10.0.0.1", &forwarded), "198.51.100.9");
    }
}
