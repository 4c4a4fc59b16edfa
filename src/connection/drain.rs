//! The end of a server, spread over time: its clients leave no faster than the other servers can accept them.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The part of the deadline that is left for the last clients to read their close frame.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Whether the server drains, and when each client has to leave. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    /// The time between two clients that leave.
    step: OnceLock<Duration>,
    /// Clients that have been given a time to leave.
    given: AtomicU64,
}

impl Drain {
    /// Begins to drain this number of clients at this rate, or faster if the deadline would not suffice. Returns
    /// how long the drain will take.
    #[must_use]
    pub fn begin(&self, clients: usize, per_second: u32, deadline: Duration) -> Duration {
        let clients = u32::try_from(clients).unwrap_or(u32::MAX).max(1);
        let longest = deadline.saturating_sub(CLOSE_TIME.min(deadline / 2));
        let step = (Duration::from_secs(1) / per_second.max(1)).min(longest / clients);
        let step = *self.plan.step.get_or_init(|| step);
        self.begun.cancel();
        step * clients
    }

    /// Whether the drain has begun. One atomic load.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        // The token would be asked under a lock that all connections share.
        self.plan.step.get().is_some()
    }

    /// Ready once the drain has begun.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// The time from now after which one more client leaves.
    #[must_use]
    pub fn next_delay(&self) -> Duration {
        let given = self.plan.given.fetch_add(1, Relaxed);
        let step = self.plan.step.get().copied().unwrap_or_default();
        step * u32::try_from(given).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_go_one_after_another_at_the_rate_of_the_setting() {
        let drain = Drain::default();
        assert!(!drain.has_begun());
        let whole = drain.begin(1_000, 500, Duration::from_secs(10));
        assert!(drain.has_begun());
        assert_eq!(whole, Duration::from_secs(2));
        let delays: Vec<_> = (0..1_000).map(|_| drain.next_delay()).collect();
        assert_eq!(delays[0], Duration::ZERO);
        let steps = delays.windows(2).map(|d| d[1].abs_diff(d[0]));
        assert!(
            steps
                .into_iter()
                .all(|step| step == Duration::from_millis(2))
        );
    }

    #[test]
    fn the_deadline_wins_over_the_rate() {
        let whole = Drain::default().begin(1_000_000, 100, Duration::from_secs(10));
        assert!(
            whole <= Duration::from_secs(7) && whole > Duration::from_secs(6),
            "{whole:?}"
        );
    }
}
