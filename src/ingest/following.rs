//! A follower's loop: it routes what the bus brings, has the log repair what the bus loses, and passes the leader's barriers.
//!
//! While it runs, the node neither listens nor polls nor sends barriers. It ends when the bus is silent, when the
//! database has become another, or when this node is to lead; then the listener goes on from the last passed barrier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::bus_intake::BusIntake;
use super::intake::Intake;
use super::leader_watch::Found;
use super::node::{Came, Node};
use super::presents::Presents;
use super::repair::{self, Repair};
use super::shard_times::ShardTimes;
use super::statement::{self, Statement};
use crate::delivery::HealthReport;
use crate::metrics::Metrics;
use crate::nodes::{
    Destination, Follower, Incoming, MARK_INTERVAL, Message, Numbers, Published, Run, Verdict,
    is_silence, read,
};
use crate::protocol::{Cursor, Label, ReadinessReason, RepairCause, Shard, ShardSet};
use crate::store::{self, Chunk, Log};

/// A barrier of the bus says that events come. Clients can be let in as well if the database was found so lately.
const FOUND_MAX: Duration = Duration::from_secs(5);
/// After a failed read of the log, before the next.
const RETRY: Duration = Duration::from_secs(1);

/// Why a node follows no longer. In the log it has the variant's name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Ended {
    /// No mark has come for too long.
    Silent,
    /// This node is to lead.
    Elected,
    /// The log has another history or timeline.
    History,
    /// Nobody leads.
    Leaderless,
    /// The bus brings messages of a later timeline: this node's database is no longer the primary.
    NewerTimeline,
}

/// A node that follows.
struct Following<'a> {
    log: &'a Log,
    intake: BusIntake<'a>,
    node: &'a mut Node,
    health: &'a HealthReport,
    metrics: &'a Metrics,
    follower: Follower<Bytes>,
    repair: Option<Repair>,
    /// A read of the sources, which may have changed.
    sources: Statement<bool>,
    may_repair: Instant,
    /// When the database was found last.
    last_found: Instant,
    last_tick: Instant,
    /// When the last message of the followed run came.
    last_message: Instant,
    times: ShardTimes,
    presents: Presents,
}

/// Takes events from the bus until there is a reason to read the log again.
pub(super) async fn follow(
    log: &Log,
    intake: &mut Intake,
    node: &mut Node,
    health: &HealthReport,
    run: Run,
) {
    intake.stop_reading(Instant::now());
    // What changes of them from here on, the listener does not learn.
    intake.sources_doubt().begin();
    health.end(ReadinessReason::BusSilent);
    let metrics = Arc::clone(&node.metrics);
    node.set_follows(true);
    node.watch.set_renews(true);
    tracing::info!(event = "node_follows", run = run.number);
    let ended = Following::new(log, intake, node, health, &metrics, run)
        .run()
        .await;
    tracing::info!(event = "node_reads", cause = <&str>::from(ended));
    node.set_follows(false);
    node.watch.set_renews(false);
    match ended {
        Ended::Silent => health.begin(ReadinessReason::BusSilent, ""),
        Ended::NewerTimeline => log.renew(),
        _ => {}
    }
    if let Some(order) = node.take_ordered() {
        node.publish(order, intake);
    }
}

impl<'a> Following<'a> {
    /// Follows this run. All shards that have users are taken at once: no barrier is passed without them.
    fn new(
        log: &'a Log,
        intake: &'a mut Intake,
        node: &'a mut Node,
        health: &'a HealthReport,
        metrics: &'a Metrics,
        run: Run,
    ) -> Self {
        let now = Instant::now();
        let wanted = node.hub.interest().wanted();
        let router = intake.router();
        router.shards().lose(ShardSet::ALL.minus(wanted));
        router.serve(ShardSet::NONE);
        let mut following = Self {
            log,
            intake: BusIntake { intake },
            node,
            health,
            metrics,
            follower: Follower::new(run),
            repair: None,
            sources: Statement::default(),
            may_repair: now,
            last_found: now,
            last_tick: now,
            last_message: now,
            times: ShardTimes::new(now),
            presents: Presents::default(),
        };
        following.take_wanted();
        following
    }

