//! The client's address arrives at the nodes: one client has one connection at each.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use super::nodes::Node;
use super::program::{Balancer, Kind};
use crate::behind_both;
use crate::support::{Database, soon};

/// Connects from this address of the machine, and lies about it. Returns the status line's beginning.
async fn ask(balancer: SocketAddr, from: &str, lie: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(balancer).await.unwrap();
    let request = format!(
        "GET /ws?user_id={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         X-Forwarded-For: {lie}\r\nForwarded: for={lie}\r\n\r\n",
        Uuid::new_v4()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = soon("an answer", stream.read_exact(&mut answer)).await;
    read.unwrap();
    (stream, String::from_utf8_lossy(&answer).into_owned())
}

behind_both! {
    async fn a_client_is_limited_by_its_own_address_whatever_it_writes(kind: Kind) {
        let database = Database::migrated().await;
        let start = async || {
            Node::start(kind, &database, |config| {
                config.limits.unlimited_addresses = "".parse().unwrap();
                config.limits.connections_per_address_max = 1;
            })
            .await
        };
        let nodes = [start().await, start().await];
        let balancer = Balancer::start(kind, nodes.each_ref().map(Node::address)).await;
        let mut open = Vec::new();
        for (from, lie, status) in [
            ("127.0.0.2", "198.51.100.1", "HTTP/1.1 101"),
            ("127.0.0.2", "198.51.100.2", "HTTP/1.1 101"),
            ("127.0.0.2", "198.51.100.3", "HTTP/1.1 429"),
            ("127.0.0.3", "127.0.0.2", "HTTP/1.1 101"),
            ("127.0.0.3", "198.51.100.4", "HTTP/1.1 101"),
            ("127.0.0.3", "198.51.100.5", "HTTP/1.1 429"),
        ] {
            let (stream, answer) = ask(balancer.address, from, lie).await;
            assert_eq!(answer, status, "{from}: {}", balancer.log());
            open.push(stream);
        }
        for node in &nodes {
            assert_eq!(node.open().await, 2);
        }
    }
}
