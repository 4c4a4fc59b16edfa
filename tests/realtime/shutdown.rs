//! Stopping: every WebSocket is closed with 1012, and every task has ended by the deadline.

use hushnet_realtime::app::RunError;
use hushnet_realtime::config::Config;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{Server, soon, until};

/// The drain may take as long as the machine needs.
fn unhurried(config: &mut Config) {
    config.drain_deadline_ms = 600_000;
}

#[tokio::test]
async fn every_client_is_closed_with_1012() {
    let mut server = Server::start_with(unhurried).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(server.connect(Uuid::new_v4()).await);
    }
    let address = server.address();
    server.begin_stop();
    for client in &mut clients {
        assert_eq!(client.close_code().await, 1012);
    }
    server.stopped().await.unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "it still accepts"
    );
}

#[tokio::test]
async fn a_connection_without_a_request_does_not_delay_the_stop() {
    let mut server = Server::start_with(unhurried).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    server.get("/healthz").await;
    server.begin_stop();
    server.stopped().await.unwrap();
    let mut rest = Vec::new();
    soon("the end", silent.read_to_end(&mut rest))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_close_frame_is_dropped() {
    let mut server = Server::start_with(unhurried).await;
    let _silent = server.connect(Uuid::new_v4()).await;
    server.begin_stop();
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_drain_beyond_its_deadline_is_an_error() {
    let mut server = Server::start_with(|config| config.drain_deadline_ms = 100).await;
    // Does not answer the close frame.
    let _silent = server.connect(Uuid::new_v4()).await;
    until("the client is connected", async || {
        server.metric("hushnet_connections_open").await >= 1.0
    })
    .await;
    server.begin_stop();
    let error = server.stopped().await.unwrap_err();
    assert!(
        matches!(
            error,
            RunError::DrainDeadline {
                tasks: 1..,
                deadline_ms: 100
            }
        ),
        "{error}"
    );
}
