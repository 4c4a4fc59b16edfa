//! Makes this process one of many nodes: its end of the bus, and the tasks of the election.

use std::sync::Arc;

use tokio::sync::watch;

use super::supervisor::{Supervisor, Task};
use crate::config::Config;
use crate::delivery::{HealthReport, Hub};
use crate::ingest::{Node, NodeParts};
use crate::metrics::Metrics;
use crate::nodes::{Election, Link, Orders, Presence, Publishing, Status, StepDown, VERSION};
use crate::store::Log;

/// Gives up the lead at the beginning of a drain.
#[derive(Debug)]
pub(super) struct Lead {
    step_down: StepDown,
    publishing: Publishing,
    log: Log,
    status: Status,
}

impl Lead {
    /// Another node can be elected when this returns, and the node's row is gone.
    pub(super) async fn give_up(&self) {
        self.step_down.resign(&self.publishing).await;
        let leave = self.log.leave(self.status.node());
        // The row is forgotten within a minute anyway.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), leave).await;
    }
}

/// Starts what one of many nodes has besides; `None` without a bus.
pub(super) fn start(
    config: &Config,
    log: &Log,
    hub: &Hub,
    health: &HealthReport,
    metrics: &Arc<Metrics>,
    supervisor: &mut Supervisor,
) -> Option<(Node, Lead)> {
    let url = config.nodes.bus.url()?;
    let (bus, events, driver) = hushnet_bus::open(url.clone(), config.nodes.tls());
    supervisor.spawn(Task::Bus, driver);
    let publishing = Publishing::new(bus.clone(), Arc::clone(metrics));
    supervisor.spawn(Task::BusMarks, publishing.clone().publish_marks());
    let (orders_sender, orders) = Orders::channel();
    let (may_lead, may_lead_view) = watch::channel(false);
    let status = Status::new(name(config), config.nodes.batch_version.unwrap_or(VERSION));
    let step_down = StepDown::default();
    let election = Election {
        log: log.clone(),
        status: status.clone(),
        publishing: publishing.clone(),
        orders: orders_sender,
        may_lead: may_lead_view,
        step_down: step_down.clone(),
        metrics: Arc::clone(metrics),
        said: None,
    };
    supervisor.spawn(Task::Election, election.run());
    let presence = Presence {
        log: log.clone(),
        status: status.clone(),
        publishing: publishing.clone(),
        bus: bus.clone(),
        step_down: step_down.clone(),
        metrics: Arc::clone(metrics),
    };
    supervisor.spawn(Task::Presence, presence.run());
    let parts = NodeParts {
        link: Link::new(bus, events, Arc::clone(metrics)),
        publishing: publishing.clone(),
        orders,
        may_lead,
        status: status.clone(),
    };
    let node = Node::new(
        parts,
        log.clone(),
        hub.clone(),
        health.clone(),
        Arc::clone(metrics),
    );
    let lead = Lead {
        step_down,
        publishing,
        log: log.clone(),
        status,
    };
    Some((node, lead))
}

/// The node's name: as the settings say, or the machine's and the port.
fn name(config: &Config) -> String {
    if let Some(name) = &config.nodes.node_name {
        return name.to_string();
    }
    let system = rustix::system::uname();
    let machine = system.nodename().to_string_lossy();
    let machine: String = machine.chars().take(40).collect();
    format!("{machine}:{}", config.listen.port())
}
