//! The end of a server, spread over time: its clients go to the others no faster than those can take
//! them.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Of the deadline, what is left for the last clients to take their goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Whether the server drains, and when each client is to go. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    /// Between one client's going and the next one's.
    step: OnceLock<Duration>,
    /// Clients that have been given their time.
    given: AtomicU64,
}

impl Drain {
    /// Begins to drain so many clients, of whom so many may come back elsewhere in a second, unless
    /// that would take longer than the deadline admits. Returns how long it will take.
    #[must_use]
    pub fn begin(&self, clients: usize, per_second: u32, deadline: Duration) -> Duration {
        let clients = u32::try_from(clients).unwrap_or(u32::MAX).max(1);
        let longest = deadline.saturating_sub(GOODBYE.min(deadline / 2));
        let step = (Duration::from_secs(1) / per_second.max(1)).min(longest / clients);
        let step = *self.plan.step.get_or_init(|| step);
        self.begun.cancel();
        step * clients
    }

    /// Whether it has begun. Cheap enough to ask at every event.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        // Not the token, whose lock all connections would share.
        self.plan.step.get().is_some()
    }

    /// Ready when it begins, and ever after.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// How long from now one more client may stay.
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
