//! What the protocol is spoken over: a socket, or TLS over one.

use tokio::io::{AsyncRead, AsyncWrite};

/// What the protocol is spoken over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}
