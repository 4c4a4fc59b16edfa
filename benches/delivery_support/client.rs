//! A v1 client with small buffers, so that one process holds thousands.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use uuid::Uuid;

/// Larger than any frame that is sent here; tungstenite's own 128 KiB would be 1.3 GB for 10,000.
const BUFFER_BYTES: usize = 1_024;

/// What a frame says, as far as anybody here wants to know.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    chat_id: Option<Uuid>,
    pub(crate) cursor: Option<String>,
    #[serde(default)]
    pub(crate) resumed: bool,
    #[serde(default)]
    pub(crate) replayed: u64,
}

impl Frame {
    /// The number of the event, which every message here has as its chat's id.
    pub(crate) fn number(&self) -> Option<usize> {
        usize::try_from(self.chat_id?.as_u128()).ok()
    }
}

/// A chat's id that is a number, so that an event can be told from the others when it arrives.
pub(crate) fn chat_id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128)
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    /// Where it is in the stream of events.
    pub(crate) cursor: String,
}

impl Client {
    /// Connects and takes the `hello`.
    pub(crate) async fn connect(
        address: SocketAddr,
        user_id: Uuid,
        since: Option<&str>,
    ) -> anyhow::Result<(Self, Frame)> {
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        let mut request =
            format!("ws://{address}/ws?user_id={user_id}{since}").into_client_request()?;
        request.headers_mut().insert(
            "Sec-WebSocket-Protocol",
            HeaderValue::from_static("hushnet.v1"),
        );
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0);
        let (socket, _) = client_async_with_config(request, stream, Some(limits)).await?;
        let mut client = Self {
            socket,
            cursor: String::new(),
        };
        let hello = client.next().await?;
        ensure!(
            hello.kind == "hello",
            "the first frame is {}, not hello",
            hello.kind
        );
        Ok((client, hello))
    }

    /// The next text frame's bytes, as soon as they are there.
    pub(crate) async fn next_text(&mut self) -> anyhow::Result<impl AsRef<str> + use<>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(close))) => bail!("the server closed: {close:?}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("the connection ended"),
            }
        }
    }

    /// The next frame; its cursor is kept.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Frame> {
        let text = self.next_text().await?;
        let text: &str = text.as_ref();
        let mut frame: Frame = serde_json::from_str(text).with_context(|| text.to_owned())?;
        if let Some(cursor) = frame.cursor.take() {
            self.cursor = cursor;
        }
        Ok(frame)
    }
}
