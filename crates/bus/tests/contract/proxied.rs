//! The bus through a proxy that breaks what passes: what comes, comes whole, and what is broken is noticed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hushnet_bus::{BusCause, BusEvent, TlsSettings};
use hushnet_devbus::{BrokerKind, BrokerProxy, BrokerServer, Direction, FaultCounts, Faults};

use crate::node::{DEADLINE, KINDS, Node, scheme, server, subject};

const SEED: u64 = 20_261;

async fn proxied(server: &BrokerServer) -> (BrokerProxy, Node) {
    let proxy = BrokerProxy::start(server.kind(), server.port(), SEED)
        .await
        .unwrap();
    let url = format!("{}://127.0.0.1:{}", scheme(server.kind()), proxy.port());
    let node = Node::at(&url, TlsSettings::default());
    (proxy, node)
}

#[tokio::test]
async fn single_messages_are_lost_repeated_delayed_and_swapped_and_confirmations_are_not() {
    const COUNT: usize = 5000;
    for kind in KINDS {
        let server = server(kind, "").await;
        let publisher = Node::subscribed(&server, &[]).await;
        let (proxy, mut node) = proxied(&server).await;
        proxy.inject(Faults {
            drop: 0.1,
            repeat: 0.1,
            delay: 0.1,
            swap: 0.1,
            delay_max: Duration::from_millis(50),
        });
        node.bus.subscribe(subject("hushnet.a"));
        node.connected().await;
        node.next_subscribed().await;
        for number in 0..COUNT {
            let payload = Bytes::from(number.to_be_bytes().to_vec());
            publisher
                .bus
                .publish(&subject("hushnet.a"), payload)
                .unwrap();
        }
        let started = Instant::now();
        let mut times = vec![0; COUNT];
        let mut came = Vec::new();
        let total = |counts: FaultCounts| {
            counts.passed + counts.dropped + counts.repeated + counts.delayed + counts.swapped
        };
        loop {
            let counts = proxy.counts();
            let expected = total(counts) - counts.dropped + counts.repeated;
            if total(counts) == COUNT as u64 && came.len() as u64 == expected {
                break;
            }
            // The last message may be one that is dropped: then none comes.
            let pause = Duration::from_millis(10);
            match tokio::time::timeout(pause, node.events.next()).await {
                Ok(BusEvent::Message { payload, .. }) => {
                    let number = usize::from_be_bytes(payload[..].try_into().unwrap());
                    times[number] += 1;
                    came.push(number);
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => assert!(started.elapsed() < DEADLINE, "{counts:?}"),
            }
        }
        let counts = proxy.counts();
        let lost = times.iter().filter(|times| **times == 0).count() as u64;
        let twice = times.iter().filter(|times| **times == 2).count() as u64;
        assert_eq!((lost, twice), (counts.dropped, counts.repeated));
        assert!(!came.is_sorted());
        for count in [
            counts.dropped,
            counts.repeated,
            counts.delayed,
            counts.swapped,
        ] {
            assert!(count > COUNT as u64 / 20, "{counts:?}");
        }
        // Switched off, everything comes in order.
        proxy.inject(Faults::default());
        publisher.publish("hushnet.a", "1");
        publisher.publish("hushnet.a", "2");
        assert_eq!(node.message().await.1, "1");
        assert_eq!(node.message().await.1, "2");
    }
}

#[tokio::test]
async fn a_connection_that_is_frozen_in_either_direction_is_noticed() {
    for kind in KINDS {
        for direction in [Direction::ToNode, Direction::ToBroker, Direction::Both] {
            let server = server(kind, "").await;
            let (proxy, mut node) = proxied(&server).await;
            node.bus.subscribe(subject("hushnet.a"));
            node.connected().await;
            node.next_subscribed().await;
            proxy.freeze(direction);
            let error = node.disconnected().await;
            assert_eq!(error.cause(), BusCause::Silent, "{error}");
            proxy.thaw(direction);
            node.connected().await;
            node.next_subscribed().await;
            node.publish("hushnet.a", "x");
            assert_eq!(node.message().await.1, "x");
        }
    }
}

#[tokio::test]
async fn a_half_open_link_over_which_messages_come_is_noticed() {
    for kind in KINDS {
        let server = server(kind, "").await;
        let publisher = Node::subscribed(&server, &[]).await;
        let (proxy, mut node) = proxied(&server).await;
        node.bus.subscribe(subject("hushnet.a"));
        node.connected().await;
        node.next_subscribed().await;
        proxy.freeze(Direction::ToBroker);
        // Its pings are not answered, and messages come all the same.
        let publishing = tokio::spawn(async move {
            loop {
                publisher.publish("hushnet.a", "x");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut messages = 0;
        let frozen = Instant::now();
        let error = loop {
            assert!(frozen.elapsed() < DEADLINE, "it goes on");
            match node.next().await {
                BusEvent::Message { .. } => messages += 1,
                BusEvent::Disconnected(error) => break error,
                other => panic!("{other:?}"),
            }
        };
        publishing.abort();
        assert_eq!(error.cause(), BusCause::Silent, "{error}");
        assert!(messages > 10, "{messages}");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_in_either_direction_is_made_again() {
    for kind in KINDS {
        for direction in [Direction::ToNode, Direction::ToBroker, Direction::Both] {
            let server = server(kind, "").await;
            let (proxy, mut node) = proxied(&server).await;
            node.bus.subscribe(subject("hushnet.a"));
            node.connected().await;
            node.next_subscribed().await;
            proxy.refuse(true);
            proxy.cut(direction);
            let error = node.disconnected().await;
            assert_eq!(error.cause(), BusCause::Closed, "{error}");
            let error = node.disconnected().await;
            assert_eq!(error.cause(), BusCause::Closed, "{error}");
            proxy.refuse(false);
            node.connected().await;
            node.next_subscribed().await;
            node.publish("hushnet.a", "x");
            assert_eq!(node.message().await.1, "x");
        }
    }
}

#[tokio::test]
async fn a_node_that_cannot_read_loses_its_connection_and_comes_back() {
    for kind in KINDS {
        let configuration = match kind {
            BrokerKind::Redis => "client-output-buffer-limit pubsub 1mb 0 0",
            BrokerKind::Nats => "max_pending: 1MB\nmax_payload: 100KB",
        };
        let server = server(kind, configuration).await;
        let publisher = Node::subscribed(&server, &[]).await;
        let (proxy, mut node) = proxied(&server).await;
        node.bus.subscribe(subject("hushnet.a"));
        node.connected().await;
        node.next_subscribed().await;
        proxy.freeze(Direction::ToNode);
        // More than the kernel's buffers take, in less time than the node waits.
        let payload = Bytes::from(vec![0; 100_000]);
        for _ in 0..500 {
            let name = subject("hushnet.a");
            while publisher.bus.publish(&name, payload.clone()).is_err() {
                tokio::task::yield_now().await;
            }
        }
        proxy.thaw(Direction::ToNode);
        let error = node.disconnected().await;
        let words = match kind {
            BrokerKind::Redis => "output buffer limits",
            BrokerKind::Nats => "Slow Consumer",
        };
        let cause = error.cause();
        // On a slow machine the node gives up first.
        assert!(
            cause == BusCause::Silent || server.log().contains(words),
            "{error}: {}",
            server.log()
        );
        assert!(
            [BusCause::Closed, BusCause::SlowConsumer, BusCause::Silent].contains(&cause),
            "{error}"
        );
        node.connected().await;
    }
}
