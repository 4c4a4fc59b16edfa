//! What the service does for itself, again and again.
//!
//! A turn that fails (a lock that is taken, a database that is away) is made up for by the next one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::delivery::HealthReport;
use crate::metrics::Metrics;
use crate::protocol::{Label, ReadinessReason};
use crate::store::{self, Log, Rotation};

const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(15);
const QUEUE_USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// The share of PostgreSQL's notification queue from which on the log warns of it.
const QUEUE_USAGE_WARNED: f64 = 0.5;
const TRIGGERS_INTERVAL: Duration = Duration::from_secs(30);
const RIGHTS_INTERVAL: Duration = Duration::from_secs(30);
/// While the database does not answer, or a right is missing.
const RIGHTS_RETRY: Duration = Duration::from_secs(2);
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
                tracing::warn!(
                    event = "triggers_unknown",
                    %error,
                    advice = "whether the triggers that write the log are in their places is not known until the next \
                              look"
                );
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

/// Looks whether the service's role has the rights that it needs. What is missing is logged when it changes.
pub(super) async fn watch_rights(log: Log, health: HealthReport) {
    let reason = ReadinessReason::PrivilegeMissing;
    let mut known = None;
    loop {
        match log.missing_rights().await {
            Err(error) => {
                tracing::debug!(event = "rights_unknown", %error);
                sleep(RIGHTS_RETRY).await;
                continue;
            }
            Ok(missing) if missing == known => {}
            Ok(missing) => {
                if let Some(missing) = &missing {
                    let rights = missing.rights.join("; ");
                    health.begin(reason, &format!("{} lacks {rights}", missing.role));
                    let (role, remedy) = (&missing.role, &missing.remedy);
                    tracing::warn!(event = "rights_missing", role, rights, remedy);
                } else {
                    health.end(reason);
                    tracing::info!(event = "rights_complete");
                }
                known = missing;
            }
        }
        let is_lacking = known.is_some();
        sleep(if is_lacking {
            RIGHTS_RETRY
        } else {
            RIGHTS_INTERVAL
        })
        .await;
    }
}

/// Rotates the log's partitions and drops the old ones. Several servers of one database may do it at once.
pub(super) async fn retain(log: Log, retention: Duration, metrics: Arc<Metrics>) {
    let mut interval = without_bursts(RETENTION_INTERVAL);
    loop {
        interval.tick().await;
        let retained = match rotate_and_drop(&log, retention, &metrics).await {
            Err(error) if store::is_undefined_function(&error) => {
                // The schema is that of the release before.
                let dropped = log.maintain(retention).await;
                dropped.map(|dropped| tracing::debug!(event = "log_maintained", dropped))
            }
            retained => retained,
        };
        match retained {
            Ok(()) => {}
            Err(error) if store::is_without_schema(&error) => {
                tracing::debug!(event = "log_not_maintained", %error);
            }
            Err(error) => {
                metrics.log_maintenance_failures.increment();
                tracing::warn!(event = "log_not_maintained", %error);
            }
        }
    }
}

/// Each step is a transaction of its own, so that a partition that is in use holds up no other step.
async fn rotate_and_drop(
    log: &Log,
    retention: Duration,
    metrics: &Metrics,
) -> Result<(), sqlx::Error> {
    let rotation = log.rotate(retention).await?;
    let expired = log.expired(retention).await?;
    let mut overdue = 0_u32;
    for partition in &expired {
        match log.forget(partition).await {
            Ok(()) => tracing::info!(event = "log_partition_dropped", partition),
            Err(error) => {
                overdue += 1;
                metrics.log_maintenance_failures.increment();
                warn_of_blockers(log, partition, &error).await;
            }
        }
    }
    metrics.log_partitions_overdue.set(f64::from(overdue));
    if rotation == Rotation::Full {
        metrics.log_maintenance_failures.increment();
        tracing::warn!(
            event = "log_partitions_all_in_use",
            remedy = "end what holds up the dropping of old partitions; until then the open partition grows"
        );
    }
    Ok(())
}

/// Says why a partition is still there, and what to do.
async fn warn_of_blockers(log: &Log, partition: &str, error: &sqlx::Error) {
    let blockers = if store::is_lock_not_available(error) {
        log.blockers(partition).await.unwrap_or_default()
    } else {
        Vec::new()
    };
    for blocker in &blockers {
        tracing::warn!(
            event = "log_partition_in_use",
            partition,
            %blocker,
            remedy = blocker.remedy()
        );
    }
    if blockers.is_empty() {
        tracing::warn!(event = "log_partition_not_dropped", partition, %error);
    }
}

/// Does not make up for the ticks that a slow database has cost.
fn without_bursts(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
