//! What happens to nodes, to the broker, to the links and to PostgreSQL.

use std::time::{Duration, Instant};

use hushnet_devbus::{Direction, Faults};
use rand::RngExt;
use rand::rngs::StdRng;
use sqlx::Connection;

use super::bus::Over;
use super::operator::{self, last};
use super::team::Team;
use crate::lab::{Shutdown, execute};
use crate::settings;

/// An event that is just not too long to be notified.
const LONG_BYTES: i32 = 7_000;
/// So many of them for each user in one transaction.
const LONG_EVENTS: usize = 10;
/// So many of these transactions fill every buffer between the broker and a node that is stopped.
const LONG_MAX: usize = 60;
/// The leader may have to read them first.
const DROPPED_WITHIN: Duration = Duration::from_secs(10);
/// Ends the session that holds the leader's lock.
const END_LEADERS_SESSION: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'hushnet-realtime leader' AND datname = current_database()";

/// A fault. In reports it has the variant's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    FollowerKilled,
    LeaderKilled,
    LeaderStopped,
    LeaderReplaced,
    LeaderSessionEnded,
    /// Until the broker drops its connection.
    FollowerDropped,
    BusRestarted,
    BusStopped,
    LinkCut,
    LeadersLinkCut,
    HalfOfTheLinksCut,
    /// The leader receives and its messages do not arrive.
    LeaderMuted,
    MessagesBroken,
    LeadersDatabaseCut,
    FollowersDatabaseCut,
    DatabaseRestarted,
    /// Of Redis.
    PasswordChanged,
    /// To the replica of Redis.
    FailedOver,
    ClusterServerKilled,
    /// Between the servers of a cluster.
    RoutesCut,
    ClusterRolled,
}

impl Fault {
    /// Those of any bus.
    const COMMON: [Self; 16] = [
        Self::FollowerKilled,
        Self::LeaderKilled,
        Self::LeaderStopped,
        Self::LeaderReplaced,
        Self::LeaderSessionEnded,
        Self::FollowerDropped,
        Self::BusRestarted,
        Self::BusStopped,
        Self::LinkCut,
        Self::LeadersLinkCut,
        Self::HalfOfTheLinksCut,
        Self::LeaderMuted,
        Self::MessagesBroken,
        Self::LeadersDatabaseCut,
        Self::FollowersDatabaseCut,
        Self::DatabaseRestarted,
    ];

