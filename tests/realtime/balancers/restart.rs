//! A rolling restart behind a balancer: all nodes of a bus are restarted, one after the other, while events are written.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hushnet_devbus::{BrokerKind, BrokerOptions, BrokerServer};
use hushnet_testkit::client::{self, Client, ClientError, SUBPROTOCOL_HEADER};
use hushnet_testkit::http;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use super::nodes::Node;
use super::program::{Balancer, Kind};
use crate::behind_both;
use crate::schema::assert_valid_frame;
use crate::support::{Database, soon, until};

const CLIENTS: usize = 40;
/// Between two messages of the writer, and between two new clients.
const PAUSE: Duration = Duration::from_millis(20);

/// A v1 client through the balancer, and its `hello`. It is let in at its first attempt: the balancer asks the other node
/// if one does not take it. A node that begins to end before it has said `hello` closes it as it closes all others, and
/// the client connects again.
pub async fn connect(balancer: SocketAddr, user: Uuid, since: Option<&str>) -> (Client, Value) {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let url = format!("ws://{balancer}/ws?user_id={user}{since}");
    loop {
        let request = client::request(&url, &[(SUBPROTOCOL_HEADER, "hushnet.v1")]);
        let connected = Client::connect(request, None, assert_valid_frame).await;
        let (mut client, _) = connected.unwrap();
        match client.try_next_text().await {
            Ok(hello) => {
                let hello: Value = serde_json::from_str(&hello).unwrap();
                assert_eq!(hello["type"], "hello", "{hello}");
                return (client, hello);
            }
            Err(ClientError::Closed(Some(close))) => assert_eq!(u16::from(close.code), 1012),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a client has received over all its connections.
#[derive(Default)]
struct Seen {
    cursor: Option<String>,
    messages: HashSet<i64>,
    connections: usize,
}

impl Seen {
    /// Reads until it has as many messages as were written, once that is known.
    async fn follow(
        mut self,
        balancer: SocketAddr,
        user: Uuid,
        mut written: watch::Receiver<Option<usize>>,
    ) -> Self {
        loop {
            let since = self.cursor.clone();
            let (mut client, hello) = connect(balancer, user, since.as_deref()).await;
            assert_eq!(hello["resumed"], since.is_some(), "{hello}");
            self.connections += 1;
            self.take(&hello);
            loop {
                let wanted = *written.borrow_and_update();
                if wanted.is_some_and(|wanted| self.messages.len() >= wanted) {
                    return self;
                }
                let frame = tokio::select! {
                    frame = client.try_next_text() => frame,
                    _ = written.changed() => continue,
                };
                match frame {
                    Ok(text) => self.take(&serde_json::from_str(&text).unwrap()),
                    Err(ClientError::Closed(Some(close))) => {
                        let code = u16::from(close.code);
                        assert!(code == 1012 || code == 1013, "{close}");
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn take(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            // One that is sent again counts once.
            "message" => _ = self.messages.insert(frame["id"].as_i64().unwrap()),
            "hello" | "cursor" | "goaway" => {}
            other => panic!("unexpected {other}: {frame}"),
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
    }
}

/// Writes messages to all users until it is stopped. Returns how many each has.
fn write(pool: PgPool, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut messages = 0;
        while !stop.load(Relaxed) {
            sqlx::query(
                "INSERT INTO messages (logical_msg_id, to_user_id, header, ciphertext) \
                 SELECT 'm', id, '{}', 'c' FROM users",
            )
            .execute(&pool)
            .await
            .unwrap();
            messages += 1;
            tokio::time::sleep(PAUSE).await;
        }
        messages
    })
}

/// New clients come one after another until they are stopped. Returns how many came.
fn newcomers(balancer: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut came = 0;
        while !stop.load(Relaxed) {
            connect(balancer, Uuid::new_v4(), None).await;
            came += 1;
            tokio::time::sleep(PAUSE).await;
        }
        came
    })
}

/// nginx stands before nodes over Redis, and HAProxy before nodes over NATS.
async fn broker(kind: Kind) -> (BrokerServer, String) {
    let (broker, scheme) = match kind {
        Kind::Nginx => (BrokerKind::Redis, "redis"),
        Kind::HaProxy => (BrokerKind::Nats, "nats"),
    };
    let broker = BrokerServer::start(broker, BrokerOptions::default()).await;
    let broker = broker.unwrap();
    let url = format!("{scheme}://127.0.0.1:{}", broker.port());
    (broker, url)
}

async fn node(kind: Kind, database: &Database, bus: &str, at: Option<SocketAddr>) -> Node {
    Node::start(kind, database, |config| {
        config.nodes.bus = bus.parse().unwrap();
        config.listen = at.unwrap_or(config.listen);
        config.drain_clients_per_second = 20;
        // For a machine that is busy with other tests.
        config.drain_deadline_ms = 600_000;
    })
    .await
}

/// Until one of them leads and the other follows.
async fn settled(nodes: [&Node; 2]) {
    until("one to lead and the other to follow", async || {
        let mut roles = [0, 0];
        for node in nodes {
            roles[0] += node.metric("hushnet_node_leading").await;
            roles[1] += node.metric("hushnet_node_following").await;
        }
        roles == [1, 1]
    })
    .await;
}

/// Drains a node while the other takes its clients.
async fn drain(mut node: Node, other: &Node) {
    node.server.begin_stop();
    node.server.stopped().await.unwrap();
    other.until_open(CLIENTS).await;
}

behind_both! {
    async fn clients_are_spread_and_a_rolling_restart_loses_nothing(kind: Kind) {
        let database = Database::migrated().await;
        let (_broker, bus) = broker(kind).await;
        let a = node(kind, &database, &bus, None).await;
        let b = node(kind, &database, &bus, None).await;
        settled([&a, &b]).await;
        let balancer = Balancer::start(kind, [a.address(), b.address()]).await;
        let pool = database.pool().await;
        let users: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO users (username) SELECT gen_random_uuid() FROM generate_series(1, $1) RETURNING id",
        )
        .bind(i32::try_from(CLIENTS).unwrap())
        .fetch_all(&pool)
        .await
        .unwrap();
        let (total, written) = watch::channel(None);
        let mut clients = JoinSet::new();
        for user in &users {
            clients.spawn(Seen::default().follow(balancer.address, *user, written.clone()));
        }
        until("all have come", async || a.open().await + b.open().await == CLIENTS).await;
        let at_b = b.open().await;
        assert!((CLIENTS / 4..=CLIENTS * 3 / 4).contains(&at_b), "{at_b} of {CLIENTS}");
        // The other routes go the same way.
        let devices = format!("/users/{}/devices", users[0]);
        assert_eq!(http::get(balancer.address, &devices).await.unwrap().status, 200);

        let stop = Arc::new(AtomicBool::new(false));
        let writing = write(pool, Arc::clone(&stop));
        let coming = newcomers(balancer.address, Arc::clone(&stop));
        let address = a.address();
        drain(a, &b).await;
        let a = node(kind, &database, &bus, Some(address)).await;
        match kind {
            // It asks no node: it knows by the first client.
            Kind::Nginx => {
                until("nginx knows that it is back", async || {
                    a.metric("hushnet_connections_opened_total").await > 0
                })
                .await;
            }
            Kind::HaProxy => balancer.until_up("node1").await,
        }
        settled([&a, &b]).await;
        drain(b, &a).await;
        stop.store(true, Relaxed);
        let messages = soon("the writer", writing).await.unwrap();
        total.send(Some(messages)).unwrap();

        let seen = soon("the clients", clients.join_all()).await;
        // They have stopped at the number that was written: more would be an event of somebody else.
        assert!(seen.iter().all(|seen| seen.messages.len() == messages));
        let connections: usize = seen.iter().map(|seen| seen.connections).sum();
        let came = soon("the newcomers", coming).await.unwrap();
        println!(
            "{CLIENTS} clients: {messages} messages each, {connections} connections; {came} newcomers"
        );
        // Those of the first node have moved twice, the others once. None was refused or reset: each waited for its own
        // next connection and no longer.
        assert_eq!(connections, 3 * CLIENTS - at_b);
        assert!(came > 10, "{came}");
    }
}
