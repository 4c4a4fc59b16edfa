//! What comes on a connection before HTTP: the PROXY protocol's header, and TLS.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::proxy_protocol;
use super::tls::Tls;
use super::transport::Transport;
use crate::config::Networks;

/// What a connection begins with.
#[derive(Debug, Clone)]
pub(super) struct Preamble {
    /// Whether trusted proxies send the PROXY protocol's header.
    pub(super) proxy_protocol: bool,
    pub(super) trusted_proxies: Networks,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Preamble {
    /// Whether a connection may begin with HTTP at once.
    pub(super) fn is_empty(&self) -> bool {
        !self.proxy_protocol && self.tls.is_none()
    }

    /// Reads the preamble. Returns the stream that HTTP is spoken over, and the peer that a trusted proxy
    /// names, or else the given one.
    ///
    /// # Errors
    /// The connection's, and `InvalidData` for a malformed preamble.
    pub(super) async fn read(
        &self,
        mut stream: TcpStream,
        peer: IpAddr,
    ) -> io::Result<(Transport, IpAddr)> {
        let named = if self.proxy_protocol && self.trusted_proxies.contain(peer) {
            proxy_protocol::read_header(&mut stream).await?
        } else {
            None
        };
        let transport = match &self.tls {
            Some(tls) => Transport::Tls(Box::new(tls.acceptor().accept(stream).await?)),
            None => Transport::Plain(stream),
        };
        Ok((transport, named.unwrap_or(peer)))
    }
}
