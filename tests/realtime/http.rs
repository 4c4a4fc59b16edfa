//! The routes: each answer that is not a WebSocket, and the limits of the accept loop.

use hushnet_testkit::http;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

use crate::support::{Database, Response, Server, soon};

fn assert_error(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    assert_eq!(response.headers["content-type"], "application/json");
    let error = &response.json()["error"];
    assert_eq!(error["code"], code);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.len() > 10),
        "{error}"
    );
}

fn upgrade(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\n{headers}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_request_without_a_user_is_refused() {
    let server = Server::start().await;
    let missing = "user_id_missing";
    assert_error(&server.get("/ws").await, 400, missing);
    assert_error(&server.get("/ws?user=x").await, 400, missing);
    for malformed in [
        "/ws?user_id=",
        "/ws?user_id=42",
        "/ws?user_id=%00",
        "/ws/42",
    ] {
        assert_error(&server.get(malformed).await, 400, "user_id_malformed");
    }
    let twice = format!("/ws?user_id={0}&user_id={0}", Uuid::nil());
    assert_error(&server.get(&twice).await, 400, "query_malformed");
    let rejected = "hushnet_connections_rejected_total{reason=\"bad_request\"}";
    assert!(server.metric(rejected).await >= 6.0);
}

#[tokio::test]
async fn a_request_that_is_not_a_websocket_is_refused() {
    let server = Server::start().await;
    for path in [
        format!("/ws?user_id={}", Uuid::nil()),
        format!("/ws/{}", Uuid::nil()),
    ] {
        let response = server.get(&path).await;
        assert_error(&response, 426, "websocket_required");
        assert_eq!(response.headers["upgrade"], "websocket");

        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let old = upgrade(&path, &format!("{key}\r\nSec-WebSocket-Version: 8"));
        let response = server.request(&old.replace("keep-alive", "close")).await;
        assert_error(&response, 426, "websocket_version");
        assert_eq!(response.headers["sec-websocket-version"], "13");

        let keyless = upgrade(&path, "Sec-WebSocket-Version: 13");
        let response = server
            .request(&keyless.replace("keep-alive", "close"))
            .await;
        assert_error(&response, 400, "websocket_key");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let server = Server::start().await;
    for path in ["/", "/nothing", "/ws/a/b", "/metrics/x", "/WS"] {
        assert_error(&server.get(path).await, 404, "not_found");
    }
    for path in ["/metrics", "/healthz", "/ws"] {
        let post = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let response = server.request(&post).await;
        assert_error(&response, 405, "method_not_allowed");
        assert_eq!(response.headers["allow"], "GET, HEAD");
    }
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let server = Server::start_with(|config| config.edge.console = Some(true)).await;
    let id = Uuid::nil();
    for path in [
        "/readyz",
        "/healthz",
        "/metrics",
        "/console",
        "/console/console.js",
        &format!("/messages/pending/{id}"),
        &format!("/sessions/pending?device_id={id}"),
        &format!("/users/{id}/devices"),
        &format!("/ws?user_id={id}"),
        "/nothing",
    ] {
        let get = server.get(path).await;
        let head = http::get_head(path).replacen("GET", "HEAD", 1);
        let head = server.request(&head).await;
        assert_eq!(head.status, get.status, "{path}");
        let kind = |response: &Response| response.headers["content-type"].clone();
        assert_eq!(kind(&head), kind(&get), "{path}");
        assert_eq!(head.body, "", "{path}");
    }
    // HEAD opens no WebSocket.
    let headers = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
    let get = upgrade(&format!("/ws/{id}"), headers).replace("keep-alive", "close");
    let head = server.request(&get.replacen("GET", "HEAD", 1)).await;
    assert_eq!((head.status, head.body.as_str()), (426, ""));
    assert_eq!(server.first_response(&get).await.status, 101);
}

#[tokio::test]
async fn healthz_reports_the_process_and_readyz_the_feed() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);

    let nowhere = Database::of("postgres://nobody@127.0.0.1:1/nothing");
    let server = Server::start_unready(nowhere, |_| {});
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_error(&server.get("/readyz").await, 503, "listener_disconnected");
}

/// Without its database a server does not know yet whether such an id is one of a user.
#[tokio::test]
async fn a_user_of_an_unknown_type_is_refused_until_the_database_has_told_it() {
    let nowhere = Database::of("postgres://nobody@127.0.0.1:1/nothing");
    let server = Server::start_unready(nowhere, |_| {});
    let headers = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";
    let request = upgrade("/ws?user_id=alice", headers).replace("keep-alive", "close");
    let response = server.request(&request).await;
    assert_error(&response, 503, "database_unavailable");
    assert_eq!(response.headers["retry-after"], "1");
    let series = "hushnet_connections_rejected_total{reason=\"database_unavailable\"}";
    server.until_metric(series, 1.0).await;
}

#[tokio::test]
async fn the_exposition_has_prometheus_s_content_type() {
    let server = Server::start().await;
    let response = server.get("/metrics").await;
    assert_eq!(response.status, 200);
    assert_eq!(
        response.headers["content-type"],
        "text/plain; version=0.0.4"
    );
    assert!(
        !response.headers.contains_key("server"),
        "{:?}",
        response.headers
    );
}

#[tokio::test]
async fn a_full_server_refuses_connections_and_still_serves_its_metrics() {
    let server = Server::start_with(|config| config.limits.connections_max = 2).await;
    let first = server.connect(Uuid::new_v4()).await;
    let _second = server.connect(Uuid::new_v4()).await;
    let url = format!("ws://{}/ws?user_id={}", server.address(), Uuid::new_v4());
    match connect_async(&url).await {
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"));
        }
        other => panic!("a third connection: {other:?}"),
    }
    let rejected = "hushnet_connections_rejected_total{reason=\"connection_limit\"}";
    assert!(server.metric(rejected).await >= 1.0);

    drop(first);
    crate::support::until("the connection's permit is free", async || {
        connect_async(&url).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_request_s_head_has_a_time_limit() {
    let database = Database::migrated().await;
    let server = Server::start_unready(database, |config| {
        config.limits.request_head_timeout_ms = 200;
    });
    for beginning in ["", "GET /metrics HTTP/1.1\r\nX: "] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = soon("the server to give up", stream.read_to_end(&mut rest)).await;
        assert!(
            ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
}

#[tokio::test]
async fn a_request_s_head_has_a_size_limit() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon("the server to close", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.get("/healthz").await.status, 200);
}