    /// Follows until there is a reason not to.
    async fn run(mut self) -> Ended {
        let mut ticks = interval(MARK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let hub = self.node.hub.clone();
        loop {
            self.begin_repair();
            let ended = tokio::select! {
                came = self.node.came() => match came {
                    Came::Incoming(incoming) => self.receive(incoming),
                    Came::Found(found) => self.found(found),
                    Came::Order(order) => self.node.ordered(order).then_some(Ended::Elected),
                },
                chunk = repair::next(&mut self.repair) => self.read(chunk).await,
                read = self.sources.ended() => {
                    // Where that fails they are in doubt again.
                    let _ = self.sources_read(read);
                    None
                }
                () = hub.interest().grown() => None,
                _ = ticks.tick() => self.tick(),
            };
            self.pass();
            if let Some(ended) = ended {
                return ended;
            }
            // Of a read that is under way nobody knows whether it sees what has changed since.
            if !self.sources.is_under_way()
                && self.intake.intake.sources_doubt().take_due(Instant::now)
            {
                self.sources.begin(|| statement::read_sources(self.log));
            }
        }
    }

    /// Takes the shards that have got users.
    fn take_wanted(&mut self) {
        let wanted = self.node.hub.interest().wanted();
        for shard in wanted.minus(self.follower.taken()).iter() {
            self.take(shard);
        }
    }

    fn take(&mut self, shard: Shard) {
        self.follower.take(shard);
        self.times.came(shard, Instant::now());
        if self.node.link.confirmed().contains(shard) {
            self.follower.confirm(shard);
        } else {
            self.node.link.subscribe(shard);
        }
    }

    fn receive(&mut self, incoming: Incoming) -> Option<Ended> {
        match incoming {
            Incoming::Message(bytes) => return self.message(&bytes),
            Incoming::Confirmed(Destination::Shard(shard)) => self.follower.confirm(shard),
            Incoming::Lost => self.follower.need_all(RepairCause::Broken),
            // Each subscription is confirmed anew.
            Incoming::Disconnected(_)
            | Incoming::Confirmed(Destination::Control)
            | Incoming::Nothing => {}
        }
        None
    }

    fn message(&mut self, bytes: &Bytes) -> Option<Ended> {
        let (run, message) = self.node.read(bytes)?;
        let own = self.follower.run().epoch();
        if run.epoch().is_of_a_later_timeline_than(own) {
            return self
                .node
                .is_behind(run.timeline)
                .then_some(Ended::NewerTimeline);
        }
        let is_followed = match message {
            Message::Batch {
                shard,
                sequence,
                items,
            } => {
                let whole = items.are_whole();
                let (batch, length) = (bytes.clone(), bytes.len());
                let verdict = self
                    .follower
                    .batch(&run, shard, sequence, batch, length, whole);
                if let Verdict::Route(batch) = &verdict {
                    self.route(batch);
                }
                self.came(shard, verdict != Verdict::OtherRun)
            }
            Message::Mark { shard, sequence } => {
                let is_followed = self.follower.mark(&run, shard, sequence);
                self.came(shard, is_followed)
            }
            Message::Alive => self.follower.other(&run),
            Message::Sources => {
                let is_followed = self.follower.other(&run);
                if is_followed {
                    self.intake.intake.sources_doubt().begin();
                }
                is_followed
            }
            Message::Barrier {
                snapshot,
                reached,
                seen,
            } => self.barrier(&run, snapshot, &reached, &seen),
        };
        if is_followed {
            self.node.status.received(run.number);
            self.last_message = Instant::now();
        } else {
            self.metrics.bus_messages_foreign.increment();
            self.node.watch.ask();
        }
        None
    }

    /// Something came over the subscription of this shard.
    fn came(&mut self, shard: Shard, is_followed: bool) -> bool {
        if is_followed {
            self.times.came(shard, Instant::now());
        }
        is_followed
    }

    fn barrier(&mut self, run: &Run, snapshot: &str, reached: &Numbers, seen: &Numbers) -> bool {
        let Ok(snapshot) = snapshot.parse() else {
            self.metrics.bus_messages_unreadable.increment();
            return self.follower.other(run);
        };
        let cursor = Cursor {
            epoch: run.epoch(),
            snapshot,
            sent: None,
        };
        self.follower.barrier(run, cursor, reached, seen)
    }

    /// Routes the events of a batch.
    fn route(&mut self, batch: &Bytes) {
        let newest = self.node.status.batch_version();
        let Ok((_, Message::Batch { mut items, .. })) = read(batch, newest) else {
            return;
        };
        while let Ok(Some(Published::Notification(notification))) = items.next_item() {
            self.intake.published(notification);
        }
    }

    /// Passes the barriers that can be passed. A user that has come counts before.
    fn pass(&mut self) {
        self.take_wanted();
        while let Some(mut cursor) = self.follower.pass() {
            let now = Instant::now();
            cursor.sent = self.presents.take_covered(&cursor.snapshot);
            if now.saturating_duration_since(self.last_found) <= FOUND_MAX {
                self.health.barrier_returned(now);
            }
            self.metrics.barrier_age.restart(now);
            if self.intake.pass(cursor, now) {
                self.follower.need_all(RepairCause::InLog);
            }
        }
    }

    fn begin_repair(&mut self) {
        if self.repair.is_some() || Instant::now() < self.may_repair {
            return;
        }
        let Some(from) = self.intake.intake.durable_position() else {
            return;
        };
        let from = from.snapshot.clone();
        for (shard, cause) in self.follower.needed() {
            self.metrics.node_repairs.increment(cause);
            tracing::debug!(event = "shard_repair", %shard, cause = cause.as_str());
        }
        let shards = self.follower.begin_repair();
        if !shards.is_empty() {
            self.repair = Some(Repair::begin(self.log, &from, shards));
        }
    }

    /// Takes a chunk of the repair.
    async fn read(&mut self, chunk: Result<Option<Chunk>, sqlx::Error>) -> Option<Ended> {
        let repair = self.repair.as_mut()?;
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                self.end_repair();
                return None;
            }
            Err(error) => {
                self.repair_failed(&error);
                return None;
            }
        };
        if !self.intake.intake.is_of_history(&chunk.reading.cursor) {
            return Some(Ended::History);
        }
        if repair.snapshot.is_none() {
            let snapshot = chunk.reading.cursor.snapshot.clone();
            self.follower.read_at(&snapshot);
            repair.snapshot = Some(snapshot);
        }
        let shards = repair.shards;
        let unknown = self.intake.repair(&chunk, shards);
        if unknown < chunk.rows.len() {
            if let Err(error) = self.read_sources().await {
                self.repair_failed(&error);
                return None;
            }
            self.intake.repair_all(&chunk.rows[unknown..], shards);
        }
        None
    }

    fn end_repair(&mut self) {
        let Some(Repair {
            shards,
            snapshot: Some(snapshot),
            ..
        }) = self.repair.take()
        else {
            return self.follower.fail_repair();
        };
        let served_before = self.follower.served();
        let is_whole = self.follower.taken().minus(shards).is_empty();
        let batches = self.follower.end_repair(&snapshot);
        let served = self.follower.served();
        let epoch = self.follower.run().epoch();
        let cursor = Cursor {
            epoch,
            snapshot: snapshot.clone(),
            sent: None,
        };
        if !self.intake.repaired(cursor, is_whole, Instant::now()) {
            self.follower.need_all(RepairCause::InLog);
        }
        for batch in &batches {
            self.route(batch);
        }
        let router = self.intake.intake.router();
        router.shards().take(served.minus(served_before), snapshot);
        router.serve(served);
        self.metrics.node_shards.set(f64::from(served.len()));
        self.node.status.set_shards(served.len());
    }

    fn repair_failed(&mut self, error: &sqlx::Error) {
        self.repair = None;
        self.follower.fail_repair();
        self.may_repair = Instant::now() + RETRY;
        let fault = store::fault(error);
        let (cause, advice) = (fault.as_str(), fault.advice());
        tracing::warn!(event = "repair_failed", cause, %error, retry_ms = RETRY.as_millis(), advice);
    }

    /// Takes what the database says of who leads, and of how far it is.
    fn found(&mut self, found: Result<Found, sqlx::Error>) -> Option<Ended> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                // The bus goes on.
                tracing::debug!(event = "leader_look_failed", %error);
                return None;
            }
        };
        self.last_found = Instant::now();
        if found.were_silent {
            tracing::warn!(event = "connections_silent");
            if self.repair.is_some() {
                self.repair_failed(&store::deadline_passed());
            }
        }
        if !self.intake.intake.is_of_history(&found.present) {
            return Some(Ended::History);
        }
        let Some(number) = found.run else {
            return Some(Ended::Leaderless);
        };
        let run = Run {
            number,
            ..*self.follower.run()
        };
        if run != *self.follower.run() {
            tracing::info!(event = "leader_followed", run = number);
            self.follower.follow(run);
            self.intake.intake.sources_doubt().begin();
            self.last_message = Instant::now();
        }
        self.presents.push(found.began, found.present.snapshot);
        None
    }

    fn tick(&mut self) -> Option<Ended> {
        let now = Instant::now();
        let since_tick = now.saturating_duration_since(self.last_tick);
        self.last_tick = now;
        if since_tick > 2 * MARK_INTERVAL {
            // The process was stopped, or waited for the database: what has come meanwhile is looked at first.
            return None;
        }
        if is_silence(now.saturating_duration_since(self.last_message)) {
            return Some(Ended::Silent);
        }
        for shard in self.times.take_silent(self.follower.taken(), now).iter() {
            self.subscribe_again(shard);
        }
        let (taken, wanted) = (self.follower.taken(), self.node.hub.interest().wanted());
        for shard in self.times.take_unwanted(taken, wanted, now).iter() {
            self.let_go(shard);
        }
        None
    }

    /// The others' marks come, and this shard's do not. It is read from the log until they do.
    fn subscribe_again(&mut self, shard: Shard) {
        tracing::warn!(event = "shard_silent", %shard);
        self.node.link.unsubscribe(shard);
        self.node.link.subscribe(shard);
        self.follower.need(shard, RepairCause::Silent);
    }

    /// A user who comes meanwhile either finds the shard no longer served, or is found here.
    fn let_go(&mut self, shard: Shard) {
        self.follower.let_go(shard);
        let router = self.intake.intake.router();
        router.serve(self.follower.served());
        router.shards().lose(ShardSet::NONE.with(shard));
        if self.node.hub.interest().wanted().contains(shard) {
            self.take(shard);
        } else {
            self.node.link.unsubscribe(shard);
        }
    }

    async fn read_sources(&mut self) -> Result<(), sqlx::Error> {
        self.node.watch.let_go();
        let read = self.log.read_kinds().await;
        self.sources_read(read)
    }

    fn sources_read(&mut self, read: Result<bool, sqlx::Error>) -> Result<(), sqlx::Error> {
        let read = read.inspect_err(|error| {
            tracing::debug!(event = "sources_unread", %error);
            self.intake.intake.sources_doubt().begin();
        });
        if read? {
            self.intake.intake.user_type_changed();
        }
        Ok(())
    }
}
