//! Brokers that end, freeze and come back empty.

use hushnet_bus::{BusCause, BusEvent, GapCause, TlsSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::node::{KINDS, Node, fails_again_and_again, server, subject};

#[tokio::test]
async fn a_broker_that_comes_back_empty_is_found_and_all_subscriptions_are_made_again() {
    for kind in KINDS {
        let mut server = server(kind, "").await;
        let mut node = Node::subscribed(&server, &["hushnet.a", "hushnet.b"]).await;
        server.kill();
        assert_eq!(node.disconnected().await.cause(), BusCause::Closed);
        let error = fails_again_and_again(&mut node, BusCause::Unreachable).await;
        assert!(error.advice().contains("port"), "{}", error.advice());
        // Changes while there is no connection hold for the next.
        node.bus.unsubscribe(&subject("hushnet.a"));
        node.bus.subscribe(subject("hushnet.c"));
        server.restart().await.unwrap();
        node.connected().await;
        let mut again = [node.next_subscribed().await, node.next_subscribed().await];
        again.sort();
        assert_eq!(again, [subject("hushnet.b"), subject("hushnet.c")]);
        node.publish("hushnet.c", "x");
        assert_eq!(node.message().await.1, "x");
    }
}

#[tokio::test]
async fn a_frozen_broker_is_silent_also_for_a_node_that_comes_then() {
    for kind in KINDS {
        let mut server = server(kind, "").await;
        let mut node = Node::subscribed(&server, &["hushnet.a"]).await;
        server.freeze();
        fails_again_and_again(&mut node, BusCause::Silent).await;
        server.thaw();
        node.connected().await;
        node.next_subscribed().await;
        node.publish("hushnet.a", "x");
        assert_eq!(node.message().await.1, "x");
    }
}

#[tokio::test]
async fn a_node_gives_up_its_connection_when_it_is_asked_to() {
    for kind in KINDS {
        let server = server(kind, "").await;
        let mut node = Node::subscribed(&server, &["hushnet.a"]).await;
        node.bus.reconnect();
        let BusEvent::Disconnected(error) = node.next().await else {
            panic!("it goes on");
        };
        assert_eq!(error.cause(), BusCause::Requested);
        node.connected().await;
        node.next_subscribed().await;
        node.publish("hushnet.a", "x");
        assert_eq!(node.message().await.1, "x");
    }
}

/// Reads until the bytes have come.
async fn expect(socket: &mut TcpStream, expected: &str) {
    let mut received = vec![0; expected.len()];
    socket.read_exact(&mut received).await.unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), expected);
}

/// No real server can be made to do this: a Redis Cluster does it to the channels of a slot that moves.
#[tokio::test]
async fn a_subscription_that_the_broker_ends_is_a_gap_and_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let mut node = Node::at(&url, TlsSettings::default());
    node.bus.subscribe(subject("a"));
    let (mut socket, _) = listener.accept().await.unwrap();
    let hello = "*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$7\r\nhushnet\r\n";
    let subscribe = "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n";
    let subscribed = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
    expect(&mut socket, hello).await;
    socket.write_all(b"%0\r\n").await.unwrap();
    node.connected().await;
    expect(&mut socket, subscribe).await;
    socket.write_all(subscribed).await.unwrap();
    node.next_subscribed().await;
    let ended = b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n";
    socket.write_all(ended).await.unwrap();
    let gap = BusEvent::Gap(GapCause::Unsubscribed(subject("a")));
    assert_eq!(node.next().await, gap);
    expect(&mut socket, subscribe).await;
    socket.write_all(subscribed).await.unwrap();
    assert_eq!(node.next_subscribed().await, subject("a"));
}
