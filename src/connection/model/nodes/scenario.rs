//! What may happen in a world, and how often.

use super::following::ReadStep;
use crate::protocol::Shard;

/// A node: two that read the log and may lead, and one that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// Leads at the beginning.
    First,
    /// May lead later.
    Second,
    /// Follows at the beginning. When it comes to lead, the node that has led may follow.
    Follower,
}

impl Node {
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Second, Self::Follower];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// A step of the database's writers, or of a node that reads. They come in this order; everything else comes in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// A transaction begins: transactions are numbered from 0 on.
    Begin,
    /// A transaction begins and writes an event of this user.
    Open(usize),
    /// The same, and is visible and notified at once.
    Event(usize),
    /// This transaction writes an event of this user.
    Write(usize, usize),
    /// It is flushed: the stream of the write-ahead log brings it, and no snapshot sees it.
    Flush(usize),
    /// It is visible, and notified.
    Commit(usize),
    /// A table is emptied: there is no event of that, and all clients are to be reset.
    Truncate,
    /// The log retains nothing of what is committed.
    Forget,
    /// A standby is promoted that has not got the last rows, as many as these. All connections end.
    Promote(usize),
    /// The node's barrier commits, and its next one takes its snapshot.
    Barrier(Node),
    /// The node publishes marks.
    Marks(Node),
    /// The node begins to publish what it routes.
    Publish(Node),
    /// The database names the node's run.
    Name(Node),
    /// Both, in this order.
    Lead(Node),
    /// The node publishes no more.
    Stop(Node),
    /// Steps that nothing comes between.
    All(&'static [Step]),
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// The next step of the scenario.
    Step,
    /// The bus brings the message with this place.
    Deliver(usize),
    Lose,
    /// It brings the first message, and again after all others.
    Repeat,
    /// The broker confirms a subscription.
    Confirm(Shard),
    /// The follower looks who leads.
    Look,
    Read(ReadStep),
    FailRead,
    /// The follower reads the log itself.
    Degrade,
    /// Its own barrier commits, and the next takes its snapshot.
    OwnBarrier,
    /// It follows, or follows again.
    Follow,
    /// The node, which had no connection to the database, joins the log.
    Join(Node),
    LetGo(Shard),
    Leave(usize),
    Come(usize, Node),
}

/// A rule of whoever drives the follower or the publisher that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    Nothing,
    /// A row is routed, and published, when it is flushed.
    RoutedBeforeVisible,
    /// The database names a run before the node publishes in it.
    NamedBeforePublishing,
}

/// What may happen besides the steps, and how often at most.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Budget {
    /// Messages that the bus loses.
    pub(super) losses: usize,
    /// Messages that it brings again after all others.
    pub(super) repeats: usize,
    /// Messages that overtake the one before.
    pub(super) overtakings: usize,
    /// Reads of the log that fail.
    pub(super) failures: usize,
    /// Times that the follower reads the log itself, and follows again.
    pub(super) degradations: usize,
    /// Barriers that it sends meanwhile.
    pub(super) own_barriers: usize,
    /// Looks at the database that nothing asks for.
    pub(super) looks: usize,
    /// Times that a client leaves.
    pub(super) departures: usize,
    /// Shards that are let go of.
    pub(super) let_gos: usize,
}

impl Budget {
    pub(super) const NOTHING: Self = Self {
        losses: 0,
        repeats: 0,
        overtakings: 0,
        failures: 0,
        degradations: 0,
        own_barriers: 0,
        looks: 0,
        departures: 0,
        let_gos: 0,
    };
}

/// A small world.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// Whether the follower reads the log itself when it begins.
    pub(super) begins_degraded: bool,
    /// What has happened, and arrived, before it begins.
    pub(super) before: Vec<Step>,
    pub(super) steps: Vec<Step>,
    pub(super) budget: Budget,
    /// How many users there are, each in a shard of their own.
    pub(super) users: usize,
    /// How many of them, the first ones, are there when it begins. The others come when they like.
    pub(super) present: usize,
    /// The nodes that clients come to.
    pub(super) homes: Vec<Node>,
    pub(super) broken: Broken,
}

impl Scenario {
    /// One user, who is there when it begins.
    pub(super) fn new(steps: &[Step], budget: Budget) -> Self {
        Self {
            begins_degraded: false,
            before: Vec::new(),
            steps: steps.to_vec(),
            budget,
            users: 1,
            present: 1,
            homes: vec![Node::Follower],
            broken: Broken::Nothing,
        }
    }

    /// Whether the second node takes part.
    pub(super) fn has_second(&self) -> bool {
        fn leads(step: &Step) -> bool {
            match step {
                Step::All(steps) => steps.iter().any(leads),
                Step::Publish(node) | Step::Lead(node) => *node == Node::Second,
                _ => false,
            }
        }
        self.homes.contains(&Node::Second) || self.steps.iter().any(leads)
    }
}
