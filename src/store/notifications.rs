//! The connection that notifications come over. No query runs on it but LISTEN.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};

use super::{Log, session};

/// One attempt to connect; sqlx itself retries a refused connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that listens on some channels.
#[derive(Debug)]
pub struct Notifications(PgListener);

impl Notifications {
    /// Probes the address, connects and listens. Nothing that commits after this returns is missed.
    ///
    /// # Errors
    /// The database's, or why the address cannot be used, or `PoolTimedOut` when neither LISTEN nor a second attempt to connect has been answered in time.
    pub async fn listen(
        log: &Log,
        channels: impl IntoIterator<Item = &str>,
    ) -> Result<Self, sqlx::Error> {
        let address = log.address();
        address.forget();
        address.ready().await?;
        // A pool of its own, so that the listener never waits for a query's connection.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(|connection, _| Box::pin(session::own(connection)))
            .connect_lazy_with(address.options().clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // sqlx would replace a lost connection and hide the gap.
            listener.eager_reconnect(false);
            listener.listen_all(channels).await?;
            Ok(Self(listener))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, listening).await {
            // The pool tries again where PostgreSQL has no connection left, and hides that it was so.
            Err(_) | Ok(Err(sqlx::Error::PoolTimedOut)) => {
                let again = tokio::time::timeout(CONNECT_TIMEOUT, address.connect()).await;
                let why = again.ok().and_then(Result::err);
                Err(why.unwrap_or(sqlx::Error::PoolTimedOut))
            }
            Ok(listening) => listening,
        }
    }

    /// The next notification; `None` when the connection was closed. Cancel-safe.
    ///
    /// # Errors
    /// The database's. The connection is then of no use.
    pub async fn next(&mut self) -> Result<Option<PgNotification>, sqlx::Error> {
        self.0.try_recv().await
    }
}
