//! From a request for a WebSocket to its socket: the handshake of RFC 6455 and nothing else.

use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::error::ApiError;
use super::reply::reply;
use crate::edge::Headers;
use crate::socket::{Socket, SocketLimits};

/// What a client offers that wants frames with cursors, `hello` and `reset`.
const SUBPROTOCOL_V1: &str = "hushnet.v1";

/// A request that is one for a WebSocket.
pub(super) struct Handshake {
    accept_key: HeaderValue,
    stream: OnUpgrade,
    pub(super) offers_v1: bool,
}

impl Handshake {
    pub(super) fn of(headers: &HeaderMap, stream: Option<OnUpgrade>) -> Result<Self, ApiError> {
        let (Some(stream), true, true) = (
            stream,
            names(headers, &header::CONNECTION, "upgrade"),
            names(headers, &header::UPGRADE, "websocket"),
        ) else {
            return Err(ApiError::NotAWebSocket);
        };
        if !names(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(ApiError::WebSocketVersion);
        }
        // 16 bytes in base64 are 22 characters and two of padding.
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| key.len() == 24 && key.as_bytes().ends_with(b"=="))
            .ok_or(ApiError::WebSocketKey)?;
        let accept_key = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
            .map_err(|_| ApiError::WebSocketKey)?;
        Ok(Self {
            accept_key,
            stream,
            offers_v1: names(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL_V1),
        })
    }

    /// The answer that lets the stream come.
    pub(super) fn response(&self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept_key.clone());
        if self.offers_v1 {
            headers.insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(SUBPROTOCOL_V1),
            );
        }
        response
    }

    /// The socket, once the answer has been sent; `None` for a client that has left.
    pub(super) async fn socket(&mut self, limits: SocketLimits) -> Option<Socket> {
        let upgraded = (&mut self.stream).await.ok()?;
        Socket::from_upgraded(upgraded, limits).ok()
    }
}

/// A route that serves every WebSocket, whoever asks for it at whatever path, with `serve`: this service's
/// handshake and socket for a test of these alone.
pub fn websockets<S>(
    limits: SocketLimits,
    tasks: TaskTracker,
    serve: impl Fn(Socket) -> S + Clone + Send + Sync + 'static,
) -> BoxedFilter<(Response,)>
where
    S: Future<Output = ()> + Send + 'static,
{
    warp::ext::get::<Headers>()
        .and(warp::ext::optional::<OnUpgrade>())
        .map(move |headers: Headers, stream| {
            reply(Handshake::of(&headers, stream).map(|mut handshake| {
                let response = handshake.response();
                let serve = serve.clone();
                tasks.spawn(async move {
                    if let Some(socket) = handshake.socket(limits).await {
                        serve(socket).await;
                    }
                });
                response
            }))
        })
        .boxed()
}

/// Whether a header that lists tokens names this one.
fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .any(|listed| listed.trim().eq_ignore_ascii_case(token))
        })
}
