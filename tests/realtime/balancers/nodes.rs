//! Nodes behind a balancer.

use std::net::SocketAddr;

use hushnet_realtime::config::Config;
use hushnet_testkit::http::{self, Response};
use hushnet_testkit::server::until_ready;

use super::program::{Kind, free_address};
use crate::support::{Database, Server, until};

/// A node that believes the balancer about its clients' addresses.
pub struct Node {
    pub server: Server,
    /// The operators' own address: there is no balancer before it.
    operators: SocketAddr,
}

impl Node {
    /// It is ready when this returns.
    pub async fn start(kind: Kind, database: &Database, change: impl FnOnce(&mut Config)) -> Self {
        let node = Self::start_unready(kind, database, change);
        until_ready(node.operators).await;
        node
    }

    pub fn start_unready(
        kind: Kind,
        database: &Database,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let operators = free_address();
        let server = Server::start_unready(database.clone(), |config| {
            config.edge.metrics_listen = Some(operators);
            config.edge.proxy_protocol = kind.proxy_protocol();
            // Both balancers come from the address that they connect to.
            config.limits.trusted_proxies = "127.0.0.1".parse().unwrap();
            change(config);
        });
        Self { server, operators }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub async fn get(&self, path: &str) -> Response {
        http::get(self.operators, path).await.unwrap()
    }

    /// The value of a series without labels, or the sum of those with this name.
    pub async fn metric(&self, name: &str) -> usize {
        let response = self.get("/metrics").await;
        let of_name = response.body.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values = of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
        let values: Vec<_> = values.collect();
        assert!(!values.is_empty(), "no {name}");
        values.iter().sum()
    }

    pub async fn open(&self) -> usize {
        self.metric("hushnet_connections_open").await
    }

    pub async fn until_open(&self, clients: usize) {
        until(&format!("{clients} clients are here"), async || {
            self.open().await >= clients
        })
        .await;
    }
}
