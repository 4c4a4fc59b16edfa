//! Messages, subscriptions and their order.

use bytes::Bytes;
use hushnet_bus::{BusEvent, Dropped, PUBLISH_BYTES_MAX};

use crate::node::{KINDS, Node, server, subject, within};

#[tokio::test]
async fn a_message_reaches_all_subscribers_of_its_subject_and_no_others() {
    for kind in KINDS {
        let server = server(kind, "").await;
        let publisher = Node::subscribed(&server, &["hushnet.a"]).await;
        let mut same = Node::subscribed(&server, &["hushnet.a"]).await;
        let mut other = Node::subscribed(&server, &["hushnet.a.b", "hushnet.c"]).await;
        publisher.publish("hushnet.a", "1");
        publisher.publish("hushnet.c", "2");
        assert_eq!(same.message().await, ("hushnet.a".to_owned(), "1".into()));
        assert_eq!(other.message().await, ("hushnet.c".to_owned(), "2".into()));
        let mut itself = publisher;
        assert_eq!(itself.message().await, ("hushnet.a".to_owned(), "1".into()));
    }
}

#[tokio::test]
async fn what_is_published_after_subscribed_comes_whole_and_in_order() {
    const COUNT: usize = 20_000;
    for kind in KINDS {
        let server = server(kind, "").await;
        let publisher = Node::subscribed(&server, &[]).await;
        let mut reader = Node::subscribed(&server, &["hushnet.a", "hushnet.b"]).await;
        let publishing = tokio::spawn(async move {
            for number in 0..COUNT {
                // Lengths from nothing to 20 kB, and bytes that protocols use.
                let length = number * 37 % 20_000;
                let mut payload = format!("{number}\r\n").into_bytes();
                payload.resize(payload.len() + length, b"\r\n\0$"[number % 4]);
                let payload = Bytes::from(payload);
                let name = subject(["hushnet.a", "hushnet.b"][number % 2]);
                while publisher.bus.publish(&name, payload.clone()) == Err(Dropped::QueueFull) {
                    tokio::task::yield_now().await;
                }
            }
            publisher
        });
        for number in 0..COUNT {
            let (name, payload) = reader.message().await;
            let end = payload.iter().position(|byte| *byte == b'\r').unwrap();
            let found: usize = std::str::from_utf8(&payload[..end])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(found, number);
            assert_eq!(name, ["hushnet.a", "hushnet.b"][number % 2]);
            assert_eq!(payload.len(), end + 2 + number * 37 % 20_000);
        }
        within("the publisher", publishing).await.unwrap();
    }
}

#[tokio::test]
async fn subscriptions_end_and_are_made_again_and_wanting_one_twice_is_the_same() {
    for kind in KINDS {
        let server = server(kind, "").await;
        let mut node = Node::subscribed(&server, &["hushnet.a"]).await;
        node.bus.subscribe(subject("hushnet.a"));
        node.bus.subscribe(subject("hushnet.b"));
        // No second Subscribed for a.
        assert_eq!(node.next_subscribed().await, subject("hushnet.b"));
        node.bus.unsubscribe(&subject("hushnet.a"));
        node.bus.unsubscribe(&subject("hushnet.never"));
        node.bus.subscribe(subject("hushnet.c"));
        assert_eq!(node.next_subscribed().await, subject("hushnet.c"));
        node.publish("hushnet.a", "lost");
        node.publish("hushnet.b", "comes");
        assert_eq!(
            node.message().await,
            ("hushnet.b".to_owned(), "comes".into())
        );
        // Ended and wanted again before the driver looks: a new subscription all the same.
        node.bus.unsubscribe(&subject("hushnet.b"));
        node.bus.subscribe(subject("hushnet.b"));
        assert_eq!(node.next_subscribed().await, subject("hushnet.b"));
        node.publish("hushnet.b", "comes once");
        node.publish("hushnet.c", "after it");
        assert_eq!(node.message().await.1, "comes once");
        assert_eq!(node.message().await.1, "after it");
    }
}

