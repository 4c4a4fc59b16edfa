//! What the service does for itself, again and again.
//!
//! A turn that fails (a lock that is taken, a database that is away) is made up for by the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::delivery::HealthReport;
use crate::metrics::Metrics;
use crate::protocol::{Label, ReadinessReason};
use crate::store::Log;

const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(15);
const QUEUE_USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// The share of PostgreSQL's notification queue from which on the log warns of it.
const QUEUE_USAGE_WARNED: f64 = 0.5;
const TRIGGERS_INTERVAL: Duration = Duration::from_secs(30);
const RETENTION_INTERVAL: Duration = Duration::from_mins(1);

/// Clears what the metrics no longer need.
pub(super) async fn upkeep(metrics: Arc<Metrics>) {
    let mut interval = interval(METRICS_UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.upkeep();
    }
}

/// Measures PostgreSQL's notification queue.
pub(super) async fn watch_queue(log: Log, health: HealthReport, metrics: Arc<Metrics>) {
    let reason = ReadinessReason::NotificationQueueFilling;
    let mut interval = without_bursts(QUEUE_USAGE_INTERVAL);
    loop {
        interval.tick().await;
        match log.notification_queue_usage().await {
            Ok(ratio) => {
                metrics.notification_queue_usage(ratio);
                if ratio >= QUEUE_USAGE_WARNED {
                    health.begin(reason, &format!("{:.0} % is in use", ratio * 100.0));
                    tracing::warn!(event = "notification_queue_filling", ratio);
                } else {
                    health.end(reason);
                }
            }
            Err(error) => tracing::debug!(event = "queue_usage_unknown", %error),
        }
    }
}

/// Looks whether the triggers that write the log are in their places.
pub(super) async fn watch_triggers(log: Log, health: HealthReport, metrics: Arc<Metrics>) {
    let reason = ReadinessReason::TriggerFaulty;
    let mut known = Vec::new();
    let mut interval = without_bursts(TRIGGERS_INTERVAL);
    loop {
        interval.tick().await;
        let faulty = match log.trigger_faults().await {
            Ok(faulty) => faulty,
            Err(error) => {
                tracing::debug!(event = "triggers_unknown", %error);
                continue;
            }
        };
        metrics
            .trigger_faults
            .set_all(|fault| faulty.iter().any(|trigger| trigger.fault == fault));
        if faulty.is_empty() {
            health.end(reason);
        } else {
            let all: Vec<String> = faulty.iter().map(ToString::to_string).collect();
            health.begin(reason, &all.join(", "));
        }
        for trigger in faulty.iter().filter(|trigger| !known.contains(*trigger)) {
            let (fault, advice) = (trigger.fault.as_str(), trigger.fault.advice());
            tracing::warn!(
                event = "trigger_faulty",
                relation = trigger.relation,
                fault,
                advice
            );
        }
        if faulty.is_empty() && !known.is_empty() {
            tracing::info!(event = "triggers_in_place");
        }
        known = faulty;
    }
}

/// Makes the log's partitions ahead and drops the old ones. Several servers of one database may do it at once.
pub(super) async fn retain(log: Log, retention: Duration) {
    let mut interval = without_bursts(RETENTION_INTERVAL);
    loop {
        interval.tick().await;
        match log.maintain(retention).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(event = "log_partitions_dropped", dropped),
            Err(error) => tracing::debug!(event = "log_not_maintained", %error),
        }
    }
}

/// Does not make up for the ticks that a slow database has cost.
fn without_bursts(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
