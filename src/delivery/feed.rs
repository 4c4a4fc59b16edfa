//! The feed: whether events are coming, from which cursor on, and what is wrong if they are not.
//!
//! The router publishes it, and everything that depends on the listener's state reads it from here: a
//! new connection, a replay, `/readyz`. Whoever finds that something is wrong reports it here. Readers so
//! know neither the listener nor the barriers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::health::{Finding, Health};
use crate::protocol::{
    Cursor, Label, ReadinessReason, Sequence, Shard, ShardSet, SkippedRow, UserKey,
};

/// The state of the stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    pub(super) live: bool,
    /// The shards whose events come: all of them, unless the node takes events from the bus.
    pub(super) served: ShardSet,
    pub(super) cursor: Option<Arc<Cursor>>,
    /// The signal that last reset all clients because of another history.
    pub(super) new_history: Option<Sequence>,
    health: Health,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            live: false,
            served: ShardSet::ALL,
            cursor: None,
            new_history: None,
            health: Health::default(),
        }
    }
}

impl Feed {
    /// Whether events of this user come: the feed is live, and it brings the user's shard.
    #[must_use]
    pub fn serves(&self, user: UserKey) -> bool {
        self.live && self.served.contains(Shard::of(user))
    }

    /// Whether the listener is connected and has caught up. While it has not, no client can be given
    /// its position.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The newest cursor that clients are given: everything visible in its snapshot has been routed.
    /// `None` in a database without a log. Kept while the feed is away.
    #[must_use]
    pub fn cursor(&self) -> Option<&Arc<Cursor>> {
        self.cursor.as_ref()
    }

    /// The signal that last reset all clients because of another history, in which `cursor` is. Nothing was routed before it
    /// that `cursor` has not seen: events are held back while a history is looked for. With other resets the log goes on,
    /// and an event may have been routed that their cursor has not seen.
    #[must_use]
    pub fn new_history(&self) -> Option<Sequence> {
        self.new_history
    }

    /// Every reason why the service is not plainly ready at this moment. None: events arrive.
    #[must_use]
    pub fn findings(&self, now: Instant) -> Vec<Finding> {
        self.health.findings(self.live, now)
    }

    /// Whether this is one of the reasons why the service is not plainly ready.
    #[must_use]
    pub fn has(&self, reason: ReadinessReason, now: Instant) -> bool {
        let mut findings = self.findings(now).into_iter();
        findings.any(|finding| finding.reason == reason)
    }
}

/// Reports on the feed what proves that events arrive, and what is wrong. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HealthReport(pub(super) watch::Sender<Feed>);

impl HealthReport {
    /// From here on nothing is proven when no barrier has returned for so long.
    pub fn expect_barriers(&self, silence_max: Duration) {
        self.change(|health| health.expect_barriers(silence_max));
    }

    /// A barrier has returned: what was committed before it has come.
    pub fn barrier_returned(&self, now: Instant) {
        self.change(|health| health.barrier_returned(now));
    }

    /// A barrier has returned late, behind many events.
    pub fn barrier_returned_late(&self, now: Instant) {
        self.change(|health| health.barrier_returned_late(now));
    }

    /// Events come, and the barriers behind them have not returned yet.
    pub fn behind(&self, now: Instant) {
        self.change(|health| health.behind(now));
    }

    /// The row of the log with this id was skipped: its event reaches nobody.
    pub fn events_skipped(&self, id: i64, why: SkippedRow, now: Instant) {
        let detail = format!("row {id} of the log: {}", why.as_str());
        self.change(|health| health.events_skipped(&detail, now));
    }

    /// An event could not be made. The detail is one line that anyone may read.
    pub fn events_failed(&self, detail: &str, now: Instant) {
        self.change(|health| health.events_failed(detail, now));
    }

    /// The reason holds from here on. The detail is one line that anyone may read; it may be empty.
    pub fn begin(&self, reason: ReadinessReason, detail: &str) {
        self.change(|health| health.begin(reason, detail));
    }

    /// The reason holds no longer.
    pub fn end(&self, reason: ReadinessReason) {
        self.change(|health| health.end(reason));
    }

    fn change(&self, change: impl FnOnce(&mut Health)) {
        self.0.send_if_modified(|feed| {
            change(&mut feed.health);
            // `/readyz` looks when it is asked. Connections wait for cursors and need not wake.
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_seen_and_wakes_no_reader() {
        let (sender, mut feed) = watch::channel(Feed::default());
        let (report, now) = (HealthReport(sender), Instant::now());
        report.expect_barriers(Duration::from_secs(10));
        report.barrier_returned(now);
        report.begin(ReadinessReason::NotificationQueueFilling, "");
        let reasons = |feed: &Feed| -> Vec<_> {
            let findings = feed.findings(now).into_iter();
            findings.map(|finding| finding.reason).collect()
        };
        let away = ReadinessReason::ListenerDisconnected;
        let both = [away, ReadinessReason::NotificationQueueFilling];
        assert_eq!(reasons(&feed.borrow()), both);
        assert!(!feed.has_changed().unwrap());
        report.end(ReadinessReason::NotificationQueueFilling);
        assert_eq!(reasons(&feed.borrow_and_update()), [away]);
    }
}
