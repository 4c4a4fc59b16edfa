//! Look-ups of devices and users, bounded in time.

use std::time::Duration;

use crate::protocol::AuthError;

/// How long a look-up may take, including the wait for a connection. PostgreSQL ends its statement before.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Fails with [`AuthError::Unavailable`] when the database does not answer in time or refuses.
pub(super) async fn lookup<T>(
    read: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, AuthError> {
    match tokio::time::timeout(LOOKUP_TIMEOUT, read).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(event = "identity_lookup_failed", %error);
            Err(AuthError::Unavailable)
        }
        Err(_) => Err(AuthError::Unavailable),
    }
}
