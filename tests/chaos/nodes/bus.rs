//! The bus of a scenario, and each node's links to its servers.

use hushnet_devbus::{
    BrokerKind, BrokerOptions, BrokerProxy, BrokerServer, Direction, Faults, NatsCluster, RedisPair,
};

/// Which bus there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A Redis that has a replica.
    Redis,
    /// One NATS server.
    Nats,
    /// Three of them.
    NatsCluster,
}

/// The running bus.
#[derive(Debug)]
pub enum Bus {
    Redis(RedisPair),
    Nats(BrokerServer),
    NatsCluster(NatsCluster),
}

impl Bus {
    pub async fn start(over: Over) -> Self {
        match over {
            Over::Redis => Self::Redis(RedisPair::start(&redis_options(0)).await.unwrap()),
            Over::Nats => Self::Nats(
                BrokerServer::start(BrokerKind::Nats, nats_options())
                    .await
                    .unwrap(),
            ),
            Over::NatsCluster => {
                Self::NatsCluster(NatsCluster::start(&nats_options()).await.unwrap())
            }
        }
    }

    pub fn kind(&self) -> BrokerKind {
        match self {
            Self::Redis(_) => BrokerKind::Redis,
            Self::Nats(_) | Self::NatsCluster(_) => BrokerKind::Nats,
        }
    }

    /// Where nodes connect: of a Redis the primary alone.
    pub fn ports(&self) -> Vec<u16> {
        match self {
            Self::Redis(pair) => vec![pair.primary().port()],
            Self::Nats(server) => vec![server.port()],
            Self::NatsCluster(cluster) => {
                cluster.servers().iter().map(BrokerServer::port).collect()
            }
        }
    }

    /// The servers to which nodes connect.
    fn servers(&mut self) -> &mut [BrokerServer] {
        match self {
            Self::Redis(pair) => std::slice::from_mut(pair.primary_mut()),
            Self::Nats(server) => std::slice::from_mut(server),
            Self::NatsCluster(cluster) => cluster.servers_mut(),
        }
    }

    pub fn kill(&mut self) {
        for server in self.servers() {
            server.kill();
        }
    }

    /// Starts it anew, empty.
    pub async fn restart(&mut self) {
        for server in self.servers() {
            server.restart().await.unwrap();
        }
    }

    pub fn freeze(&mut self) {
        for server in self.servers() {
            server.freeze();
        }
    }

    pub fn thaw(&mut self) {
        for server in self.servers() {
            server.thaw();
        }
    }

    /// How often its servers have ended the connection of a node that does not read.
    pub fn dropped(&mut self) -> usize {
        let said = match self.kind() {
            BrokerKind::Redis => "output buffer limits",
            BrokerKind::Nats => "Slow Consumer",
        };
        let of_server = |server: &mut BrokerServer| {
            let log = server.log();
            // `rid:` is a route to another server.
            let is_drop = |line: &&str| line.contains(said) && !line.contains("rid:");
            log.lines().filter(is_drop).count()
        };
        self.servers().iter_mut().map(of_server).sum()
    }

    pub fn redis(&mut self) -> &mut RedisPair {
        match self {
            Self::Redis(pair) => pair,
            _ => unreachable!("only a Redis has a replica and passwords here"),
        }
    }

    pub fn cluster(&mut self) -> &mut NatsCluster {
        match self {
            Self::NatsCluster(cluster) => cluster,
            _ => unreachable!("only a cluster has routes"),
        }
    }
}

/// A Redis whose nodes have the password of this number. A node that does not read is dropped soon.
pub fn redis_options(password: u32) -> BrokerOptions {
    let configuration = format!(
        "client-output-buffer-limit pubsub 1mb 512kb 2\n\
         user hushnet on >{} resetkeys resetchannels &hushnet.* -@all +ping +publish +subscribe +unsubscribe\n",
        password_of(password)
    );
    BrokerOptions {
        configuration,
        tls: None,
    }
}

fn nats_options() -> BrokerOptions {
    BrokerOptions {
        configuration: "max_pending: 1100000\nwrite_deadline: \"2s\"\n".to_owned(),
        tls: None,
    }
}

/// The password of this number.
pub fn password_of(number: u32) -> String {
    format!("password-{number}")
}

/// A node's way to each server of the bus.
#[derive(Debug)]
pub struct Link(Vec<BrokerProxy>);

impl Link {
    pub async fn start(bus: &Bus, seed: u64) -> Self {
        let mut proxies = Vec::new();
        for (server, port) in bus.ports().into_iter().enumerate() {
            let seed = seed ^ (server as u64) << 48;
            proxies.push(BrokerProxy::start(bus.kind(), port, seed).await.unwrap());
        }
        Self(proxies)
    }

    /// The URL of a node that has this password, if it needs one.
    pub fn url(&self, kind: BrokerKind, password: u32) -> String {
        let hosts = self.0.iter().map(|of| format!("127.0.0.1:{}", of.port()));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        match kind {
            BrokerKind::Redis => format!("redis://hushnet:{}@{hosts}", password_of(password)),
            BrokerKind::Nats => format!("nats://{hosts}"),
        }
    }

    /// Leads new connections to where the bus is now.
    pub fn lead_to(&self, bus: &Bus) {
        for (proxy, port) in self.0.iter().zip(bus.ports()) {
            proxy.lead_to(port);
        }
    }

    pub fn inject(&self, faults: Faults) {
        for proxy in &self.0 {
            proxy.inject(faults);
        }
    }

    pub fn freeze(&self, direction: Direction) {
        for proxy in &self.0 {
            proxy.freeze(direction);
        }
    }

    pub fn thaw(&self, direction: Direction) {
        for proxy in &self.0 {
            proxy.thaw(direction);
        }
    }

    pub fn cut(&self, direction: Direction) {
        for proxy in &self.0 {
            proxy.cut(direction);
        }
    }

    pub fn refuse(&self, refuses: bool) {
        for proxy in &self.0 {
            proxy.refuse(refuses);
        }
    }
}
