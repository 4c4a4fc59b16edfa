//! The nodes, each in its role: it reads the log, or follows a leader, or is between the two.

use std::hash::{Hash, Hasher};
use std::mem;
use std::time::{Duration, Instant};

use super::super::database::{Database, Notified};
use super::bus::{Bus, Publishing};
use super::following::Following;
use super::scenario::Node;
use super::server::Server;
use crate::nodes::Run;

/// What a node does.
pub(super) enum Role {
    /// It listens, and routes what was notified.
    Reads,
    /// It has no connection, and is about to join the log.
    Joins,
    Follows(Box<Following>),
}

/// One node.
pub(super) struct Member {
    node: Node,
    pub(super) server: Server,
    pub(super) role: Role,
}

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.server.traced().hash(state);
        match &self.role {
            Role::Reads => 0.hash(state),
            Role::Joins => 1.hash(state),
            Role::Follows(following) => following.hash(state),
        }
    }
}

impl Member {
    pub(super) fn new(node: Node, server: Server) -> Self {
        Self {
            node,
            server,
            role: Role::Reads,
        }
    }

    pub(super) fn following(&self) -> Option<&Following> {
        match &self.role {
            Role::Follows(following) => Some(following),
            _ => None,
        }
    }

    /// What the node follows with, and what it routes to.
    pub(super) fn follows(&mut self) -> Option<(&mut Following, &mut Server)> {
        match &mut self.role {
            Role::Follows(following) => Some((following, &mut self.server)),
            _ => None,
        }
    }

    /// It takes what was notified.
    pub(super) fn listen(&mut self, database: &mut Database) {
        if !matches!(self.role, Role::Reads) {
            return;
        }
        let notified = mem::take(&mut database.channels[self.node.index()].notified);
        for notified in notified {
            match notified {
                Notified::Row(row) => self.server.route_row(&row, database),
                Notified::Barrier(barrier) => {
                    self.server.tick_barrier(&barrier);
                    let now = self.server.now;
                    self.server.router().complete_barrier(barrier, now);
                }
            }
        }
        self.server.flush();
    }

    /// Its connection is gone.
    pub(super) fn lose_connection(&mut self) {
        if matches!(self.role, Role::Reads) {
            self.server.trace("away");
            self.server.intake.away();
            self.role = Role::Joins;
        }
    }

    /// It follows no longer, and is to read the log.
    pub(super) fn end_following(&mut self) {
        self.server.trace("ends following");
        self.role = Role::Joins;
    }

    /// It listens, and reads the log from the last barrier on.
    pub(super) fn join(&mut self, database: &mut Database) {
        database.channels[self.node.index()].lose();
        self.server.join(database);
        self.server.flush();
        self.role = Role::Reads;
    }

    /// It follows this run.
    pub(super) fn follow(&mut self, run: Run, database: &mut Database) {
        database.channels[self.node.index()].lose();
        let following = Following::new(run, &mut self.server);
        self.role = Role::Follows(Box::new(following));
    }

    /// It is elected: what it routes is published in a run with this number.
    pub(super) fn publish(&mut self, number: u64, bus: &Bus) {
        if self.following().is_some() {
            self.end_following();
        }
        let epoch = self.server.intake.durable_position().epoch;
        let run = Run {
            history: epoch.history,
            timeline: epoch.timeline,
            number,
        };
        self.server.trace(("publish", number));
        self.server.publish(Publishing::new(run, bus));
    }

    /// Whether it can follow this run: it reads the log of the same history, and publishes nothing.
    pub(super) fn can_follow(&self, run: Run) -> bool {
        matches!(self.role, Role::Reads)
            && self.server.publishes().is_none()
            && self.server.intake.position().epoch == run.epoch()
    }
}

/// All nodes.
#[derive(Hash)]
pub(super) struct Members {
    /// Those that take part.
    nodes: Vec<Node>,
    members: Vec<Member>,
}

impl Members {
    pub(super) fn new(nodes: Vec<Node>, database: &Database, now: Instant) -> Self {
        let member = |node| Member::new(node, Server::new(database.present(), now));
        Self {
            nodes,
            members: Node::ALL.into_iter().map(member).collect(),
        }
    }

    pub(super) fn get(&self, node: Node) -> &Member {
        &self.members[node.index()]
    }

    pub(super) fn get_mut(&mut self, node: Node) -> &mut Member {
        &mut self.members[node.index()]
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.nodes.clone()
    }

    /// Those that are about to join the log.
    pub(super) fn joining(&self) -> Vec<Node> {
        let joins = |node: &Node| matches!(self.get(*node).role, Role::Joins);
        self.nodes.iter().copied().filter(joins).collect()
    }

    /// Those that read take what was notified.
    pub(super) fn listen(&mut self, database: &mut Database) {
        for node in &self.nodes {
            self.members[node.index()].listen(database);
        }
    }

    /// All connections are gone.
    pub(super) fn lose_connections(&mut self) {
        for node in &self.nodes {
            self.members[node.index()].lose_connection();
        }
    }

    /// No two things happen at the same time. Returns the time.
    pub(super) fn tick(&mut self, before: Instant) -> Instant {
        let latest = self.members.iter().map(|member| member.server.now);
        let now = latest.fold(before, Instant::max) + Duration::from_secs(1);
        for member in &mut self.members {
            member.server.now = now;
        }
        now
    }
}
