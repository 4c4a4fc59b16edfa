//! What brokers refuse, and servers that are none: each has a cause of its own, and is tried again for ever.

use bytes::Bytes;
use hushnet_bus::{BusCause, Dropped, TlsSettings};
use hushnet_devbus::BrokerKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::node::{KINDS, Node, fails_again_and_again, server, subject};

#[tokio::test]
async fn a_wrong_login_is_refused_by_name_and_the_right_one_is_not() {
    for (kind, configuration, right, wrong) in [
        (
            BrokerKind::Redis,
            "user default off\nuser me on >s%c&ret ~* &* +@all",
            "me:s%25c&ret@",
            ["", "me:other@", ":s%25c&ret@", "you:s%25c&ret@"].as_slice(),
        ),
        (
            BrokerKind::Redis,
            "requirepass s%c&ret",
            ":s%25c&ret@",
            &["", ":other@"],
        ),
        (
            BrokerKind::Nats,
            "authorization { user: me, password: \"s%c&ret\" }",
            "me:s%25c&ret@",
            &["", "me:other@", "you:s%25c&ret@", "s%25c&ret@"],
        ),
        (
            BrokerKind::Nats,
            "authorization { token: \"s%c&ret\" }",
            "s%25c&ret@",
            &["", "other@", "me:s%25c&ret@"],
        ),
    ] {
        let server = server(kind, configuration).await;
        Node::new(&server, right).connected().await;
        for login in wrong {
            let mut node = Node::new(&server, login);
            let error = fails_again_and_again(&mut node, BusCause::LoginRefused).await;
            assert!(!error.to_string().contains("ret"), "{error}");
            assert!(error.advice().contains("password"));
        }
    }
}

#[tokio::test]
async fn a_server_of_another_kind_is_called_so() {
    for (kind, scheme, found) in [
        (BrokerKind::Redis, "nats", "a Redis server"),
        (BrokerKind::Nats, "redis", "a NATS server"),
    ] {
        let server = server(kind, "").await;
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        let mut node = Node::at(&url, TlsSettings::default());
        let error = fails_again_and_again(&mut node, BusCause::WrongProtocol).await;
        assert!(error.to_string().contains(found), "{error}");
    }
    // A Redis that asks for a password answers otherwise.
    let server = server(BrokerKind::Redis, "requirepass secret").await;
    let url = format!("nats://127.0.0.1:{}", server.port());
    let mut node = Node::at(&url, TlsSettings::default());
    let error = node.disconnected().await;
    assert_eq!(error.cause(), BusCause::WrongProtocol, "{error}");
}

#[tokio::test]
async fn a_web_server_is_no_bus_nor_is_one_that_closes_at_once() {
    for (answer, cause) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", BusCause::WrongProtocol),
        ("\0\u{1}\u{2}", BusCause::WrongProtocol),
        ("", BusCause::Closed),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
                let mut received = Vec::new();
                let _ = socket.read_to_end(&mut received).await;
            }
        });
        for scheme in ["redis", "nats"] {
            let url = format!("{scheme}://127.0.0.1:{port}");
            let mut node = Node::at(&url, TlsSettings::default());
            fails_again_and_again(&mut node, cause).await;
        }
        serving.abort();
    }
}

#[tokio::test]
async fn an_unknown_host_and_a_closed_port_are_unreachable() {
    for url in [
        "redis://127.0.0.1:1",
        "nats://127.0.0.1:1,[::1]:1",
        "nats://host.invalid",
    ] {
        let mut node = Node::at(url, TlsSettings::default());
        fails_again_and_again(&mut node, BusCause::Unreachable).await;
    }
}

#[tokio::test]
async fn a_payload_that_the_broker_does_not_take_is_refused_at_once() {
    let server = server(BrokerKind::Nats, "max_payload: 1000").await;
    let mut node = Node::subscribed(&server, &["hushnet.a"]).await;
    let name = subject("hushnet.a");
    let dropped = node.bus.publish(&name, Bytes::from(vec![0; 1001]));
    let expected = Dropped::PayloadTooLarge;
    assert_eq!(dropped, Err(expected));
    node.bus.publish(&name, Bytes::from(vec![0; 1000])).unwrap();
    assert_eq!(node.message().await.1.len(), 1000);
}

#[tokio::test]
async fn the_longest_payload_of_a_queue_passes() {
    for kind in KINDS {
        // NATS refuses more than 8 MiB by itself unless max_pending is raised.
        let configuration = match kind {
            BrokerKind::Redis => "",
            BrokerKind::Nats => "max_payload: 8MB",
        };
        let server = server(kind, configuration).await;
        let mut node = Node::subscribed(&server, &["hushnet.a"]).await;
        let length = hushnet_bus::PUBLISH_BYTES_MAX - 1000;
        let payload = Bytes::from(vec![7; length]);
        node.bus
            .publish(&subject("hushnet.a"), payload.clone())
            .unwrap();
        assert!(node.message().await.1 == payload);
    }
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_fails() {
    let server = server(BrokerKind::Nats, "").await;
    let url = format!("nats://127.0.0.1:1,127.0.0.1:{}", server.port());
    for _ in 0..3 {
        Node::at(&url, TlsSettings::default()).connected().await;
    }
}
