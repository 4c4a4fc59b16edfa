//! Why the clients are reset at the end of a read of the log: something has changed of which there is no event.

use std::sync::Arc;
use std::time::Instant;

use super::failed_events::FailedEvents;
use crate::delivery::HealthReport;
use crate::metrics::Metrics;
use crate::protocol::{Kind, ResetReason};

/// What the clients are to be reset for.
#[derive(Debug)]
pub(super) struct Resets {
    metrics: Arc<Metrics>,
    /// Why they are reset at the end of the read that is under way.
    reason: Option<ResetReason>,
    /// Events that could not be made, for which they are reset.
    failed: FailedEvents,
}

impl Resets {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            reason: None,
            failed: FailedEvents::default(),
        }
    }

    /// The clients are reset at the end of the read.
    pub(super) fn at_end(&mut self, reason: ResetReason) {
        self.reason = Some(reason);
    }

    /// An event of this source could not be made. Returns whether the clients are reset for it at the end of the read; if
    /// not, they are later.
    pub(super) fn event_failed(
        &mut self,
        source: i16,
        sqlstate: &str,
        health: &HealthReport,
        now: Instant,
    ) -> bool {
        let kind = self.metrics.kinds.source(source);
        self.metrics
            .event_failed(kind.map_or(Kind::OTHER, |(kind, _)| kind));
        let detail = format!("{}: SQLSTATE {sqlstate}", self.kind_name(source));
        health.events_failed(&detail, now);
        let resets = self.failed.failed(source, now);
        if resets {
            self.reason.get_or_insert(ResetReason::EventFailed);
        }
        resets
    }

    /// The kind of this source's events, for people.
    fn kind_name(&self, source: i16) -> Arc<str> {
        let name = self.metrics.kinds.source_name(source);
        name.unwrap_or_else(|| Kind::OTHER_NAME.into())
    }

    /// Whether the clients are to be reset for what has failed in the meantime.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.failed.are_due(now)
    }

    /// Why the clients are reset at the end of this read. What it sees must then be on disk.
    pub(super) fn reason_by(&mut self, now: Instant) -> Option<ResetReason> {
        if self.failed.are_due(now) {
            self.reason.get_or_insert(ResetReason::EventFailed);
        }
        self.reason
    }

    /// The same, as it was last asked.
    pub(super) fn reason(&self) -> Option<ResetReason> {
        self.reason
    }

    /// The clients have been reset.
    pub(super) fn done(&mut self, now: Instant) {
        self.reason = None;
        for (source, events) in self.failed.clients_reset(now) {
            let kind = self.kind_name(source);
            tracing::warn!(
                event = "event_failed",
                kind = &*kind,
                events,
                advice = "PostgreSQL's log has each error; mend the table or what the source's audience reads, or attach the \
                          table again"
            );
        }
    }
}
