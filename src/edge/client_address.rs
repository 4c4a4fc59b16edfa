//! The address that a request comes from.

use std::net::{IpAddr, Ipv6Addr};

use warp::http::HeaderMap;

use crate::config::Networks;

/// The header of most proxies: addresses, with commas between.
const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// The header of RFC 7239: elements with commas between, each of `name=value` pairs.
const FORWARDED: &str = "forwarded";

/// Reads the address of one element of a header.
type Parse = fn(&[u8]) -> Option<IpAddr>;

/// The address of the client that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// The peer, or the client that trusted proxies name. The last address in the header was written by the
    /// nearest proxy; each is believed only if the one behind it is a trusted proxy. `Forwarded` is read only
    /// without `X-Forwarded-For`: a proxy that writes the latter may hand on a client's own `Forwarded`.
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> Self {
        let mut address = peer;
        let (name, parse): (_, Parse) = if headers.contains_key(X_FORWARDED_FOR) {
            (X_FORWARDED_FOR, node)
        } else {
            (FORWARDED, forwarded_for)
        };
        // Split as bytes: the client may have written anything, and what the proxy has added is still read.
        let values = headers.get_all(name).iter().rev();
        let hops = values.flat_map(|value| {
            let mut in_quotes = false;
            value.as_bytes().rsplit(move |byte| {
                in_quotes ^= *byte == b'"';
                *byte == b',' && !in_quotes
            })
        });
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

/// The address of an element of `Forwarded`, as in `for="[2001:db8::7]:4711";proto=https`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut pairs = element.split(|byte| *byte == b';');
    pairs.find_map(|pair| {
        let (name, value) = str::from_utf8(pair).ok()?.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| node(value.as_bytes()))?
    })
}

/// An address, with or without quotes, brackets and a port. A port behind an IPv6 address needs the brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim();
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.unwrap_or(text).trim();
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_whole = port.is_empty() || port.starts_with(':');
        let address: Ipv6Addr = address.parse().ok().filter(|_| is_whole)?;
        return Some(address.into());
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => address.parse().ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn found_in(name: &'static str, peer: &str, forwarded: &[&[u8]]) -> String {
        let trusted: Networks = "10.0.0.0/8".parse().unwrap();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(name, value);
        }
        let ClientAddress(address) = ClientAddress::of(peer.parse().unwrap(), &headers, &trusted);
        address.to_string()
    }

    fn found(peer: &str, forwarded: &[&[u8]]) -> String {
        found_in(X_FORWARDED_FOR, peer, forwarded)
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

    #[test]
    fn an_address_may_have_a_port_brackets_quotes_and_spaces() {
        for (forwarded, client) in [
            ("198.51.100.9:50121", "198.51.100.9"),
            ("  198.51.100.9:50121 ", "198.51.100.9"),
            ("\"198.51.100.9:50121\"", "198.51.100.9"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("\"[2001:db8::7]:443\"", "2001:db8::7"),
            ("203.0.113.5:1, 198.51.100.9:2,10.0.0.2:3", "198.51.100.9"),
            ("203.0.113.5\" , 198.51.100.9:2", "198.51.100.9"),
            ("[198.51.100.9]", "10.0.0.1"),
            ("[2001:db8::7]443", "10.0.0.1"),
            ("[2001:db8::7", "10.0.0.1"),
            (":50121", "10.0.0.1"),
        ] {
            let found = found("10.0.0.1", &[forwarded.as_bytes()]);
            assert_eq!(found, client, "{forwarded}");
        }
    }

    #[test]
    fn forwarded_names_the_client_as_rfc_7239_has_it() {
        for (forwarded, client) in [
            ("for=198.51.100.9", "198.51.100.9"),
            ("For=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            (
                "by=203.0.113.43; FOR=\"198.51.100.9:80\" ;proto=https",
                "198.51.100.9",
            ),
            ("for=203.0.113.5, for=198.51.100.9", "198.51.100.9"),
            (
                "for=198.51.100.9, for=10.0.0.2;by=\"a,b;c\"",
                "198.51.100.9",
            ),
            // What the client has written does not reach into what the proxy has added.
            ("for=\"203.0.113.5, for=198.51.100.9", "198.51.100.9"),
            ("for=198.51.100.9, for=unknown", "10.0.0.1"),
            ("for=198.51.100.9, for=_hidden", "10.0.0.1"),
            ("for=198.51.100.9, proto=https", "10.0.0.1"),
        ] {
            let found = found_in(FORWARDED, "10.0.0.1", &[forwarded.as_bytes()]);
            assert_eq!(found, client, "{forwarded}");
        }
        let lines: [&[u8]; 2] = [b"for=203.0.113.5", b"for=198.51.100.9, for=10.0.0.2"];
        assert_eq!(found_in(FORWARDED, "10.0.0.1", &lines), "198.51.100.9");
        assert_eq!(found_in(FORWARDED, "192.0.2.1", &lines), "192.0.2.1");
    }

    #[test]
    fn beside_x_forwarded_for_forwarded_is_not_read() {
        let mut headers = HeaderMap::new();
        let trusted: Networks = "10.0.0.0/8".parse().unwrap();
        headers.insert(FORWARDED, HeaderValue::from_static("for=203.0.113.5"));
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.9"));
        let peer = "10.0.0.1".parse().unwrap();
        let found = ClientAddress::of(peer, &headers, &trusted);
        assert_eq!(found.0.to_string(), "198.51.100.9");
    }
}
