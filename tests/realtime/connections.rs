//! A connection: the frames that a client may send, and how each end of a connection is handled.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use uuid::Uuid;

use crate::support::{Client, Server, notify, soon, until};

const HANDSHAKE: &str = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A masked client frame with an all-zero mask, which leaves the payload as it is.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut frame = vec![
        first_byte,
        0x80 | u8::try_from(payload.len()).unwrap(),
        0,
        0,
        0,
        0,
    ];
    frame.extend_from_slice(payload);
    frame
}

/// A connection whose client side has a small receive buffer.
async fn stream_that_holds_little(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(server.address()).await.unwrap()
}

#[tokio::test]
async fn a_text_ping_is_answered_with_a_text_pong() {
    let server = Server::start().await;
    let mut client = server.connect(Uuid::new_v4()).await;
    client.send(r#"{"type":"ping"}"#).await;
    assert_eq!(client.next_text().await, r#"{"type":"pong"}"#);
}

#[tokio::test]
async fn a_ping_frame_is_answered_with_its_payload() {
    let server = Server::start().await;
    let mut client = server.connect(Uuid::new_v4()).await;
    client.send(Message::Ping(Bytes::from_static(b"42"))).await;
    let answer = soon("a pong", client.socket.next()).await.unwrap().unwrap();
    assert_eq!(answer, Message::Pong(Bytes::from_static(b"42")));
}

#[tokio::test]
async fn an_unknown_type_is_answered_with_an_error_and_nothing_else() {
    let server = Server::start().await;
    let mut client = server.connect(Uuid::new_v4()).await;
    client.send(r#"{"type":"dance"}"#).await;
    let error = client.next_json().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!("unknown_type"))
    );
    client.send(r#"{"type":"ping"}"#).await;
    assert_eq!(client.next_text().await, r#"{"type":"pong"}"#);
}

#[tokio::test]
async fn a_hundred_pings_at_once_are_all_answered() {
    let server = Server::start_with(|config| config.limits.client_frames_per_second = 100).await;
    let mut client = server.connect(Uuid::new_v4()).await;
    for _ in 0..100 {
        client
            .socket
            .feed(r#"{"type":"ping"}"#.into())
            .await
            .unwrap();
    }
    client.socket.flush().await.unwrap();
    for _ in 0..100 {
        assert_eq!(client.next_text().await, r#"{"type":"pong"}"#);
    }
}

#[tokio::test]
async fn a_client_s_close_frame_is_answered_and_its_permit_released() {
    let server = Server::start().await;
    let mut client = server.connect(Uuid::new_v4()).await;
    let frame = CloseFrame {
        code: 1000.into(),
        reason: "done".into(),
    };
    client.socket.close(Some(frame)).await.unwrap();
    assert_eq!(client.close_code().await, 1000);
    assert!(soon("the end", client.socket.next()).await.is_none());
    server
        .until_metric("hushnet_connections_closed_total{reason=\"client\"}", 1.0)
        .await;
    assert!(server.metric("hushnet_connections_open").await < 1.0);
    assert!(server.metric("hushnet_users_connected").await < 1.0);
}

#[tokio::test]
async fn a_client_that_disconnects_without_a_close_frame_is_forgotten() {
    let server = Server::start().await;
    drop(server.connect(Uuid::new_v4()).await);
    until("the connection is closed", async || {
        server
            .metric("hushnet_connections_closed_total{reason=\"client\"}")
            .await
            + server
                .metric("hushnet_connections_closed_total{reason=\"network\"}")
                .await
            >= 1.0
    })
    .await;
    assert!(server.metric("hushnet_users_connected").await < 1.0);
}

#[tokio::test]
async fn a_message_that_is_not_allowed_closes_with_its_code() {
    let server = Server::start_with(|config| config.limits.frame_bytes_max = 1_000).await;
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(1_000));
    for (message, code, reason) in [
        (Message::binary(vec![1, 2, 3]), 1003, "unsupported_data"),
        (Message::text("not json"), 1007, "malformed"),
        (Message::text("{}"), 1007, "malformed"),
        (Message::text(long), 1009, "too_big"),
    ] {
        let mut client = server.connect(Uuid::new_v4()).await;
        client.send(message).await;
        assert_eq!(client.close_code().await, code);
        let series = format!("hushnet_connections_closed_total{{reason=\"{reason}\"}}");
        server.until_metric(&series, 1.0).await;
    }
}

#[tokio::test]
async fn broken_frames_close_with_their_code() {
    let server = Server::start().await;
    for (bytes, code) in [
        (frame(0x81, &[0xff, 0xfe]), 1007), // text that is not UTF-8
        (frame(0xc1, b"{}"), 1002),         // a reserved bit
        (frame(0x83, b"{}"), 1002),         // a reserved opcode
        (vec![0x81, 2, b'{', b'}'], 1002),  // not masked
        (frame(0x80, b"{}"), 1002),         // a continuation of nothing
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let user = Uuid::new_v4();
        let head = format!("GET /ws?user_id={user} HTTP/1.1\r\n{HANDSHAKE}");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        soon("the end", stream.read_to_end(&mut answer))
            .await
            .unwrap();
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        let close = &answer[end..];
        assert_eq!(close[0], 0x88, "the answer to {bytes:x?} is {close:x?}");
        assert_eq!(
            u16::from_be_bytes([close[2], close[3]]),
            code,
            "for {bytes:x?}"
        );
    }
}

#[tokio::test]
async fn a_frame_that_comes_with_the_request_is_not_lost() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let user = Uuid::new_v4();
    let mut bytes = format!("GET /ws?user_id={user} HTTP/1.1\r\n{HANDSHAKE}").into_bytes();
    bytes.extend(frame(0x81, br#"{"type":"ping"}"#));
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let pong = br#"{"type":"pong"}"#;
    soon("the pong", async {
        while !answer.ends_with(pong) {
            let mut part = [0; 512];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "ended with {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..read]);
        }
    })
    .await;
    // The example of RFC 6455, section 1.3.
    assert!(String::from_utf8_lossy(&answer).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_closed() {
    let server = Server::start_with(|config| {
        config.ping_interval_ms = 100;
        config.pong_timeout_ms = 100;
    })
    .await;
    // A client that does not read does not answer.
    let mut client = server.connect(Uuid::new_v4()).await;
    let series = "hushnet_connections_closed_total{reason=\"idle_timeout\"}";
    server.until_metric(series, 1.0).await;
    assert_eq!(client.close_code().await, 4009);
}

#[tokio::test]
async fn a_peer_that_answers_pings_stays() {
    // A machine that is too slow for the first timeout is given more.
    for pong_timeout_ms in [1_000, 10_000, 60_000] {
        let server = Server::start_with(|config| {
            config.ping_interval_ms = 100;
            config.pong_timeout_ms = pong_timeout_ms;
        })
        .await;
        let mut client = server.connect(Uuid::new_v4()).await;
        if gets_five_pings(&mut client).await {
            assert!(server.metric("hushnet_connections_open").await >= 1.0);
            return;
        }
    }
    panic!("the connection was closed, although the client answered every ping");
}

/// Reading answers the pings. `false` if the server closes for a pong that is too late.
async fn gets_five_pings(client: &mut Client) -> bool {
    for _ in 0..5 {
        match soon("a ping", client.socket.next()).await.unwrap().unwrap() {
            Message::Ping(_) => {}
            Message::Close(Some(close)) if u16::from(close.code) == 4009 => return false,
            other => panic!("expected a ping, got {other:?}"),
        }
    }
    true
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_delays_no_other_client() {
    let server = Server::start_with(|config| config.write_timeout_ms = 500).await;
    let db = server.db().await;
    let user = Uuid::new_v4();
    let stream = stream_that_holds_little(&server).await;
    let url = format!("ws://{}/ws?user_id={user}", server.address());
    let (_frozen, _) = client_async(url, stream).await.unwrap();
    let mut reader = server.connect(user).await;

    let pad = "x".repeat(7_000);
    let mut sent = 0;
    let slow = "hushnet_connections_closed_total{reason=\"slow_consumer\"}";
    until("the frozen client is closed", async || {
        for _ in 0..100 {
            let event =
                json!({ "type": "device", "user_id": user, "id": sent + 1, "n": sent, "pad": pad });
            notify(&db, "devices_channel", &event.to_string()).await;
            assert_eq!(reader.next_json().await["n"], json!(sent));
            sent += 1;
        }
        server.metric(slow).await >= 1.0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_without_reading_is_closed() {
    let server = Server::start_with(|config| {
        config.write_timeout_ms = 500;
        config.limits.client_frames_per_second = 100_000;
    })
    .await;
    let stream = stream_that_holds_little(&server).await;
    let url = format!("ws://{}/ws?user_id={}", server.address(), Uuid::new_v4());
    let (mut client, _) = client_async(url, stream).await.unwrap();
    // Ends when the server, which has stopped reading, has closed the connection.
    soon("the end of the flood", async {
        loop {
            for _ in 0..1_000 {
                if client.feed(r#"{"type":"dance"}"#.into()).await.is_err() {
                    return;
                }
            }
            if client.flush().await.is_err() {
                return;
            }
        }
    })
    .await;
    server
        .until_metric(
            "hushnet_connections_closed_total{reason=\"slow_consumer\"}",
            1.0,
        )
        .await;
}

#[tokio::test]
async fn lag_is_counted() {
    let server = Server::start_with(|config| config.user_channel_capacity = 2).await;
    let db = server.db().await;
    let user = Uuid::new_v4();
    let mut client = server.connect(user).await;
    // One transaction's notifications arrive in one burst, faster than the task is woken for each.
    until("a lag", async || {
        sqlx::query(
            "SELECT pg_notify('devices_channel', json_build_object('type', 'device', 'user_id', $1::uuid, \
             'id', n, 'n', n)::text) FROM generate_series(1, 5000) n",
        )
        .bind(user)
        .execute(&db)
        .await
        .unwrap();
        while client.next_json().await["n"] != json!(5_000) {}
        server.metric("hushnet_lags_total").await >= 1.0
    })
    .await;
    assert!(server.metric("hushnet_lagged_events_total").await >= 1.0);
    assert!(server.metric("hushnet_channel_backlog_max").await >= 1.0);
}
