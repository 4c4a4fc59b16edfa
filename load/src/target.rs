//! Where the server is.
//!
//! Never anything but this machine: the program is a load generator, and the server's figures are
//! read from this machine's `/proc`.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;

use crate::cli::Usage;

/// A server's address and the request that it takes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// For the header `Host`.
    pub(crate) authority: String,
    /// Path and query up to the user's id.
    pub(crate) path: String,
}

impl Target {
    /// From a URL such as `ws://127.0.0.1:8080/ws`.
    pub(crate) fn parse(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("ws://") else {
            return Err(Usage(format!("--url {url}: only ws:// URLs are understood")).into());
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let slash = if path.starts_with('/') { "" } else { "/" };
        let joint = if path.contains('?') { '&' } else { '?' };
        let has_port = authority
            .rsplit(']')
            .next()
            .is_some_and(|end| end.contains(':'));
        let port = if has_port { "" } else { ":80" };
        let address = format!("{authority}{port}")
            .to_socket_addrs()
            .with_context(|| format!("--url {url}"))?
            .find(|address| address.ip().is_loopback())
            .ok_or_else(|| {
                Usage(format!(
                    "--url {url}: is not on this machine, and only it is loaded"
                ))
            })?;
        Ok(Self {
            address,
            authority: authority.to_owned(),
            path: format!("{slash}{path}{joint}user_id="),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_added_to_what_is_there() {
        let path = |url| Target::parse(url).unwrap().path;
        assert_eq!(path("ws://127.0.0.1:8080/ws"), "/ws?user_id=");
        assert_eq!(path("ws://127.0.0.1:8080/ws?a=b"), "/ws?a=b&user_id=");
        assert_eq!(path("ws://127.0.0.1:8080"), "/?user_id=");
        assert_eq!(path("ws://[::1]:8080?a"), "/?a&user_id=");
    }

    #[test]
    fn a_port_need_not_be_named() {
        assert_eq!(
            Target::parse("ws://127.0.0.1/ws").unwrap().address.port(),
            80
        );
        assert_eq!(Target::parse("ws://[::1]/ws").unwrap().address.port(), 80);
    }

    #[test]
    fn other_machines_and_other_schemes_are_refused() {
        for url in [
            "ws://192.0.2.1:8080/ws",
            "wss://127.0.0.1/ws",
            "127.0.0.1:8080",
        ] {
            assert!(Target::parse(url).unwrap_err().is::<Usage>(), "{url}");
        }
    }
}
