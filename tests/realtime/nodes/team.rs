//! A broker, a database, and nodes.

use std::net::SocketAddr;

use hushnet_devbus::{BrokerKind, BrokerOptions, BrokerServer};
use hushnet_realtime::config::Config;
use hushnet_testkit::program;
use hushnet_testkit::server::Server as Process;
use serde_json::Value;
use tokio::process::Command;
use uuid::Uuid;

use super::next_version;
use crate::support::{Client, Database, Server, until};

/// Nodes of one database over one bus.
pub struct Team {
    broker: Option<BrokerServer>,
    pub database: Database,
    url: String,
}

impl Team {
    pub async fn start(kind: BrokerKind) -> Self {
        Self::with(kind, BrokerOptions::default()).await
    }

    pub async fn with(kind: BrokerKind, options: BrokerOptions) -> Self {
        Self::of(kind, options, Database::migrated().await).await
    }

    /// Nodes of this database.
    pub async fn of(kind: BrokerKind, options: BrokerOptions, database: Database) -> Self {
        let broker = BrokerServer::start(kind, options).await.unwrap();
        let scheme = match kind {
            BrokerKind::Redis => "redis",
            BrokerKind::Nats => "nats",
        };
        let url = format!("{scheme}://127.0.0.1:{}", broker.port());
        Self {
            broker: Some(broker),
            database,
            url,
        }
    }

    /// Another database over the same broker.
    pub async fn of_the_same_broker(other: &Self) -> Self {
        Self {
            broker: None,
            database: Database::migrated().await,
            url: other.url.clone(),
        }
    }

    /// Nodes of a bus at this address.
    pub async fn at(url: &str) -> Self {
        Self {
            broker: None,
            database: Database::migrated().await,
            url: url.to_owned(),
        }
    }

    pub fn broker(&mut self) -> &mut BrokerServer {
        self.broker.as_mut().unwrap()
    }

    /// A node of this name.
    pub async fn node(&self, name: &str) -> Server {
        self.node_with(name, |_| {}).await
    }

    /// A node in a process of its own.
    pub async fn process(&self, name: &str) -> Process {
        let mut command = program::command(env!("CARGO_BIN_EXE_hushnet-realtime"));
        let address = "127.0.0.1:0".parse().unwrap();
        ready(command.arg("serve").args(self.arguments(name, address))).await
    }

    /// The same of the next version's program, at this address.
    pub async fn process_of_next_version(&self, name: &str, at: SocketAddr) -> Process {
        ready(&mut next_version::command(&self.arguments(name, at))).await
    }

    fn arguments(&self, name: &str, listen: SocketAddr) -> [String; 4] {
        [
            format!("--listen={listen}"),
            format!("--node-name={name}"),
            format!("--bus={}", self.url),
            format!("--database-url={}", self.database.url),
        ]
    }

    pub async fn node_with(&self, name: &str, change: impl FnOnce(&mut Config)) -> Server {
        let change = |config: &mut Config| {
            config.nodes.bus = self.url.parse().unwrap();
            config.nodes.node_name = Some(name.parse().unwrap());
            change(config);
        };
        Server::start_on(self.database.clone(), change).await
    }

    /// A node of this name that reaches the bus at this address.
    pub async fn node_at(&self, name: &str, url: &str) -> Server {
        self.node_with(name, |config| config.nodes.bus = url.parse().unwrap())
            .await
    }

    /// A leader and a follower of it.
    pub async fn pair(&self) -> (Server, Server) {
        let leader = self.node("leader").await;
        leads(&leader).await;
        let follower = self.node("follower").await;
        follows(&follower).await;
        (leader, follower)
    }
}

pub async fn leads(server: &Server) {
    server.until_metric("hushnet_node_leading", 1.0).await;
}

pub async fn follows(server: &Server) {
    server.until_metric("hushnet_node_following", 1.0).await;
}

/// The program that the command runs, as soon as it is ready.
async fn ready(command: &mut Command) -> Process {
    let process = Process::start(command).await;
    process.until_ready().await;
    process
}

/// Until one of these nodes leads and the others follow.
pub async fn settled(servers: &[&Server]) {
    let others = i64::try_from(servers.len()).unwrap() - 1;
    until("one node to lead, and the others to follow", async || {
        let leading = sum(servers, "hushnet_node_leading").await;
        let following = sum(servers, "hushnet_node_following").await;
        (leading, following) == (1, others)
    })
    .await;
}

/// The sum of a series of these nodes, as a whole number.
pub async fn sum(servers: &[&Server], series: &str) -> i64 {
    let mut sum = 0.0;
    for server in servers {
        sum += server.metric(series).await;
    }
    format!("{sum:.0}").parse().unwrap()
}

/// Until the node reads the log for itself.
pub async fn reads(server: &Server) {
    until("the node to read the log", async || {
        let following = sum(&[server], "hushnet_node_following").await;
        following + sum(&[server], "hushnet_node_leading").await == 0
    })
    .await;
}

/// Until `/readyz` gives this reason, or none.
pub async fn until_reason(server: &Server, wanted: Option<&str>) {
    until(&format!("/readyz to give {wanted:?}"), async || {
        let answer = server.get("/readyz").await;
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        let reasons = answer["reasons"].as_array().unwrap();
        let has = |name| reasons.iter().any(|reason| reason["code"] == name);
        wanted.map_or(reasons.is_empty(), has)
    })
    .await;
}

/// A v1 client of this user, and its `hello`.
pub async fn v1(server: &Server, user: Uuid, since: Option<&str>) -> (Client, Value) {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let path = format!("/ws?user_id={user}{since}");
    let mut client = server.connect_v1(&path).await;
    let hello = client.next_json().await;
    assert_eq!(hello["type"], "hello", "{hello}");
    (client, hello)
}

/// The next frame that is no notice of the cursor.
pub async fn next(client: &mut Client) -> Value {
    loop {
        let frame = client.next_json().await;
        // The users have just been added, and their devices are events too.
        if frame["type"] != "cursor" && frame["type"] != "device" {
            return frame;
        }
    }
}

/// The ids of so many events, in the order in which they come.
pub async fn ids(client: &mut Client, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let event = next(client).await;
        ids.push(event["id"].as_i64().unwrap_or_else(|| panic!("{event}")));
    }
    ids
}

/// Has the test run over both brokers.
#[macro_export]
macro_rules! over_both {
    ($($(#[$meta:meta])* async fn $name:ident($team:ident: $type:ty) $body:block)+) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                async fn test($team: $type) $body

                #[tokio::test]
                async fn over_redis() {
                    test(Team::start(hushnet_devbus::BrokerKind::Redis).await).await;
                }

                #[tokio::test]
                async fn over_nats() {
                    test(Team::start(hushnet_devbus::BrokerKind::Nats).await).await;
                }
            }
        )+
    };
}
