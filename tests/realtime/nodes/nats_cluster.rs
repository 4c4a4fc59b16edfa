//! A cluster of three NATS servers as the bus: servers end, and routes between them are cut while the nodes stay connected.

use hushnet_devbus::{BrokerKind, BrokerOptions, BrokerProxy, BrokerServer, NatsCluster};

use super::team::{Team, follows, ids, leads, reads, settled, until_reason, v1};
use crate::support::{Client, Server, add_user, insert_message};

async fn cluster() -> NatsCluster {
    NatsCluster::start(&BrokerOptions::default()).await.unwrap()
}

/// The URL that names these servers, in their order.
fn url(servers: &[BrokerServer]) -> String {
    let hosts = servers.iter().map(|of| format!("127.0.0.1:{}", of.port()));
    format!("nats://{}", hosts.collect::<Vec<_>>().join(","))
}

/// A client of each node, and the ids of the events that each has.
struct Clients {
    db: sqlx::PgPool,
    users: [crate::support::User; 2],
    sockets: Vec<Client>,
    ids: Vec<Vec<i64>>,
}

impl Clients {
    async fn of(nodes: &[&Server]) -> Self {
        let db = nodes[0].db().await;
        let users = [add_user(&db).await, add_user(&db).await];
        let mut sockets = Vec::new();
        for node in nodes {
            sockets.push(v1(node, users[1].id, None).await.0);
        }
        let ids = vec![Vec::new(); sockets.len()];
        Self {
            db,
            users,
            sockets,
            ids,
        }
    }

    async fn write(&self) {
        let [alice, bob] = &self.users;
        insert_message(&self.db, None, alice, bob).await;
    }

    /// Each client has each event, once and in order.
    async fn have(&mut self, count: usize) {
        for (client, all) in self.sockets.iter_mut().zip(&mut self.ids) {
            all.extend(ids(client, count - all.len()).await);
        }
        for all in &self.ids {
            assert!(all.is_sorted_by(|a, b| a < b), "{:?}", self.ids);
            assert_eq!(*all, self.ids[0]);
        }
    }
}

/// With events all the time. Each server ends once, so that each node loses its own.
#[tokio::test]
async fn servers_that_are_killed_or_restarted_one_by_one_lose_nothing() {
    let mut cluster = cluster().await;
    let team = Team::at(&url(cluster.servers())).await;
    let (leader, follower) = team.pair().await;
    let mut clients = Clients::of(&[&leader, &follower]).await;
    for server in 0..cluster.servers().len() {
        let written = 4 * server;
        clients.write().await;
        clients.have(written + 1).await;
        if server == 0 {
            cluster.server(server).kill();
        } else {
            cluster.server(server).end().await;
        }
        clients.write().await;
        clients.have(written + 2).await;
        // They do not wait for the server.
        settled(&[&leader, &follower]).await;
        clients.write().await;
        cluster.server(server).restart().await.unwrap();
        clients.write().await;
        cluster.until_whole().await.unwrap();
        clients.have(written + 4).await;
        settled(&[&leader, &follower]).await;
    }
    for node in [&leader, &follower] {
        until_reason(node, None).await;
    }
}

/// Both nodes stay connected. The follower's server brings nothing of the leader's, and no connection breaks.
#[tokio::test]
async fn routes_that_are_cut_are_known_by_the_silence_and_lose_nothing() {
    let cluster = cluster().await;
    let servers = cluster.servers();
    let team = Team::at(&url(&servers[..1])).await;
    let leader = team.node("leader").await;
    leads(&leader).await;
    let follower = team.node_at("follower", &url(&servers[1..2])).await;
    follows(&follower).await;
    let mut clients = Clients::of(&[&leader, &follower]).await;
    for (round, silently) in [false, true].into_iter().enumerate() {
        let written = 3 * round;
        clients.write().await;
        clients.have(written + 1).await;
        cluster.cut_routes(0, silently);
        // It is on its way when the silence begins.
        clients.write().await;
        clients.have(written + 2).await;
        if round == 0 {
            reads(&follower).await;
            until_reason(&follower, Some("bus_silent")).await;
            assert_eq!(follower.get("/readyz").await.status, 200);
        }
        cluster.mend_routes(silently);
        clients.write().await;
        clients.have(written + 3).await;
        settled(&[&leader, &follower]).await;
    }
    until_reason(&follower, None).await;
}

/// Most nodes receive the leader, which therefore stays where it is.
#[tokio::test]
async fn a_node_whose_server_brings_nothing_goes_to_another() {
    let cluster = cluster().await;
    let servers = cluster.servers();
    let team = Team::at(&url(&servers[..1])).await;
    let (leader, second) = team.pair().await;
    let mut links = Vec::new();
    for server in [0, 2] {
        let link = BrokerProxy::start(BrokerKind::Nats, servers[server].port(), 1);
        links.push(link.await.unwrap());
    }
    let hosts = [&links[0], &links[1]].map(|link| format!("127.0.0.1:{}", link.port()));
    links[0].refuse(true);
    let third = team
        .node_at("third", &format!("nats://{}", hosts.join(",")))
        .await;
    follows(&third).await;
    links[0].refuse(false);
    let mut clients = Clients::of(&[&leader, &second, &third]).await;
    clients.write().await;
    clients.have(1).await;
    cluster.cut_routes(2, true);
    clients.write().await;
    reads(&third).await;
    clients.have(2).await;
    follows(&third).await;
    until_reason(&third, None).await;
    clients.write().await;
    clients.have(3).await;
    leads(&leader).await;
}
