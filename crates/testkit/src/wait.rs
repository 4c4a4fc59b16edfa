//! Waiting for a condition or a future, with a deadline.
//!
//! Tests wait for conditions and never for a time. The deadline only ends a test that has failed.
//! It is long enough for a machine that is busy with other work.

use std::time::Duration;

/// Set where tests are to fail, as under `make mutations`: another deadline, in seconds.
const DEADLINE_VARIABLE: &str = "TEST_DEADLINE_SECONDS";
/// Pause between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long a test waits for anything before it fails.
#[must_use]
pub fn deadline() -> Duration {
    let seconds = std::env::var(DEADLINE_VARIABLE);
    seconds.map_or(Duration::from_mins(5), |text| {
        Duration::from_secs(text.parse().unwrap())
    })
}

/// Checks a condition until it holds. Panics at the deadline.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let checking = async {
        while !condition().await {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let outcome = tokio::time::timeout(deadline(), checking).await;
    assert!(outcome.is_ok(), "still not true: {what}");
}

/// Waits for a future. Panics at the deadline.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(deadline(), future).await;
    outcome.unwrap_or_else(|_| panic!("still waiting for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_checked_until_it_holds() {
        let mut checks = 0;
        until("the third check", async || {
            checks += 1;
            checks == 3
        })
        .await;
        assert_eq!(checks, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "still not true: the impossible")]
    async fn a_condition_that_never_holds_fails_the_test() {
        until("the impossible", async || false).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "still waiting for nothing")]
    async fn a_future_that_never_ends_fails_the_test() {
        soon("nothing", std::future::pending::<()>()).await;
    }
}
