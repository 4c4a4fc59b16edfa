//! From a request for a WebSocket to its socket.

use hushnet_websocket::{HandshakeError, Socket};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use warp::http::HeaderMap;
use warp::reply::Response;

use super::error::ApiError;
use crate::connection::Shared;
use crate::edge::Transport;

/// The subprotocol of clients that want frames with cursors, `hello` and `reset`.
const SUBPROTOCOL_V1: &str = "hushnet.v1";

/// A valid request for a WebSocket, and the stream that it will be.
pub(super) struct Handshake {
    request: hushnet_websocket::Handshake,
    stream: OnUpgrade,
    pub(super) offers_v1: bool,
}

impl Handshake {
    pub(super) fn of(headers: &HeaderMap, stream: Option<OnUpgrade>) -> Result<Self, ApiError> {
        let stream = stream.ok_or(ApiError::NotAWebSocket)?;
        Ok(Self {
            request: hushnet_websocket::Handshake::parse(headers)?,
            stream,
            offers_v1: hushnet_websocket::Handshake::offers(headers, SUBPROTOCOL_V1),
        })
    }

    /// The response after which the stream is a WebSocket.
    pub(super) fn response(&self) -> Response {
        self.request
            .response(self.offers_v1.then_some(SUBPROTOCOL_V1))
    }

    /// The socket, once the response has been sent; `None` if the client has left before, or does not take the response
    /// in the time that it has for a frame.
    pub(super) async fn socket(&mut self, shared: &Shared) -> Option<Socket<Transport>> {
        let limits = shared.socket_limits;
        let taken = timeout(shared.timeouts.write_timeout, &mut self.stream);
        let upgraded = taken.await.ok()?.ok()?;
        let parts = upgraded.downcast::<TokioIo<Transport>>().ok()?;
        Some(Socket::new(parts.io.into_inner(), &parts.read_buf, limits))
    }
}

impl From<HandshakeError> for ApiError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::NotAWebSocket => Self::NotAWebSocket,
            HandshakeError::Version => Self::WebSocketVersion,
            HandshakeError::Key => Self::WebSocketKey,
        }
    }
}
