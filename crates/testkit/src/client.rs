//! The reference WebSocket client: tungstenite's, with deadlines.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::wait::soon;

/// The header that names the subprotocols that a client offers.
pub const SUBPROTOCOL_HEADER: &str = "sec-websocket-protocol";

/// Why a client gets no further text frame.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server sent a close frame.
    #[error("the server closed the connection: {0:?}")]
    Closed(Option<CloseFrame>),
    /// The connection ended without a close frame.
    #[error("the connection ended without a close frame")]
    Ended,
    /// The connection broke, or the server broke the protocol.
    #[error(transparent)]
    Socket(#[from] tungstenite::Error),
}

/// A handshake's request with more headers.
#[must_use]
pub fn request(url: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    request
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// The connection, for what this client has no method for.
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    check: fn(&str),
}

impl Client {
    /// Connects and returns the answer to the handshake too. `check` is called with each text frame
    /// that the client reads, and panics if the frame is not as documented.
    pub async fn connect(
        request: Request,
        config: Option<WebSocketConfig>,
        check: fn(&str),
    ) -> Result<(Self, Response), tungstenite::Error> {
        let connecting = connect_async_with_config(request, config, true);
        let (socket, response) = soon("a connection", connecting).await?;
        Ok((Self::new(socket, check), response))
    }

    /// A client on a connection that exists. `check` as in [`Client::connect`].
    #[must_use]
    pub fn new(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, check: fn(&str)) -> Self {
        Self { socket, check }
    }

    /// The next text frame. Waits for it without a deadline.
    pub async fn try_next_text(&mut self) -> Result<Utf8Bytes, ClientError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    (self.check)(&text);
                    return Ok(text);
                }
                Some(Ok(Message::Close(close))) => return Err(ClientError::Closed(close)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("expected a text frame, got {other:?}"),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ClientError::Ended),
            }
        }
    }

    /// The next text frame.
    pub async fn next_text(&mut self) -> String {
        let next = soon("a frame", self.try_next_text()).await;
        let text = next.unwrap_or_else(|error| panic!("expected a text frame: {error}"));
        text.as_str().to_owned()
    }

    /// The next text frame, without the cursor that it may end with.
    pub async fn next_without_cursor(&mut self) -> String {
        let text = self.next_text().await;
        match text.rsplit_once(", \"cursor\" : ") {
            Some((open, _)) => format!("{open}}}"),
            None => text,
        }
    }

    /// The next text frame, as JSON.
    pub async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// Reads up to a frame of this type. The frames before it may only be of type `device`: each
    /// user's device is added shortly before the user connects.
    pub async fn until_type(&mut self, wanted: &str) {
        loop {
            let frame = self.next_json().await;
            if frame["type"] == wanted {
                return;
            }
            assert_eq!(frame["type"], "device", "while waiting for {wanted}");
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: impl Into<Message>) {
        self.socket.send(message.into()).await.unwrap();
    }

    /// Reads up to the server's close frame and returns its code.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match soon("a close frame", self.try_next_text()).await {
                Ok(_) => {}
                Err(ClientError::Closed(Some(close))) => return close.code.into(),
                Err(error) => panic!("expected a close frame with a code: {error}"),
            }
        }
    }
}
