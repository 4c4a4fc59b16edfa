//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Pause between two checks of the condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Checks `condition` until it holds or the deadline has passed. Returns whether it held.
pub(crate) async fn until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
