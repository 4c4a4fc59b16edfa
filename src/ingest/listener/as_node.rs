//! What the listener of one of many nodes does beside reading the log: it leads, or it follows.

use std::time::Instant;

use super::Listener;
use crate::ingest::following::{Ended, Following};
use crate::ingest::lost::Lost;
use crate::ingest::node::Turn;
use crate::nodes::{Order, Run};
use crate::protocol::ReadinessReason;

impl Listener {
    /// Does what concerns this process as a node.
    pub(in crate::ingest) fn turn(&mut self, turn: Turn) -> Result<(), Lost> {
        match turn {
            Turn::Read => {}
            Turn::Follow(run) => return Err(Lost::Follow(run)),
            Turn::Reconnect => return Err(Lost::NewerTimeline),
            Turn::Publish(order) => self.publish(order),
        }
        Ok(())
    }

    /// This node is elected: what it routes is published from here on, which the election awaits.
    fn publish(&mut self, order: Order) {
        let (Some(node), Some(position)) = (&mut self.node, self.intake.durable_position()) else {
            return;
        };
        let Order { run, ready } = order;
        node.publishing.begin(Run {
            history: position.epoch.history,
            timeline: position.epoch.timeline,
            number: run,
        });
        let relay = Box::new(node.publishing.clone());
        self.intake.router().set_relay(Some(relay));
        self.health.end(ReadinessReason::BusSilent);
        if ready.send(()).is_err() {
            // The election has given up meanwhile.
            node.publishing.end();
        }
    }

    /// Takes events from the bus until there is a reason to read the log again.
    pub(in crate::ingest) async fn follow_bus(&mut self, run: Run) {
        let Some(node) = &mut self.node else {
            return;
        };
        self.stream.let_go(None);
        self.streaming.end(&mut self.intake, Instant::now());
        self.barriers.pause();
        self.intake.follow(Instant::now());
        for reason in [ReadinessReason::BusSilent, ReadinessReason::NewerTimeline] {
            self.health.end(reason);
        }
        self.metrics.listener_connected.set(false);
        self.metrics.node_following.set(true);
        node.status.set_follows(true);
        self.connected = false;
        tracing::info!(event = "node_follows", run = run.number);
        let (log, intake) = (&self.log, &mut self.intake);
        let following = Following::new(log, intake, node, &self.health, &self.metrics, run);
        let ended = following.run().await;
        tracing::info!(event = "node_reads", cause = <&str>::from(ended));
        self.metrics.node_following.set(false);
        node.status.set_follows(false);
        self.metrics.node_shards.set(0.0);
        if ended == Ended::Silent {
            self.health.begin(ReadinessReason::BusSilent, "");
        }
        if let Some(order) = node.take_ordered() {
            self.publish(order);
        }
    }
}
