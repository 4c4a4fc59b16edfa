//! Brokers that end, freeze and come back empty.

use hushnet_bus::{BusCause, BusEvent};

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
