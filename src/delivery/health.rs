//! What is known of the stream's health. Pure: the caller says what time it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use enum_map::EnumMap;

use crate::protocol::{Label, ReadinessReason};

/// How long `/readyz` shows that an event reached nobody.
const MISSED_SHOWN: Duration = Duration::from_mins(10);

/// A reason why the service is not plainly ready, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The reason.
    pub reason: ReadinessReason,
    /// What was seen, in one line, such as the database's error. Anyone may read it.
    pub detail: Option<Arc<str>>,
}

/// The reasons that were reported, and the last proof that events arrive: a barrier that has returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Health {
    /// Each with its detail; `None` for a reason that does not hold.
    reported: EnumMap<ReadinessReason, Option<Arc<str>>>,
    /// When a barrier last returned.
    returned: Option<Instant>,
    /// When events were last seen to come although the barriers behind them had not returned, or only late. `None` from
    /// the first barrier on that returns in time.
    behind: Option<Instant>,
    /// When a row of the log was last skipped.
    skipped: Option<Instant>,
    /// When an event could last not be made.
    failed: Option<Instant>,
    /// Time without a barrier after which nothing is proven.
    silence_max: Duration,
}

impl Health {
    pub(super) fn expect_barriers(&mut self, silence_max: Duration) {
        self.silence_max = silence_max;
    }

    pub(super) fn barrier_returned(&mut self, now: Instant) {
        self.returned = Some(now);
        self.behind = None;
    }

    pub(super) fn barrier_returned_late(&mut self, now: Instant) {
        (self.returned, self.behind) = (Some(now), Some(now));
    }

    pub(super) fn behind(&mut self, now: Instant) {
        self.behind = Some(now);
    }

    pub(super) fn events_skipped(&mut self, detail: &str, now: Instant) {
        self.skipped = Some(now);
        self.begin(ReadinessReason::EventsSkipped, detail);
    }

    pub(super) fn events_failed(&mut self, detail: &str, now: Instant) {
        self.failed = Some(now);
        self.begin(ReadinessReason::EventsFailed, detail);
    }

    pub(super) fn begin(&mut self, reason: ReadinessReason, detail: &str) {
        self.reported[reason] = Some(detail.into());
    }

    pub(super) fn end(&mut self, reason: ReadinessReason) {
        self.reported[reason] = None;
    }

    /// Every reason that holds now, in the order of the declaration. `live` is whether the listener is connected and
    /// has caught up.
    pub(super) fn findings(&self, live: bool, now: Instant) -> Vec<Finding> {
        ReadinessReason::all()
            .filter(|reason| self.holds(*reason, live, now))
            .map(|reason| Finding {
                reason,
                detail: self.detail(reason, now),
            })
            .collect()
    }

    fn holds(&self, reason: ReadinessReason, live: bool, now: Instant) -> bool {
        let is_reported = |reason| self.reported[reason].is_some();
        let is_shown = |last: Option<Instant>| {
            last.is_some_and(|last| now.saturating_duration_since(last) < MISSED_SHOWN)
        };
        // Then there is no connection, and no barrier commits: that is no reason of its own.
        let is_unusable = is_reported(ReadinessReason::Pooler)
            || is_reported(ReadinessReason::Recovery)
            || is_reported(ReadinessReason::Privilege);
        match reason {
            // Its detail stays reported from the last loss on.
            ReadinessReason::ListenerDisconnected => !live && !is_unusable,
            // A barrier or two that failed or wait are no reason: the last one that returned still proves enough.
            // PostgreSQL ends a barrier that waits, which then fails: the wait is the reason.
            ReadinessReason::BarrierFailed if is_reported(ReadinessReason::BarrierUncommitted) => {
                false
            }
            ReadinessReason::BarrierFailed | ReadinessReason::BarrierUncommitted => {
                is_reported(reason) && self.is_unproven(now) && !is_unusable
            }
            // While the listener is away, no barrier can return.
            ReadinessReason::BarrierNotReturned => {
                live && self.is_unproven(now)
                    && !is_reported(ReadinessReason::BarrierFailed)
                    && !is_reported(ReadinessReason::BarrierUncommitted)
            }
            // Before it is live, the listener catches up as well, and no client is let in.
            ReadinessReason::CatchingUp => {
                live && (is_reported(reason) || self.is_recent(self.behind, now))
            }
            ReadinessReason::EventsSkipped => is_shown(self.skipped),
            ReadinessReason::EventsFailed => is_shown(self.failed),
            _ => is_reported(reason),
        }
    }

