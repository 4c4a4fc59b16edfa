//! The limits: the answer and the metric of each, and that other clients are not affected.

use futures_util::SinkExt;
use hushnet_testkit::client::ClientError;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use crate::support::{Client, Response, Server, soon, until};

/// Requests that are made at once to exceed a rate.
const BURST: usize = 50;

fn no_exceptions(config: &mut hushnet_realtime::config::Config) {
    config.limits.unlimited_addresses = "".parse().unwrap();
}

/// Asks for a WebSocket as a proxy does on behalf of this address.
async fn ask(server: &Server, user_id: Uuid, forwarded_for: &str) -> Response {
    let request = format!(
        "GET /ws?user_id={user_id} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n"
    );
    server.first_response(&request).await
}

async fn assert_refused(server: &Server, response: &Response, code: &str) {
    assert_eq!(response.status, 429, "{}", response.body);
    let body = &response.json()["error"];
    assert_eq!(body["code"], code);
    let retry_after: u64 = response.headers["retry-after"].parse().unwrap();
    assert!((1..=10).contains(&retry_after), "{retry_after}");
    let ms = body["retry_after_ms"].as_u64().unwrap();
    assert_eq!(ms.div_ceil(1_000), retry_after, "{body}");
    let series = format!("hushnet_connections_rejected_total{{reason=\"{code}\"}}");
    assert!(server.metric(&series).await >= 1.0, "{code}");
}

/// Makes requests in bursts until one is refused, and returns that one's answer. A sequence of requests
/// would not exceed a rate on a slow machine.
async fn until_refused(ask: impl AsyncFn() -> Response) -> Response {
    let mut refused = None;
    until("a burst exceeds the rate", async || {
        let answers = futures_util::future::join_all((0..BURST).map(|_| ask())).await;
        refused = answers.into_iter().find(|answer| answer.status == 429);
        refused.is_some()
    })
    .await;
    refused.unwrap()
}

async fn connect(server: &Server, count: usize, user: impl Fn() -> Uuid) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(server.connect(user()).await);
    }
    clients
}

#[tokio::test]
async fn an_address_at_its_connection_limit_does_not_affect_other_addresses() {
    let server = Server::start_with(|config| {
        no_exceptions(config);
        config.limits.connections_per_address_max = 3;
        config.limits.trusted_proxies = "127.0.0.1".parse().unwrap();
    })
    .await;
    let mut open = connect(&server, 3, Uuid::new_v4).await;
    let response = ask(&server, Uuid::new_v4(), "127.0.0.1").await;
    assert_refused(&server, &response, "address_limit").await;
    // The forwarded address counts. An IPv6 network of 64 bits counts as one address.
    for other in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
        assert_eq!(
            ask(&server, Uuid::new_v4(), other).await.status,
            101,
            "{other}"
        );
    }
    drop(open.pop());
    until("the connection's permit is free", async || {
        ask(&server, Uuid::new_v4(), "127.0.0.1").await.status == 101
    })
    .await;
}

/// 10 connections for WebSockets, and 64 for requests.
fn admits_74_of_an_address(config: &mut hushnet_realtime::config::Config) {
    no_exceptions(config);
    config.limits.connections_max = 200;
    config.limits.connections_per_address_max = 10;
    config.limits.request_head_timeout_ms = 600_000;
}

/// The others are refused: at least so many, and a few more.
async fn assert_flood_refused(server: &Server, least: f64) {
    let mut counted = 0.0;
    until("the flood is refused", async || {
        counted = rejected_as_seen_from_elsewhere(server).await;
        counted >= least
    })
    .await;
    assert!(counted <= least + 10.0, "{counted}");
}

/// The flood opens as many connections as it can and sends nothing.
#[tokio::test]
async fn a_silent_flood_from_one_address_leaves_connections_to_other_addresses() {
    let server = Server::start_with(admits_74_of_an_address).await;
    let mut flood = Vec::new();
    for _ in 0..600 {
        flood.push(TcpStream::connect(server.address()).await.unwrap());
    }
    assert_flood_refused(&server, 520.0).await;
}

#[tokio::test]
async fn a_silent_flood_behind_a_proxy_leaves_connections_to_other_clients() {
    let server = Server::start_with(|config| {
        admits_74_of_an_address(config);
        config.edge.proxy_protocol = true;
        config.limits.trusted_proxies = "127.0.0.3".parse().unwrap();
    })
    .await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        let mut connection = connect_from("127.0.0.3:0", &server).await;
        let header = b"PROXY TCP4 198.51.100.7 127.0.0.1 4000 80\r\n";
        connection.write_all(header).await.unwrap();
        flood.push(connection);
    }
    assert_flood_refused(&server, 120.0).await;
}

/// Connects from this address of this machine.
async fn connect_from(address: &str, server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    socket.connect(server.address()).await.unwrap()
}

