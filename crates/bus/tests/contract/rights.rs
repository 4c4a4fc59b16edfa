//! The rights that SECURITY.md gives a node are enough, and each of them is needed.

use bytes::Bytes;
use hushnet_bus::{BusCause, BusEvent};
use hushnet_devbus::{BrokerKind, BrokerServer};

use crate::node::{KINDS, Node, fails_again_and_again, server, subject};

const SECURITY: &str = include_str!("../../../../SECURITY.md");
const DEPLOYMENT: &str = include_str!("../../../../docs/deployment.md");

/// The block of code that begins so.
fn block(text: &'static str, beginning: &str) -> &'static str {
    let mut blocks = text.split("```").skip(1).step_by(2);
    let code = blocks.find_map(|block| {
        let (_, code) = block.split_once('\n')?;
        code.starts_with(beginning).then_some(code)
    });
    code.expect("the document has the example")
}

/// The example in SECURITY.md.
fn example(kind: BrokerKind) -> &'static str {
    let beginning = match kind {
        BrokerKind::Redis => "user default off",
        BrokerKind::Nats => "authorization {",
    };
    block(SECURITY, beginning)
}

/// A node with the login of the examples, which receives what it publishes.
async fn working_node(server: &BrokerServer) -> Node {
    let mut node = Node::new(server, "hushnet:change-me@");
    node.bus.subscribe(subject("hushnet.h1.shard.0"));
    node.connected().await;
    node.next_subscribed().await;
    node.publish("hushnet.h1.shard.0", "x");
    assert_eq!(node.message().await.1, "x");
    node
}

#[tokio::test]
async fn a_node_with_the_rights_of_the_example_works() {
    for kind in KINDS {
        let server = server(kind, example(kind)).await;
        let mut node = working_node(&server).await;
        // It may also end a subscription.
        node.bus.unsubscribe(&subject("hushnet.h1.shard.0"));
        node.bus.subscribe(subject("hushnet.h1.control"));
        node.next_subscribed().await;
        node.publish("hushnet.h1.control", "y");
        assert_eq!(node.message().await.1, "y");
    }
}

/// One server of it, on ports of its own; it does not find the others.
#[tokio::test]
async fn a_node_works_with_a_server_of_the_cluster_in_the_deployment_guide() {
    let text = block(DEPLOYMENT, "server_name: ");
    let text = text.replace("listen: \"0.0.0.0:4222\"\n", "");
    let text = text.replace("0.0.0.0:6222", "127.0.0.1:-1");
    let server = server(BrokerKind::Nats, &text).await;
    working_node(&server).await;
}

#[tokio::test]
async fn without_the_rights_it_is_refused_by_name() {
    for kind in KINDS {
        let server = server(kind, example(kind)).await;
        let mut node = Node::new(&server, "hushnet:change-me@");
        node.bus.subscribe(subject("other.shard"));
        let error = fails_again_and_again(&mut node, BusCause::SubscribeRefused).await;
        assert!(error.advice().contains("hushnet."), "{}", error.advice());
        let mut node = Node::new(&server, "hushnet:change-me@");
        for _ in 0..3 {
            node.connected().await;
            let payload = Bytes::from_static(b"x");
            node.bus.publish(&subject("other.shard"), payload).unwrap();
            let BusEvent::Disconnected(error) = node.next().await else {
                panic!("it goes on");
            };
            assert_eq!(error.cause(), BusCause::PublishRefused, "{error}");
        }
        Node::new(&server, "").disconnected().await;
    }
}

#[tokio::test]
async fn a_redis_user_needs_each_right_of_the_example() {
    for right in ["+publish", "+subscribe", "+ping", "&hushnet.*"] {
        let text = example(BrokerKind::Redis).replace(&format!(" {right}"), "");
        assert_ne!(text, example(BrokerKind::Redis), "{right}");
        let server = server(BrokerKind::Redis, &text).await;
        let mut node = Node::new(&server, "hushnet:change-me@");
        node.bus.subscribe(subject("hushnet.a"));
        let cause = loop {
            match node.next().await {
                BusEvent::Disconnected(error) => break error.cause(),
                BusEvent::Subscribed(_) => node.publish("hushnet.a", "x"),
                _ => {}
            }
        };
        let expected = match right {
            "+publish" => BusCause::PublishRefused,
            "+ping" => BusCause::Refused,
            _ => BusCause::SubscribeRefused,
        };
        assert_eq!(cause, expected, "{right}");
    }
}
