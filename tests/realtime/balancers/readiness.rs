//! Which node gets new clients, and how long a silent one is kept.

use std::time::Duration;

use hushnet_realtime::config::Config;
use uuid::Uuid;

use super::nodes::Node;
use super::program::{Balancer, Kind};
use super::restart::connect;
use crate::support::{Database, until};

/// It has the fewest connections, and would get every client.
#[tokio::test]
async fn a_node_that_is_not_ready_gets_no_new_client_of_haproxy() {
    let kind = Kind::HaProxy;
    let database = Database::migrated().await;
    let away = Node::start_unready(kind, &database, |config| {
        config.database_url = Some("postgres://nobody@127.0.0.1:1/none".parse().unwrap());
    });
    let ready = Node::start(kind, &database, |_| {}).await;
    until("the node answers", async || {
        away.get("/readyz").await.status == 503
    })
    .await;
    let balancer = Balancer::start(kind, [away.address(), ready.address()]).await;
    until("HAProxy has asked", async || {
        balancer.log().contains("nodes/node1 is DOWN")
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect(balancer.address, Uuid::new_v4(), None).await);
    }
    assert_eq!(ready.open().await, clients.len());
    assert_eq!(away.metric("hushnet_connections_opened_total").await, 0);
    assert_eq!(away.metric("hushnet_connections_rejected_total").await, 0);
}

#[test]
fn a_silent_connection_is_kept_for_longer_than_the_server_s_ping_and_pong() {
    let config = Config::default();
    let silence = Duration::from_millis((config.ping_interval_ms + config.pong_timeout_ms).into());
    for (kind, settings) in [
        (
            Kind::Nginx,
            &["proxy_read_timeout ", "proxy_send_timeout "][..],
        ),
        (Kind::HaProxy, &["timeout tunnel "]),
    ] {
        let text = kind.file();
        for setting in settings {
            let (_, rest) = text.split_once(setting).unwrap();
            let (seconds, _) = rest.split_once('s').unwrap();
            let kept = Duration::from_secs(seconds.parse().unwrap());
            assert!(kept > 2 * silence, "{setting}{kept:?}");
            let comment = format!("together, {} s.", silence.as_secs());
            assert!(text.contains(&comment), "{comment}");
        }
    }
}
