//! This node among the others: it writes its row, and a leader that the others do not receive stands back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hushnet_bus::Bus;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::election::StepDown;
use super::message::VERSION_OLDEST;
use super::publishing::Publishing;
use super::status::Status;
use crate::metrics::Metrics;
use crate::store::{self, Log, NodeRow};

/// Between two writes of a node's row.
const INTERVAL: Duration = Duration::from_secs(2);
/// A node that has received the leader for the last time before that does not receive it.
const RECEIVED_MAX: Duration = Duration::from_secs(4);
/// So many looks in a row with most nodes not receiving the leader make it connect to the bus anew.
const RECONNECT_AFTER: u32 = 2;
/// So many make it stand back.
const STAND_BACK_AFTER: u32 = 4;
/// Writes between two log lines about another node of the same name.
const NAME_TAKEN_EVERY: u32 = 30;

/// What a leader does about the nodes that do not receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Nothing,
    Reconnect,
    StandBack,
}

/// Looks of a leader in a row at which most other nodes did not receive it.
#[derive(Debug, Default)]
struct HalfBus {
    run: Option<u64>,
    looks: u32,
}

impl HalfBus {
    /// A look so long after the one before. A node that has written nothing since then may have died: it says nothing.
    fn look(&mut self, own: Uuid, run: u64, nodes: &[NodeRow], since: Duration) -> Decision {
        if self.run != Some(run) {
            (self.run, self.looks) = (Some(run), 0);
        }
        let live = |row: &&NodeRow| row.node != own && row.is_live();
        let receives = |row: &&NodeRow| {
            row.run == Some(run) && row.received_age.is_some_and(|age| age <= RECEIVED_MAX)
        };
        let others = nodes.iter().filter(live).count();
        let reached = nodes.iter().filter(live).filter(receives).count();
        let misses = |row: &&NodeRow| row.seen_age < since && !receives(row);
        let unreached = nodes.iter().filter(live).filter(misses).count();
        if 2 * reached >= others {
            self.looks = 0;
        }
        if 2 * unreached <= others {
            return Decision::Nothing;
        }
        self.looks += 1;
        match self.looks {
            RECONNECT_AFTER => Decision::Reconnect,
            STAND_BACK_AFTER => {
                self.looks = 0;
                Decision::StandBack
            }
            _ => Decision::Nothing,
        }
    }
}

/// The newest format that this node and all live ones read. A node that reads not even the oldest that this one writes
/// takes nothing from the bus, and reads the log.
fn common_version(own: u8, nodes: &[NodeRow]) -> u8 {
    let live = nodes.iter().filter(|row| row.is_live());
    let newest = live.map(|row| u8::try_from(row.batch_version).unwrap_or(u8::MAX));
    newest.fold(own, u8::min).max(VERSION_OLDEST)
}

/// The task that writes this node's row.
#[derive(Debug)]
pub struct Presence {
    /// The database.
    pub log: Log,
    /// This node.
    pub status: Status,
    /// What it publishes.
    pub publishing: Publishing,
    /// The bus.
    pub bus: Bus,
    /// Has it stand back.
    pub step_down: StepDown,
    /// Where its connections are counted.
    pub metrics: Arc<Metrics>,
}