#[tokio::test]
async fn thousands_of_subjects_are_confirmed_each() {
    const COUNT: usize = 2000;
    for kind in KINDS {
        let server = server(kind, "").await;
        let mut node = Node::subscribed(&server, &[]).await;
        for number in 0..COUNT {
            node.bus.subscribe(subject(&format!("hushnet.{number}")));
        }
        let mut confirmed = std::collections::HashSet::new();
        while confirmed.len() < COUNT {
            assert!(confirmed.insert(node.next_subscribed().await));
        }
        node.publish("hushnet.1999", "x");
        assert_eq!(node.message().await.0, "hushnet.1999");
    }
}

#[tokio::test]
async fn publishing_is_bounded_and_says_so() {
    for kind in KINDS {
        let mut server = server(kind, "").await;
        let unreachable = Node::at("redis://127.0.0.1:1", hushnet_bus::TlsSettings::default());
        let name = subject("hushnet.a");
        assert_eq!(
            unreachable.bus.publish(&name, Bytes::new()),
            Err(Dropped::Disconnected)
        );
        let mut node = Node::subscribed(&server, &[]).await;
        server.freeze();
        let payload = Bytes::from(vec![0; 100_000]);
        let mut taken = 0;
        // The kernel's buffers take some; then the driver writes no more.
        let full = async {
            loop {
                match node.bus.publish(&name, payload.clone()) {
                    Ok(()) => taken += 1,
                    Err(dropped) => return dropped,
                }
                if taken % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let dropped = within("a refusal", full).await;
        assert_eq!(dropped, Dropped::QueueFull);
        assert!(taken >= PUBLISH_BYTES_MAX / 101_000, "{taken}");
        let error = node.disconnected().await;
        assert_eq!(error.cause(), hushnet_bus::BusCause::Silent, "{error}");
        // What waited is gone with the connection.
        assert_eq!(node.bus.publish(&name, payload), Err(Dropped::Disconnected));
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_messages_with_a_gap_and_keeps_its_connection() {
    const LENGTH: usize = 512 * 1024;
    for kind in KINDS {
        let server = server(
            kind,
            match kind {
                hushnet_devbus::BrokerKind::Redis => "client-output-buffer-limit pubsub 0 0 0",
                hushnet_devbus::BrokerKind::Nats => "max_pending: 1GB",
            },
        )
        .await;
        let publisher = Node::subscribed(&server, &[]).await;
        let mut reader = Node::subscribed(&server, &["hushnet.a"]).await;
        let name = subject("hushnet.a");
        let mut sent = 0_usize;
        let mut seen = 0_usize;
        // Two are published for each that is read, until so many wait that some are dropped.
        loop {
            for _ in 0..2 {
                let mut payload = vec![0; LENGTH];
                payload[..8].copy_from_slice(&sent.to_be_bytes());
                let payload = Bytes::from(payload);
                let sending = async {
                    while publisher.bus.publish(&name, payload.clone()).is_err() {
                        tokio::task::yield_now().await;
                    }
                };
                within("room", sending).await;
                sent += 1;
            }
            match reader.next().await {
                BusEvent::Message { payload, .. } => {
                    assert_eq!(payload[..8], seen.to_be_bytes());
                    seen += 1;
                }
                BusEvent::Gap(cause) => break assert_eq!(cause.label(), "inbound_full"),
                other => panic!("{other:?}"),
            }
        }
        assert!((sent - seen) * LENGTH > hushnet_bus::INBOUND_BYTES_MAX / 2);
        // What comes after the gap comes in order, and the connection is the same.
        drop(publisher);
        reader.bus.subscribe(subject("hushnet.end"));
        loop {
            match reader.next().await {
                BusEvent::Message { payload, .. } => {
                    let number = usize::from_be_bytes(payload[..8].try_into().unwrap());
                    assert!(number > seen && number < sent);
                    seen = number;
                }
                BusEvent::Gap(_) => {}
                BusEvent::Subscribed(_) => break,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_driver_ends_with_its_reader_and_then_takes_nothing() {
    for kind in KINDS {
        let server = server(kind, "").await;
        let node = Node::subscribed(&server, &["hushnet.a"]).await;
        drop(node.events);
        within("the driver's end", node.driver).await.unwrap();
        let dropped = node.bus.publish(&subject("hushnet.a"), Bytes::new());
        assert_eq!(dropped, Err(Dropped::Disconnected));
    }
}
