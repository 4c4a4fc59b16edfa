//! PostgreSQL's notifications, from LISTEN to the hub.
//!
//! Owns one database connection and runs no query on it but LISTEN. Parses of each notification only
//! what routing needs. Never ends the process and never waits for anything but its socket: whatever
//! happens to the connection, it is thrown away and made anew, at start too, with jittered backoff.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::sync::watch;

use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::wire::{Channel, Event};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// One attempt to connect; sqlx itself retries a refused connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether notifications are being heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// Not yet, or not any more; being retried.
    Disconnected,
    /// LISTEN has been answered on all channels.
    Connected,
}

/// The task that feeds the hub.
#[derive(Debug)]
pub struct Listener {
    options: PgConnectOptions,
    hub: Hub,
    metrics: Arc<Metrics>,
    state: watch::Sender<ListenerState>,
}

impl Listener {
    /// A listener that is not connected yet, and a view of its state.
    #[must_use]
    pub fn new(
        options: PgConnectOptions,
        hub: Hub,
        metrics: Arc<Metrics>,
    ) -> (Self, watch::Receiver<ListenerState>) {
        let (state, view) = watch::channel(ListenerState::Disconnected);
        (
            Self {
                options,
                hub,
                metrics,
                state,
            },
            view,
        )
    }

    /// Listens for ever. To stop it, drop the future.
    pub async fn run(self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match self.connect().await {
                Ok(mut connection) => {
                    backoff = BACKOFF_FIRST;
                    self.set_state(ListenerState::Connected);
                    tracing::info!(event = "listener_connected");
                    let error = self.route_until_lost(&mut connection).await;
                    self.set_state(ListenerState::Disconnected);
                    self.metrics.listener_lost();
                    error
                }
                Err(error) => error,
            };
            let pause = backoff.mul_f64(rand::random_range(0.5..1.0));
            tracing::warn!(event = "listener_disconnected", %error, retry_ms = pause.as_millis());
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self) -> Result<PgListener, sqlx::Error> {
        // A pool of its own, so that the listener never waits for a query's connection.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(self.options.clone());
        let mut connection = PgListener::connect_with(&pool).await?;
        // A lost connection is to be seen, not to be replaced behind our back.
        connection.eager_reconnect(false);
        connection
            .listen_all(Channel::ALL.map(Channel::as_str))
            .await?;
        Ok(connection)
    }

    /// Routes what comes and returns why no more does.
    async fn route_until_lost(&self, connection: &mut PgListener) -> sqlx::Error {
        loop {
            match connection.try_recv().await {
                Ok(Some(notification)) => self.route(&notification),
                Ok(None) => return sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()),
                Err(error) => return error,
            }
        }
    }

    fn route(&self, notification: &PgNotification) {
        let Some(channel) = Channel::from_name(notification.channel()) else {
            return;
        };
        match Event::parse(notification.payload()) {
            Ok(event) => {
                let kind = event.kind;
                let connections = self.hub.publish(Arc::new(event));
                self.metrics.event_routed(kind, connections);
            }
            Err(error) => {
                self.metrics.notification_malformed(channel);
                tracing::warn!(
                    event = "notification_malformed",
                    channel = channel.as_str(),
                    %error
                );
            }
        }
    }

    fn set_state(&self, state: ListenerState) {
        self.metrics
            .listener_connected(state == ListenerState::Connected);
        self.state.send_replace(state);
    }
}
