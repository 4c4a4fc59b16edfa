//! `nodes`: the servers of one database that share a bus, and which of them leads.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hushnet_realtime::output;
use hushnet_realtime::store::{Leader, Log, NodeRow, Role, is_undefined_function};
use tokio::time::sleep;

use super::database::ApplicationDatabase;

/// For so long another leader is waited for.
const ELECTION_MAX: Duration = Duration::from_secs(15);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const HEADS: [&str; 8] = [
    "NAME",
    "ROLE",
    "VERSION",
    "TERM",
    "CONNECTIONS",
    "SHARDS",
    "LAG",
    "SEEN",
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    database: ApplicationDatabase,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have another node lead, for instance before the machine of the leader is restarted. The leader stands back for 10 s
    StepDown,
}

pub(super) async fn run(Arguments { action, database }: Arguments) -> anyhow::Result<()> {
    let url = database.find()?;
    let log = Log::new(url.options(), 1);
    let nodes = log.nodes().await.map_err(explained)?;
    let leader = log.leader().await.map_err(explained)?;
    match action {
        None => list(&nodes, leader.as_ref()),
        Some(Action::StepDown) => step_down(&log, &nodes, leader).await,
    }
}

fn explained(error: sqlx::Error) -> anyhow::Error {
    if is_undefined_function(&error) {
        return anyhow::anyhow!(
            "this database knows of no nodes: run `hushnet-realtime migrate up`"
        );
    }
    anyhow::Error::from(error).context("cannot read the nodes")
}

fn list(nodes: &[NodeRow], leader: Option<&Leader>) -> anyhow::Result<()> {
    if nodes.is_empty() {
        output::print_line(format_args!(
            "no node in the last minute; servers without --bus are not listed"
        ))?;
        return Ok(());
    }
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(nodes.iter().map(|node| columns(node, nodes, leader)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; HEADS.len()] = std::array::from_fn(|at| width(at).unwrap_or_default());
    for row in &rows {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        output::print_line(format_args!("{}", line.trim_end()))?;
    }
    Ok(())
}

fn columns(node: &NodeRow, nodes: &[NodeRow], leader: Option<&Leader>) -> [String; HEADS.len()] {
    // Who does not take them from the bus reads those of all users.
    let shards = match node.role {
        Role::Follower => node.shards.to_string(),
        _ => "all".to_owned(),
    };
    [
        name(node, nodes),
        <&str>::from(node.role).to_owned(),
        node.version.clone(),
        node.term(leader)
            .map_or("-".to_owned(), |term| term.to_string()),
        node.connections.to_string(),
        shards,
        format!("{:.1} s", node.lag.as_secs_f64()),
        format!("{:.0} s ago", node.seen_age.as_secs_f64()),
    ]
}

/// The node's name, with the beginning of its id if another has the same name.
fn name(node: &NodeRow, nodes: &[NodeRow]) -> String {
    let is_taken = nodes
        .iter()
        .any(|other| other.name == node.name && other.node != node.node);
    if is_taken {
        let id = node.node.simple().to_string();
        return format!("{} ({})", node.name, &id[..8]);
    }
    node.name.clone()
}

async fn step_down(log: &Log, nodes: &[NodeRow], leader: Option<Leader>) -> anyhow::Result<()> {
    let before = leader.context("no node has been elected")?;
    let is_other = |node: &NodeRow| node.node != before.node && node.is_live();
    if !nodes.iter().any(is_other) {
        bail!(
            "{} leads, and there is no other live node that could",
            before.name
        );
    }
    log.ask_to_step_down(before.run).await.map_err(explained)?;
    let begun = Instant::now();
    while begun.elapsed() < ELECTION_MAX {
        sleep(LOOK_INTERVAL).await;
        let Ok(Some(now)) = log.leader().await else {
            continue;
        };
        if now.run == before.run {
            continue;
        }
        if now.node == before.node {
            bail!(
                "{} leads again (term {}): no other node could; see their logs",
                now.name,
                now.term
            );
        }
        output::print_line(format_args!("{} leads now (term {})", now.name, now.term))?;
        return Ok(());
    }
    bail!(
        "{} was asked, and no other node was elected within {ELECTION_MAX:?}; see the nodes' logs",
        before.name
    )
}
