//! The reference client, whose text frames are all held against docs/asyncapi.yaml.

use hushnet_testkit::client::{self, Client};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::schema::assert_valid_frame;

/// Connects to a URL.
pub async fn connect_client(url: &str) -> Client {
    let request = client::request(url, &[]);
    let connected = Client::connect(request, None, assert_valid_frame).await;
    connected.unwrap().0
}

/// A client on a connection that exists.
pub fn client_on(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Client {
    Client::new(socket, assert_valid_frame)
}
