//! Nodes, each a process with a link of its own to the broker and one to PostgreSQL.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hushnet_testkit::wait::until;
use sqlx::{Connection, PgConnection};

use super::bus::{Bus, Link, Over};
use crate::lab::Lab;
use crate::scene::{Plan, Scene};
use crate::service::Service;
use crate::settings;

const LEADS: &str = "hushnet_node_leading";
const FOLLOWS: &str = "hushnet_node_following";

/// A running scenario of many nodes: the scene's services are the nodes.
#[derive(Debug)]
pub struct Team {
    pub scene: Scene,
    pub bus: Bus,
    /// Each node's way to the bus.
    pub links: Vec<Link>,
    /// The number of the password that nodes are started with.
    pub password: u32,
    addresses: Vec<SocketAddr>,
    logs: Vec<PathBuf>,
}

impl Team {
    /// All clients are connected when this returns.
    pub async fn start(plan: Plan, over: Over, with_bus: bool) -> Self {
        let (seed, nodes) = (settings::seed(), settings::nodes());
        let bus = Bus::start(over).await;
        let mut lab = Lab::open().await;
        lab.link(nodes).await;
        let (mut links, mut logs) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            links.push(Link::start(&bus, seed ^ (node as u64) << 32).await);
            let log = format!("chaos-{}-{node}.log", plan.name);
            let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(log);
            let _ = fs::remove_file(&log);
            logs.push(log);
        }
        let mut services = Vec::new();
        for node in 0..nodes {
            let bus = with_bus.then(|| links[node].url(bus.kind(), 0));
            let any = "127.0.0.1:0".parse().unwrap();
            let arguments = arguments(node, bus);
            let url = lab.url_over(node);
            services.push(Service::start_node(&url, any, &arguments, &logs[node]).await);
        }
        let addresses = services.iter().map(|service| service.address).collect();
        Self {
            scene: Scene::set_with(plan, lab, services).await,
            bus,
            links,
            password: 0,
            addresses,
            logs,
        }
    }

    /// Waits until one node leads and the others follow.
    pub async fn settled(&self) {
        let followers = settings::nodes() as f64 - 1.0;
        until("one node to lead, and the others to follow", async || {
            let (mut leading, mut following) = (0.0, 0.0);
            for service in &self.scene.services {
                leading += service.gauges(&[LEADS]).await.unwrap_or(f64::NAN);
                following += service.gauges(&[FOLLOWS]).await.unwrap_or(f64::NAN);
            }
            (leading, following) == (1.0, followers)
        })
        .await;
    }

    /// The node that was elected last.
    pub async fn leader(&self) -> usize {
        let mut database = self.scene.lab.database().await;
        let mut leader = None;
        until("a node to have been elected", async || {
            leader = named(&mut database).await;
            leader.is_some()
        })
        .await;
        database.close().await.unwrap();
        leader.unwrap()
    }

    /// Kills a node.
    pub async fn kill(&mut self, node: usize) {
        let killed = self.scene.services.remove(node);
        killed.kill().await;
        self.scene
            .services
            .insert(node, self.launch(node, true).await);
    }

    /// Ends a node as an update does, and starts it again, with a bus or without.
    pub async fn replace(&mut self, node: usize, with_bus: bool) {
        let ended = self.scene.services.remove(node);
        ended.terminate().await;
        let started = self.launch(node, with_bus).await;
        self.scene.services.insert(node, started);
    }

    async fn launch(&self, node: usize, with_bus: bool) -> Service {
        let bus = with_bus.then(|| self.links[node].url(self.bus.kind(), self.password));
        let arguments = arguments(node, bus);
        let database = self.scene.lab.url_over(node);
        let address = self.addresses[node];
        Service::start_node(&database, address, &arguments, &self.logs[node]).await
    }
}

async fn named(database: &mut PgConnection) -> Option<usize> {
    let name = sqlx::query_scalar("SELECT name FROM realtime.leader").fetch_optional(database);
    let name: String = name.await.unwrap()?;
    name.strip_prefix("node-")?.parse().ok()
}

fn arguments(node: usize, bus: Option<String>) -> Vec<String> {
    let mut arguments = vec!["--node-name".to_owned(), format!("node-{node}")];
    if let Some(bus) = bus {
        arguments.extend(["--bus".to_owned(), bus]);
    }
    arguments
}
