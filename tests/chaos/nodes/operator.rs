//! What happens to one kind of bus alone, mostly by its operator's hand.

use hushnet_devbus::Direction;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::bus::{password_of, redis_options};
use super::team::Team;
use crate::settings;

/// The fault lasts for its time.
pub async fn last(team: &Team) {
    team.scene.load(settings::fault_time()).await;
}

/// Both passwords are good, the nodes are restarted with the new one, and the old one ends. One node is forgotten until it
/// has lost its connection and been refused for a while.
pub async fn change_password(team: &mut Team, forgotten: usize) {
    let (old, new) = (team.password, team.password + 1);
    team.password = new;
    let add = format!("ACL SETUSER hushnet >{}", password_of(new));
    team.bus.redis().ask_both(&add).await.unwrap();
    for node in (0..settings::nodes()).filter(|node| *node != forgotten) {
        team.replace(node, true).await;
    }
    let remove = format!("ACL SETUSER hushnet <{}", password_of(old));
    let pair = team.bus.redis();
    pair.ask_both(&remove).await.unwrap();
    for server in pair.servers_mut() {
        server.set_options(redis_options(new));
    }
    team.links[forgotten].cut(Direction::Both);
    last(team).await;
    team.replace(forgotten, true).await;
}

/// By `FAILOVER`, or since the primary is gone, or with both as primaries for a while. Some nodes find the new primary
/// before the others.
pub async fn fail_over(team: &mut Team, rng: &mut StdRng) {
    let how = rng.random_range(0..3);
    eprintln!(
        "  {}",
        [
            "by FAILOVER",
            "the primary is killed",
            "there are two primaries"
        ][how]
    );
    let pair = team.bus.redis();
    // It may have been restarted lately.
    pair.demote().await.unwrap();
    match how {
        0 => pair.fail_over().await.unwrap(),
        1 => {
            pair.primary_mut().kill();
            pair.promote().await.unwrap();
        }
        _ => pair.promote().await.unwrap(),
    }
    let mut nodes: Vec<_> = (0..settings::nodes()).collect();
    nodes.shuffle(rng);
    for link in &team.links {
        link.lead_to(&team.bus);
    }
    for node in &nodes[..rng.random_range(0..nodes.len())] {
        team.links[*node].cut(Direction::Both);
    }
    last(team).await;
    let pair = team.bus.redis();
    if how == 1 {
        pair.replica_mut().restart().await.unwrap();
    }
    pair.demote().await.unwrap();
    pair.ask_replica("CLIENT KILL TYPE pubsub").await.unwrap();
}

pub async fn kill_server(team: &mut Team, rng: &mut StdRng) {
    let cluster = team.bus.cluster();
    let server = rng.random_range(0..cluster.servers().len());
    cluster.server(server).kill();
    last(team).await;
    let restarted = team.bus.cluster().server(server).restart().await;
    restarted.unwrap();
}

/// Of one server, or of all; with an error or without a sound.
pub async fn cut_routes(team: &mut Team, rng: &mut StdRng) {
    let (silently, lossy) = (rng.random_bool(0.5), rng.random_bool(0.5));
    let cluster = team.bus.cluster();
    let servers = cluster.servers().len();
    let one = rng.random_range(0..servers);
    let is_whole = rng.random_bool(0.5);
    for server in (0..servers).filter(|server| is_whole || *server == one) {
        cluster.cut_routes(server, silently);
    }
    last(team).await;
    team.bus.cluster().mend_routes(lossy);
}

/// Each server is ended and started again, and the next when the cluster is whole.
pub async fn roll_cluster(team: &mut Team) {
    let cluster = team.bus.cluster();
    for server in 0..cluster.servers().len() {
        cluster.server(server).end().await;
        cluster.server(server).restart().await.unwrap();
        cluster.until_whole().await.unwrap();
    }
}