impl Presence {
    /// Writes it for ever.
    pub async fn run(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut half_bus, mut taken) = (HalfBus::default(), 0);
        let mut looked = Instant::now();
        loop {
            ticks.tick().await;
            let since = looked.elapsed();
            looked = Instant::now();
            if self.step_down.has_resigned() {
                // Its row is deleted.
                continue;
            }
            if let Err(error) = self.write(&mut half_bus, since, &mut taken).await
                && !store::is_undefined_function(&error)
            {
                tracing::debug!(event = "node_row_failed", %error);
            }
        }
    }

    async fn write(
        &self,
        half_bus: &mut HalfBus,
        since: Duration,
        taken: &mut u32,
    ) -> Result<(), sqlx::Error> {
        let lag = self.metrics.barrier_age.elapsed(Instant::now());
        let row = self.status.row(self.metrics.connections(), lag);
        let other = self.log.announce(&row).await?;
        if let Some(other) = other {
            if taken.is_multiple_of(NAME_TAKEN_EVERY) {
                let advice = "give each node a name of its own (`--node-name`)";
                tracing::warn!(event = "node_name_taken", name = row.name, %other, advice);
            }
            *taken += 1;
        } else {
            *taken = 0;
        }
        let Some(run) = self.publishing.run() else {
            return Ok(());
        };
        let nodes = self.log.nodes().await?;
        let version = common_version(row.batch_version, &nodes);
        self.publishing.set_version(version);
        match half_bus.look(row.node, run.number, &nodes, since) {
            Decision::Nothing => {}
            Decision::Reconnect => {
                tracing::warn!(event = "leader_not_received", action = "reconnect");
                self.bus.reconnect();
            }
            Decision::StandBack => {
                tracing::warn!(event = "leader_not_received", action = "stand_back");
                self.step_down.ask();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Role;

    fn row(node: u128, run: u64, received: u64, seen: u64) -> NodeRow {
        NodeRow {
            node: Uuid::from_u128(node),
            name: node.to_string(),
            version: String::new(),
            batch_version: 1,
            role: Role::Follower,
            run: Some(run),
            received_age: Some(Duration::from_secs(received)),
            shards: 0,
            connections: 0,
            lag: Duration::ZERO,
            seen_age: Duration::from_secs(seen),
        }
    }

    fn decisions(nodes: &[NodeRow], looks: usize) -> Vec<Decision> {
        let mut half_bus = HalfBus::default();
        let mut look = || half_bus.look(Uuid::from_u128(1), 7, nodes, INTERVAL);
        (0..looks).map(|_| look()).collect()
    }

    #[test]
    fn a_leader_that_most_nodes_do_not_receive_connects_anew_and_then_stands_back() {
        use Decision::{Nothing, Reconnect, StandBack};
        let own = row(1, 7, 99, 0);
        let of_another_run = row(2, 6, 0, 0);
        let too_old = row(3, 7, 5, 0);
        let receives = row(4, 7, 4, 0);
        let nodes = [
            own.clone(),
            of_another_run.clone(),
            too_old,
            receives.clone(),
        ];
        let expected = [Nothing, Reconnect, Nothing, StandBack, Nothing, Reconnect];
        assert_eq!(decisions(&nodes, 6), expected);
        let half = [own.clone(), of_another_run.clone(), receives];
        assert_eq!(
            decisions(&half, 4),
            [Nothing; 4],
            "half of them is not most"
        );
        let gone = row(5, 6, 0, 7);
        assert_eq!(
            decisions(&[own.clone(), gone], 4),
            [Nothing; 4],
            "it is not live"
        );
        let died = row(5, 6, 0, 3);
        assert_eq!(
            decisions(&[own.clone(), died], 4),
            [Nothing; 4],
            "it may have died"
        );
        assert_eq!(decisions(&[own], 4), [Nothing; 4]);
    }

    #[test]
    fn the_format_is_the_newest_that_all_live_nodes_read() {
        let reads = |version, seen| NodeRow {
            batch_version: version,
            ..row(2, 7, 0, seen)
        };
        assert_eq!(common_version(3, &[]), 3);
        assert_eq!(common_version(3, &[reads(2, 0), reads(4, 0)]), 2);
        assert_eq!(common_version(3, &[reads(2, 7), reads(900, 0)]), 3);
        assert_eq!(common_version(3, &[reads(0, 0)]), VERSION_OLDEST);
    }

    #[test]
    fn looks_in_a_row_count_within_one_run() {
        let (own, mut half_bus) = (Uuid::from_u128(1), HalfBus::default());
        let nodes = [row(2, 1, 0, 0)];
        let mut look = |run, nodes: &[NodeRow]| half_bus.look(own, run, nodes, INTERVAL);
        for run in [7, 8, 9] {
            assert_eq!(look(run, &nodes), Decision::Nothing);
        }
        // A node that has written nothing since proves nothing.
        assert_eq!(look(9, &[row(2, 1, 0, 3)]), Decision::Nothing);
        assert_eq!(look(9, &nodes), Decision::Reconnect);
        assert_eq!(look(9, &[row(2, 9, 0, 0)]), Decision::Nothing);
        assert_eq!(look(9, &nodes), Decision::Nothing);
    }
}
