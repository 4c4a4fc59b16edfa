//! From a request for a WebSocket to its socket.

use std::time::Duration;

use hushnet_websocket::{HandshakeError, Socket, SocketLimits};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use warp::http::HeaderMap;
use warp::reply::Response;

use super::error::ApiError;
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
    /// in this time.
    pub(super) async fn socket(
        &mut self,
        limits: SocketLimits,
        within: Duration,
    ) -> Option<Socket<Transport>> {
        let upgraded = timeout(within, &mut self.stream).await.ok()?.ok()?;
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);
    const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// Half of the response has no room in the stream, and the client does not read.
    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_not_taken_is_given_up() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (asked, mut asking) = tokio::sync::mpsc::unbounded_channel();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let stream = hyper::upgrade::on(&mut request);
            let handshake = Handshake::of(request.headers(), Some(stream)).unwrap();
            let response = handshake.response();
            asked.send(handshake).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(ours), service);
        tokio::spawn(serving.with_upgrades());
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut handshake = asking.recv().await.unwrap();
        let limits = SocketLimits {
            frame_bytes_max: 1_024,
            write_buffer_bytes_max: 1_024,
        };
        let begun = Instant::now();
        let socket = timeout(WITHIN * 2, handshake.socket(limits, WITHIN));
        assert!(
            socket
                .await
                .expect("it is waited for without end")
                .is_none()
        );
        assert!(begun.elapsed() >= WITHIN);
    }
}
