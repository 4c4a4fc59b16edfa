//! NATS servers that are one cluster.
//!
//! Each two servers have one route, which the later of them opens, through a proxy of its own. A server tells the others of
//! each server's address for routes; the address that is advertised here leads nowhere, so that no route goes around a proxy.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::BrokerError;
use crate::options::{BrokerKind, BrokerOptions};
use crate::port;
use crate::proxy::{BrokerProxy, Direction};
use crate::server::BrokerServer;

const SERVERS: usize = 3;
const WHOLE_DEADLINE: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(20);
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// Three NATS servers. Dropping it kills them.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<BrokerServer>,
    routes: Vec<Route>,
}

/// The only way between two servers.
#[derive(Debug)]
struct Route {
    ends: [usize; 2],
    proxy: BrokerProxy,
}

impl NatsCluster {
    /// Starts the servers, each with these options, and waits until every two have their route.
    pub async fn start(options: &BrokerOptions) -> Result<Self, BrokerError> {
        let mut cluster = Self {
            servers: Vec::new(),
            routes: Vec::new(),
        };
        let mut listens = Vec::new();
        for server in 0..SERVERS {
            let mut urls = Vec::new();
            for (earlier, port) in listens.iter().enumerate() {
                let proxy = BrokerProxy::plain(*port).await?;
                urls.push(format!("\"nats-route://127.0.0.1:{}\"", proxy.port()));
                let ends = [earlier, server];
                cluster.routes.push(Route { ends, proxy });
            }
            let listen = port::free()?;
            listens.push(listen);
            let options = BrokerOptions {
                configuration: format!(
                    "server_name: \"server-{server}\"\n\
                     cluster {{ name: hushnet, listen: \"127.0.0.1:{listen}\", advertise: \"{NOWHERE}\", \
                     no_advertise: true, routes: [{}] }}\n{}",
                    urls.join(", "),
                    options.configuration
                ),
                tls: options.tls.clone(),
            };
            let server = BrokerServer::start(BrokerKind::Nats, options).await?;
            cluster.servers.push(server);
        }
        cluster.until_whole().await?;
        Ok(cluster)
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &[BrokerServer] {
        &self.servers
    }

    /// One of the servers.
    pub fn server(&mut self, server: usize) -> &mut BrokerServer {
        &mut self.servers[server]
    }

    /// All of the servers.
    pub fn servers_mut(&mut self) -> &mut [BrokerServer] {
        &mut self.servers
    }

    /// Cuts all routes of this server, with an error or without a sound. Its clients stay connected.
    pub fn cut_routes(&self, of: usize, silently: bool) {
        for route in self.routes.iter().filter(|route| route.ends.contains(&of)) {
            if silently {
                route.proxy.freeze(Direction::Both);
            } else {
                route.proxy.refuse(true);
                route.proxy.cut(Direction::Both);
            }
        }
    }

    /// Mends all routes. What has waited on one that was cut without a sound comes now; with `lossy` it is lost.
    pub fn mend_routes(&self, lossy: bool) {
        for Route { proxy, .. } in &self.routes {
            proxy.refuse(false);
            if lossy {
                proxy.cut(Direction::Both);
            }
            proxy.thaw(Direction::Both);
        }
    }

    /// Waits until each server has a route to each other one.
    pub async fn until_whole(&self) -> Result<(), BrokerError> {
        let deadline = Instant::now() + WHOLE_DEADLINE;
        for server in &self.servers {
            while routes(server) != SERVERS - 1 {
                if Instant::now() > deadline {
                    return Err(BrokerError::Start {
                        program: BrokerKind::Nats.program(),
                        port: server.port(),
                        log: server.log(),
                    });
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// The routes that a server has, by its log.
fn routes(server: &BrokerServer) -> usize {
    let log = server.log();
    let created = log.matches("Route connection created").count();
    created.saturating_sub(log.matches("Router connection closed").count())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(2);

    struct Subscriber {
        lines: Lines<BufReader<TcpStream>>,
        asked: u32,
    }

    impl Subscriber {
        async fn new(port: u16) -> Self {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let hello = b"CONNECT {\"verbose\":false}\r\nSUB hushnet.> 1\r\nPING\r\n";
            socket.write_all(hello).await.unwrap();
            let lines = BufReader::new(socket).lines();
            let mut subscriber = Self { lines, asked: 0 };
            subscriber.until("PONG").await;
            subscriber
        }

        async fn until(&mut self, beginning: &str) {
            let reading = async {
                let mut line = String::new();
                while !line.starts_with(beginning) {
                    line = self.lines.next_line().await.unwrap().unwrap();
                }
            };
            timeout(PATIENCE, reading).await.unwrap();
        }

        /// Whether what is published on that server comes here, now.
        async fn hears(&mut self, port: u16) -> bool {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            self.asked += 1;
            let subject = format!("hushnet.{}", self.asked);
            let publish =
                format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} 1\r\nx\r\nPING\r\n");
            socket.write_all(publish.as_bytes()).await.unwrap();
            let message = format!("MSG {subject} ");
            timeout(Duration::from_millis(300), self.until(&message))
                .await
                .is_ok()
        }

        async fn comes_to_hear(&mut self, port: u16, hears: bool) {
            let begun = Instant::now();
            while self.hears(port).await != hears {
                assert!(begun.elapsed() < PATIENCE, "not {hears}");
            }
        }
    }

    #[tokio::test]
    async fn routes_are_cut_and_mended_while_clients_stay_and_nothing_goes_around() {
        let mut cluster = NatsCluster::start(&BrokerOptions::default()).await.unwrap();
        let ports: Vec<_> = cluster.servers().iter().map(BrokerServer::port).collect();
        let mut subscriber = Subscriber::new(ports[1]).await;
        for port in &ports {
            subscriber.comes_to_hear(*port, true).await;
        }
        for silently in [false, true] {
            cluster.cut_routes(2, silently);
            subscriber.comes_to_hear(ports[2], false).await;
            subscriber.comes_to_hear(ports[0], true).await;
            assert!(!subscriber.hears(ports[2]).await, "around the cut");
            cluster.mend_routes(silently);
            cluster.until_whole().await.unwrap();
            subscriber.comes_to_hear(ports[2], true).await;
        }
        for server in [0, 2] {
            cluster.server(server).end().await;
            cluster.server(server).restart().await.unwrap();
            cluster.until_whole().await.unwrap();
            subscriber.comes_to_hear(ports[server], true).await;
        }
    }
}