    /// Whether for too long no barrier has returned, nor anything else shown that events come; or never.
    fn is_unproven(&self, now: Instant) -> bool {
        !self.is_recent(self.returned, now) && !self.is_recent(self.behind, now)
    }

    fn is_recent(&self, time: Option<Instant>, now: Instant) -> bool {
        time.is_some_and(|time| now.saturating_duration_since(time) < self.silence_max)
    }

    fn detail(&self, reason: ReadinessReason, now: Instant) -> Option<Arc<str>> {
        let is_about_barriers = match reason {
            ReadinessReason::BarrierNotReturned => true,
            ReadinessReason::CatchingUp => self.reported[reason].is_none(),
            _ => false,
        };
        if is_about_barriers {
            let text = match self.returned {
                Some(returned) => {
                    let age = now.saturating_duration_since(returned);
                    format!("the last barrier returned {} s ago", age.as_secs())
                }
                None => "no barrier has returned since the start".to_owned(),
            };
            return Some(text.into());
        }
        self.reported[reason]
            .clone()
            .filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReadinessReason::{
        BarrierFailed, BarrierNotReturned, BarrierUncommitted, CatchingUp, EventsSkipped,
        ListenerDisconnected, NotificationQueueFilling,
    };

    const SILENCE_MAX: Duration = Duration::from_secs(10);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn health() -> Health {
        let mut health = Health::default();
        health.expect_barriers(SILENCE_MAX);
        health
    }

    fn reasons(health: &Health, live: bool, now: Instant) -> Vec<ReadinessReason> {
        let findings = health.findings(live, now);
        findings.into_iter().map(|finding| finding.reason).collect()
    }

    fn detail(health: &Health, now: Instant) -> String {
        let findings = health.findings(true, now);
        findings[0].detail.as_deref().unwrap().to_owned()
    }

    #[test]
    fn a_skipped_row_is_told_of_for_a_while_and_the_last_is_named() {
        let (mut health, start) = (health(), Instant::now());
        for (at, name) in [(0, "row 1"), (60, "row 2")] {
            health.events_skipped(name, start + seconds(at));
        }
        for (at, held) in [(60, true), (659, true), (660, false)] {
            let now = start + seconds(at);
            health.barrier_returned(now);
            let expected = [EventsSkipped].into_iter().filter(|_| held);
            assert!(reasons(&health, true, now).into_iter().eq(expected), "{at}");
        }
        let now = start + seconds(60);
        assert_eq!(detail(&health, now), "row 2");
    }

    #[test]
    fn nothing_is_proven_before_the_first_barrier_returns() {
        let (mut health, start) = (health(), Instant::now());
        assert_eq!(reasons(&health, false, start), [ListenerDisconnected]);
        assert_eq!(reasons(&health, true, start), [BarrierNotReturned]);
        health.barrier_returned(start);
        assert_eq!(reasons(&health, true, start), []);
    }

    #[test]
    fn the_proof_of_a_barrier_ends_with_its_age() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        let almost = start + Duration::from_millis(9_999);
        assert_eq!(reasons(&health, true, almost), []);
        assert_eq!(
            reasons(&health, true, start + SILENCE_MAX),
            [BarrierNotReturned]
        );
        let text = detail(&health, start + seconds(12));
        assert_eq!(text, "the last barrier returned 12 s ago");
        health.barrier_returned(start + seconds(12));
        assert_eq!(reasons(&health, true, start + seconds(13)), []);
    }

