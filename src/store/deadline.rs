//! The time that one statement may take.
//!
//! It is set where the statement is sent. PostgreSQL ends the statement before (`session`), unless it does not answer
//! at all.

use std::time::Duration;

/// Total time of one statement, with the wait for a connection.
pub(super) const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);
/// Time without a row after which a read of many rows ends.
pub(super) const ROW_DEADLINE: Duration = Duration::from_secs(10);

/// PostgreSQL has not answered.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL has not answered in time")]
pub(super) struct DeadlinePassed;

impl From<DeadlinePassed> for sqlx::Error {
    fn from(passed: DeadlinePassed) -> Self {
        Self::AnyDriverError(Box::new(passed))
    }
}

/// The error of a statement that PostgreSQL has not answered in time.
#[must_use]
pub fn deadline_passed() -> sqlx::Error {
    DeadlinePassed.into()
}

/// Whether this is [`DeadlinePassed`].
pub(super) fn has_passed(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::AnyDriverError(cause) if cause.is::<DeadlinePassed>())
}

/// The statement's answer, or [`DeadlinePassed`].
pub(super) async fn within_deadline<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(STATEMENT_DEADLINE, statement)
        .await
        .unwrap_or_else(|_| Err(DeadlinePassed.into()))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_is_not_answered_ends_at_its_deadline() {
        let begun = Instant::now();
        let silent = std::future::pending::<Result<(), sqlx::Error>>();
        let error = within_deadline(silent).await.unwrap_err();
        assert!(has_passed(&error), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(11));
    }
}