/// The count of connections that `address_limit` refused, read from another address of this machine.
async fn rejected_as_seen_from_elsewhere(server: &Server) -> f64 {
    let mut stream = connect_from("127.0.0.2:0", server).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    let series = "hushnet_connections_rejected_total{reason=\"address_limit\"}";
    let counted = answer.lines().find_map(|line| line.strip_prefix(series));
    counted.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_user_at_its_connection_limit_does_not_affect_other_users() {
    let server = Server::start_with(|config| config.limits.connections_per_user_max = 2).await;
    let user = Uuid::new_v4();
    let _open = connect(&server, 2, || user).await;
    let response = ask(&server, user, "").await;
    assert_refused(&server, &response, "user_limit").await;
    assert_eq!(ask(&server, Uuid::new_v4(), "").await.status, 101);
}

#[tokio::test]
async fn a_client_that_connects_too_often_is_refused_and_let_in_later() {
    for (code, set) in [
        (
            "address_rate_limit",
            (|l| l.connections_per_second_per_address = 1)
                as fn(&mut hushnet_realtime::config::LimitSettings),
        ),
        ("user_rate_limit", |l| l.connections_per_second_per_user = 1),
        ("rate_limit", |l| l.connections_per_second = 1),
    ] {
        let server = Server::start_with(|config| {
            no_exceptions(config);
            set(&mut config.limits);
        })
        .await;
        let user = Uuid::new_v4();
        let refused = until_refused(async || ask(&server, user, "").await).await;
        assert_refused(&server, &refused, code).await;
        until("the rate has recovered", async || {
            ask(&server, user, "").await.status == 101
        })
        .await;
    }
}

/// The same fields in an answer, in a frame, and in the reason of a close.
#[tokio::test]
async fn a_client_that_is_refused_is_told_how_long_to_wait_in_one_form() {
    let server = Server::start_with(|config| {
        config.limits.connections_per_user_max = 1;
        config.limits.client_frames_per_second = 1;
    })
    .await;
    let user = Uuid::new_v4();
    let mut client = server.connect(user).await;
    let answer = ask(&server, user, "").await.json()["error"].take();
    // In one write, so that the server reads them at once, however slow the machine is.
    for _ in 0..40 {
        client
            .socket
            .feed(r#"{"type":"nothing"}"#.into())
            .await
            .unwrap();
    }
    client.socket.flush().await.unwrap();
    let frame = client.next_json().await;
    let close = loop {
        match soon("a close frame", client.try_next_text()).await {
            Ok(_) => {}
            Err(ClientError::Closed(Some(close))) => break close,
            Err(error) => panic!("{error}"),
        }
    };
    let close: Value = serde_json::from_str(&close.reason).unwrap();
    for (body, code, wait) in [
        (&answer, "user_limit", true),
        (&frame, "unknown_type", false),
        (&close, "rate_limited", true),
    ] {
        assert_eq!(body["code"], code, "{body}");
        assert!(body["message"].is_string(), "{body}");
        assert_eq!(body["retry_after_ms"].is_u64(), wait, "{body}");
        let known = ["type", "code", "message", "retry_after_ms"];
        let names = body.as_object().unwrap().keys();
        assert!(
            names.into_iter().all(|name| known.contains(&&**name)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_client_that_reads_state_too_often_is_refused() {
    let server = Server::start_with(|config| {
        no_exceptions(config);
        config.limits.requests_per_second_per_address = 1;
    })
    .await;
    for path in [
        "/messages/pending/",
        "/sessions/pending?device_id=",
        "/users/",
    ] {
        let rest = if path == "/users/" { "/devices" } else { "" };
        let path = format!("{path}{}{rest}", Uuid::new_v4());
        let refused = until_refused(async || server.get(&path).await).await;
        assert_eq!(refused.status, 429, "{path}");
        assert_eq!(refused.json()["error"]["code"], "address_rate_limit");
        assert_eq!(refused.headers["retry-after"], "1");
        // The limit does not cover the other routes.
        assert_eq!(server.get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn loopback_addresses_are_not_limited_by_default() {
    let server = Server::start_with(|config| {
        config.limits.connections_per_address_max = 1;
        config.limits.connections_per_second_per_address = 1;
    })
    .await;
    let _open = connect(&server, 5, Uuid::new_v4).await;
}

/// Clients whose missed events are only in the log wait for each other, and each gets its events.
#[tokio::test]
async fn replays_from_the_log_keep_to_the_rate() {
    let server = Server::start_with(|config| {
        config.limits.replay_pages_per_second = 5;
        config.recent_bytes_max = 65_536;
    })
    .await;
    let pool = server.db().await;
    let alice = crate::support::add_user(&pool).await;
    let cursor: String = sqlx::query_scalar("SELECT realtime.cursor()")
        .fetch_one(&pool)
        .await
        .unwrap();
    for _ in 0..300 {
        crate::support::insert_message(&pool, None, &alice, &alice).await;
    }
    let begun = tokio::time::Instant::now();
    let path = format!("/ws?user_id={}&since={cursor}", alice.id);
    let clients = (0..12).map(|_| async {
        let mut client = server.connect_to(&path).await;
        assert_eq!(client.next_json().await["replayed"], 300);
        for _ in 0..300 {
            assert_eq!(client.next_json().await["type"], "message");
        }
    });
    futures_util::future::join_all(clients).await;
    // Never earlier: five pages at once, and five in each second after.
    assert!(
        begun.elapsed().as_millis() >= 1_200,
        "{:?}",
        begun.elapsed()
    );
}