    #[test]
    fn barriers_that_fail_are_as_bad_as_barriers_that_do_not_return() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        health.begin(BarrierFailed, "no such function (42883)");
        assert_eq!(reasons(&health, true, start + seconds(9)), []);
        let late = start + seconds(10);
        assert_eq!(reasons(&health, true, late), [BarrierFailed]);
        assert_eq!(detail(&health, late), "no such function (42883)");
        let both = [ListenerDisconnected, BarrierFailed];
        assert_eq!(reasons(&health, false, late), both);
        // The next one commits, and has not returned yet.
        health.end(BarrierFailed);
        assert_eq!(reasons(&health, true, late), [BarrierNotReturned]);
        health.barrier_returned(late);
        assert_eq!(reasons(&health, true, late), []);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_the_reason_for_all_that_follows_from_it() {
        let (mut health, start) = (health(), Instant::now());
        for reason in [
            ReadinessReason::Pooler,
            ReadinessReason::Recovery,
            ReadinessReason::Privilege,
        ] {
            health.begin(ListenerDisconnected, "seen");
            health.begin(BarrierFailed, "seen");
            health.begin(reason, "seen");
            assert_eq!(reasons(&health, false, start), [reason]);
            health.end(reason);
            let both = [ListenerDisconnected, BarrierFailed];
            assert_eq!(reasons(&health, false, start), both);
        }
    }

    #[test]
    fn a_barrier_that_waits_to_commit_is_as_bad_as_one_that_fails() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        health.begin(BarrierUncommitted, "");
        assert_eq!(reasons(&health, true, start + seconds(9)), []);
        for now in [start + seconds(10), start + seconds(60)] {
            assert_eq!(reasons(&health, true, now), [BarrierUncommitted]);
            assert_eq!(health.findings(true, now)[0].detail, None);
        }
    }

    #[test]
    fn a_reason_holds_from_its_report_to_its_end() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        health.begin(NotificationQueueFilling, "57 %");
        assert_eq!(reasons(&health, true, start), [NotificationQueueFilling]);
        assert_eq!(detail(&health, start), "57 %");
        health.end(NotificationQueueFilling);
        assert_eq!(reasons(&health, true, start), []);
    }

    #[test]
    fn events_that_come_before_late_barriers_are_as_good_as_barriers() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        health.behind(start + seconds(9));
        let late = start + seconds(18);
        assert_eq!(reasons(&health, true, late), [CatchingUp]);
        let text = detail(&health, late);
        assert_eq!(text, "the last barrier returned 18 s ago");
        let silent = start + seconds(19);
        assert_eq!(reasons(&health, true, silent), [BarrierNotReturned]);
        health.barrier_returned_late(silent);
        assert_eq!(reasons(&health, true, silent), [CatchingUp]);
        health.barrier_returned(silent);
        assert_eq!(reasons(&health, true, silent), []);
    }

    #[test]
    fn a_long_read_is_reported_while_clients_are_let_in() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        health.begin(CatchingUp, "7 events");
        assert_eq!(reasons(&health, true, start), [CatchingUp]);
        assert_eq!(detail(&health, start), "7 events");
        assert_eq!(reasons(&health, false, start), [ListenerDisconnected]);
        health.end(CatchingUp);
        assert_eq!(reasons(&health, true, start), []);
    }

    #[test]
    fn the_listener_s_detail_is_of_its_last_loss() {
        let (mut health, start) = (health(), Instant::now());
        health.barrier_returned(start);
        health.begin(ListenerDisconnected, "the connection was closed");
        assert_eq!(reasons(&health, true, start), [], "it has come back");
        let detail = health.findings(false, start)[0].detail.clone();
        assert_eq!(detail.as_deref(), Some("the connection was closed"));
    }
}
