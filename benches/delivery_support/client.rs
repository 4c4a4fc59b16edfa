//! A v1 client with small buffers, so that one process holds thousands.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use hushnet_testkit::client::{self, ClientError, SUBPROTOCOL_HEADER};
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use uuid::Uuid;

/// Larger than any frame that is sent here; tungstenite's own 128 KiB would be 1.3 GB for 10,000.
const BUFFER_BYTES: usize = 1_024;

/// What a frame says, as far as anybody here wants to know.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) id: Option<i64>,
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

/// A chat's id that is a number, which identifies the event when it arrives.
pub(crate) fn chat_id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128)
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    client: client::Client,
    /// The newest cursor.
    pub(crate) cursor: String,
}

impl Client {
    /// Connects and reads the `hello`.
    pub(crate) async fn connect(
        address: SocketAddr,
        user_id: Uuid,
        since: Option<&str>,
    ) -> anyhow::Result<(Self, Frame)> {
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        let request = client::request(
            &format!("ws://{address}/ws?user_id={user_id}{since}"),
            &[(SUBPROTOCOL_HEADER, "hushnet.v1")],
        );
        let limits = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0);
        let (client, _) = client::Client::connect(request, Some(limits), |_| {}).await?;
        let mut client = Self {
            client,
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

    /// The next text frame, as soon as it has come.
    pub(crate) async fn next_text(&mut self) -> Result<Utf8Bytes, ClientError> {
        self.client.try_next_text().await
    }

    /// The next frame. Keeps its cursor.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Frame> {
        let text = self.next_text().await?;
        let text = text.as_str();
        let mut frame: Frame = serde_json::from_str(text).with_context(|| text.to_owned())?;
        if let Some(cursor) = frame.cursor.take() {
            self.cursor = cursor;
        }
        Ok(frame)
    }
}
