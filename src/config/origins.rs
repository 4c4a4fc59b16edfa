//! The origins of web pages that may use the service.

use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;
use serde::{Serialize, Serializer};

/// The origins of web pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Whether a page of this origin may use the service that it finds at `host`: the host of the page, or an origin
    /// that is named.
    #[must_use]
    pub fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        let same_host = || {
            let (scheme, page) = web(origin)?;
            Some(page.eq_ignore_ascii_case(without_default_port(scheme, host?)))
        };
        same_host().unwrap_or(false)
            || self
                .0
                .iter()
                .any(|allowed| allowed == "*" || is_same(allowed, origin))
    }

    /// Whether an origin of this host is named, on whichever port.
    #[must_use]
    pub fn name_host(&self, host: &str) -> bool {
        let name = host_name(host);
        self.0.iter().any(|allowed| {
            let named = allowed.split_once("://").map(|(_, host)| host_name(host));
            allowed == "*" || named.is_some_and(|named| named.eq_ignore_ascii_case(name))
        })
    }
}

/// Whether a request for this host, as its header has it, can only come from this machine's own pages and programs:
/// no other machine's name is one of these.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let name = host_name(host).to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// The host without its port, and without the dot of a name that is complete.
fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether two origins are the same. Of a scheme that is not the web's, both must be written alike.
fn is_same(one: &str, other: &str) -> bool {
    match (web(one), web(other)) {
        (Some((scheme, host)), Some((other_scheme, other_host))) => {
            scheme.eq_ignore_ascii_case(other_scheme) && host.eq_ignore_ascii_case(other_host)
        }
        _ => one == other,
    }
}

/// Scheme and host of an origin of http or https, without the scheme's own port.
fn web(origin: &str) -> Option<(&str, &str)> {
    let (scheme, host) = origin.split_once("://")?;
    default_port(scheme)?;
    Some((scheme, without_default_port(scheme, host)))
}

fn without_default_port<'a>(scheme: &str, host: &'a str) -> &'a str {
    default_port(scheme)
        .and_then(|port| host.strip_suffix(port))
        .unwrap_or(host)
}

fn default_port(scheme: &str) -> Option<&'static str> {
    if scheme.eq_ignore_ascii_case("https") {
        Some(":443")
    } else if scheme.eq_ignore_ascii_case("http") {
        Some(":80")
    } else {
        None
    }
}

/// Why no browser sends this as the origin of a page.
fn fault(origin: &str) -> Option<&'static str> {
    const FORM: &str = "is not an origin as in https://app.example.org";
    if origin == "*" {
        return None;
    }
    if origin.contains('*') {
        return Some("names no single origin: name each, or * alone for all");
    }
    let Ok(url) = Url::parse(origin) else {
        return Some(FORM);
    };
    let Some((_, host)) = origin.split_once("://") else {
        return Some(FORM);
    };
    let is_sent = match url.scheme() {
        "http" | "https" => is_same(&url.origin().ascii_serialization(), origin),
        // No page has such an origin.
        "ftp" | "ws" | "wss" | "file" => false,
        _ => {
            let is_sent = |byte: u8| byte.is_ascii_graphic() && !b"/?#@".contains(&byte);
            !host.is_empty() && host.bytes().all(is_sent)
        }
    };
    (!is_sent).then_some(FORM)
}

impl FromStr for Origins {
    type Err = String;

    /// With commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let origin = |part: &str| match fault(part) {
            None => Ok(part.to_owned()),
            Some(fault) => Err(format!("{part} {fault}")),
        };
        parts.map(origin).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_same_host_may_connect_and_others_that_are_named() {
        let named: Origins = "https://app.example.org, http://localhost:5173"
            .parse()
            .unwrap();
        for (origin, host, allowed) in [
            ("https://rt.example.org", "rt.example.org", true),
            ("http://rt.example.org:8080", "rt.example.org:8080", true),
            ("http://rt.example.org:8081", "rt.example.org:8080", false),
            ("https://app.example.org", "rt.example.org", true),
            ("https://APP.example.org", "rt.example.org", true),
            ("http://app.example.org", "rt.example.org", false),
            (
                "https://app.example.org.evil.example",
                "rt.example.org",
                false,
            ),
            ("http://localhost:5173", "rt.example.org", true),
            ("app://rt.example.org", "rt.example.org", false),
            ("null", "rt.example.org", false),
            ("", "rt.example.org", false),
        ] {
            assert_eq!(named.allow(origin, Some(host)), allowed, "{origin}");
        }
        assert!(
            Origins::from_str("*")
                .unwrap()
                .allow("https://a.example", None)
        );
    }

    #[test]
    fn the_scheme_s_own_port_makes_no_other_origin() {
        let named: Origins = "https://a.example:443,http://b.example".parse().unwrap();
        for (origin, host, allowed) in [
            ("https://rt.example", "rt.example:443", true),
            ("https://rt.example:443", "rt.example", true),
            ("http://rt.example", "rt.example:80", true),
            ("https://[2001:db8::7]", "[2001:db8::7]:443", true),
            ("https://rt.example", "rt.example:80", false),
            ("http://rt.example", "rt.example:443", false),
            ("https://rt.example", "rt.example:8443", false),
            ("https://other.example", "rt.example:443", false),
            ("https://a.example", "rt.example", true),
            ("http://b.example:80", "rt.example", true),
            ("http://a.example", "rt.example", false),
            ("https://b.example", "rt.example", false),
        ] {
            assert_eq!(named.allow(origin, Some(host)), allowed, "{origin} {host}");
        }
    }

    #[test]
    fn an_origin_of_another_scheme_is_taken_as_it_is_written() {
        let named: Origins = "capacitor://localhost,tauri://localhost,chrome-extension://abcdef"
            .parse()
            .unwrap();
        for (origin, allowed) in [
            ("capacitor://localhost", true),
            ("tauri://localhost", true),
            ("chrome-extension://abcdef", true),
            ("chrome-extension://abcdefg", false),
            ("ionic://localhost", false),
        ] {
            assert_eq!(named.allow(origin, Some("rt.example")), allowed, "{origin}");
        }
    }

    #[test]
    fn a_host_is_of_this_machine_or_named() {
        for host in [
            "localhost",
            "LocalHost.:8080",
            "app.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "10.0.0.1:8080",
            "[2001:db8::7]:8080",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
        let named: Origins = "https://rt.example:8443,https://[2001:db8::7]"
            .parse()
            .unwrap();
        for (host, is_named) in [
            ("rt.example", true),
            ("RT.example:80", true),
            ("[2001:db8::7]:80", true),
            ("evil.rt.example", false),
            ("[2001:db8::8]", false),
        ] {
            assert_eq!(named.name_host(host), is_named, "{host}");
        }
        assert!(Origins::from_str("*").unwrap().name_host("rt.example"));
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for wrong in [
            "app.example.org",
            "null",
            "mailto:a",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://user@a.example",
            "https://b\u{fc}cher.example",
            "https://a.example:",
            "https://a.example:port",
            "https://*.a.example",
            "https://a.example:*",
            "*://a.example",
            "app://*",
            "app://a/b",
            "ftp://a.example",
            "wss://a.example",
        ] {
            assert!(Origins::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