    /// Those that can happen over this bus.
    pub fn of(over: Over) -> Vec<Self> {
        let own: &[Self] = match over {
            Over::Redis => &[Self::PasswordChanged, Self::FailedOver],
            Over::Nats => &[],
            Over::NatsCluster => &[
                Self::ClusterServerKilled,
                Self::RoutesCut,
                Self::ClusterRolled,
            ],
        };
        [&Self::COMMON, own].concat()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::FollowerKilled => "a follower is killed",
            Self::LeaderKilled => "the leader is killed",
            Self::LeaderStopped => "the leader is stopped, and continued",
            Self::LeaderReplaced => "the leader is ended and started again",
            Self::LeaderSessionEnded => "the leader's session is ended",
            Self::FollowerDropped => "a follower is stopped until the bus drops it",
            Self::BusRestarted => "the bus is killed and restarted empty",
            Self::BusStopped => "the bus is stopped, and continued",
            Self::LinkCut => "a follower's link to the bus is cut",
            Self::LeadersLinkCut => "the leader's link to the bus is cut",
            Self::HalfOfTheLinksCut => "half of the links to the bus are cut",
            Self::LeaderMuted => "the leader's messages do not arrive",
            Self::MessagesBroken => "the bus drops, repeats, delays and swaps messages",
            Self::LeadersDatabaseCut => "the leader's link to the database is cut",
            Self::FollowersDatabaseCut => "a follower's link to the database is cut",
            Self::DatabaseRestarted => "the database is restarted",
            Self::PasswordChanged => "the password is changed, and a node is forgotten",
            Self::FailedOver => "the bus fails over to its replica",
            Self::ClusterServerKilled => "a server of the cluster is killed",
            Self::RoutesCut => "the cluster's routes are cut",
            Self::ClusterRolled => "the cluster's servers are restarted one by one",
        }
    }

    /// Lets it happen, and ends it.
    pub async fn happen(self, team: &mut Team, rng: &mut StdRng) {
        let leader = team.leader().await;
        let nodes = settings::nodes();
        let follower = (leader + rng.random_range(1..nodes)) % nodes;
        match self {
            Self::FollowerKilled => team.kill(follower).await,
            Self::LeaderKilled => team.kill(leader).await,
            Self::LeaderStopped => {
                team.scene.services[leader].signal("STOP").await;
                last(team).await;
                team.scene.services[leader].signal("CONT").await;
            }
            Self::LeaderReplaced => team.replace(leader, true).await,
            Self::LeaderSessionEnded => {
                let mut database = team.scene.lab.database().await;
                execute(&mut database, END_LEADERS_SESSION).await;
                database.close().await.unwrap();
            }
            Self::FollowerDropped => drop_follower(team, follower).await,
            Self::BusRestarted => {
                team.bus.kill();
                if rng.random_bool(0.5) {
                    last(team).await;
                }
                team.bus.restart().await;
            }
            Self::BusStopped => {
                team.bus.freeze();
                last(team).await;
                team.bus.thaw();
            }
            Self::LinkCut => cut(team, &[follower], rng).await,
            Self::LeadersLinkCut => cut(team, &[leader], rng).await,
            Self::HalfOfTheLinksCut => {
                let first = rng.random_range(0..nodes);
                let cut_nodes: Vec<_> = (0..nodes.div_ceil(2))
                    .map(|n| (first + n) % nodes)
                    .collect();
                cut(team, &cut_nodes, rng).await;
            }
            Self::LeaderMuted => {
                team.links[leader].freeze(Direction::ToBroker);
                last(team).await;
                last(team).await;
                team.links[leader].thaw(Direction::ToBroker);
            }
            Self::MessagesBroken => break_messages(team, rng).await,
            Self::LeadersDatabaseCut => cut_database(team, leader).await,
            Self::FollowersDatabaseCut => cut_database(team, follower).await,
            Self::DatabaseRestarted => {
                let how = [Shutdown::Fast, Shutdown::Immediate][rng.random_range(0..2)];
                team.scene.lab.stop(how).await;
                team.scene.lab.start().await;
            }
            Self::PasswordChanged => {
                let forgotten = rng.random_range(0..nodes);
                operator::change_password(team, forgotten).await;
            }
            Self::FailedOver => operator::fail_over(team, rng).await,
            Self::ClusterServerKilled => operator::kill_server(team, rng).await,
            Self::RoutesCut => operator::cut_routes(team, rng).await,
            Self::ClusterRolled => operator::roll_cluster(team).await,
        }
    }
}

/// With an error or without a sound.
async fn cut(team: &Team, nodes: &[usize], rng: &mut StdRng) {
    let is_silent = rng.random_bool(0.5);
    for link in nodes.iter().map(|node| &team.links[*node]) {
        if is_silent {
            link.freeze(Direction::Both);
        } else {
            link.refuse(true);
            link.cut(Direction::Both);
        }
    }
    last(team).await;
    for link in nodes.iter().map(|node| &team.links[*node]) {
        link.refuse(false);
        // What has waited is lost with the connections, or comes late.
        if is_silent && rng.random_bool(0.5) {
            link.cut(Direction::Both);
        }
        link.thaw(Direction::Both);
    }
}

async fn break_messages(team: &Team, rng: &mut StdRng) {
    let rate = [0.02, 0.1, 0.3][rng.random_range(0..3)];
    let faults = Faults {
        drop: rate / 2.0,
        repeat: rate,
        delay: rate,
        swap: rate,
        delay_max: Duration::from_millis(600),
    };
    for link in &team.links {
        link.inject(faults);
    }
    last(team).await;
    for link in &team.links {
        link.inject(Faults::default());
    }
}

async fn cut_database(team: &Team, node: usize) {
    team.scene.lab.links[node].cut();
    last(team).await;
    team.scene.lab.links[node].mend();
}

async fn drop_follower(team: &mut Team, follower: usize) {
    team.settled().await;
    let before = team.bus.dropped();
    // The one that was chosen may have been elected meanwhile.
    let follower = if team.leader().await == follower {
        (follower + 1) % settings::nodes()
    } else {
        follower
    };
    team.scene.services[follower].signal("STOP").await;
    // The kernel would take megabytes for it.
    team.links[follower].freeze(Direction::ToNode);
    for _ in 0..LONG_MAX {
        team.scene.write_long(LONG_EVENTS, LONG_BYTES).await;
        if team.bus.dropped() > before {
            break;
        }
    }
    let waiting = Instant::now();
    while team.bus.dropped() == before && waiting.elapsed() < DROPPED_WITHIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let was_dropped = team.bus.dropped() > before;
    team.links[follower].thaw(Direction::ToNode);
    team.scene.services[follower].signal("CONT").await;
    // Not one that has no subscription just now, or while nobody leads.
    eprintln!("  the broker has dropped it: {was_dropped}");
}
