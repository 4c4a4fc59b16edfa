//! The doorbell: who holds its lock reads the log, and the triggers need not notify.
//!
//! With `ingest = adaptive` each event tries the lock for a share. While a server holds it
//! exclusively, or waits for it, that fails and the event stays silent; otherwise it notifies. This
//! task asks for the lock on a connection of its own when the server is to be awake and closes that
//! connection when it may sleep. If the connection is lost, so is the lock, and events notify again:
//! nothing depends on it but the writers' speed.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::watch;

use crate::store::lock_doorbell;

/// Events in a second from which on the server reads the log instead of being notified.
pub const WAKE_EVENTS_PER_SECOND: u64 = 200;
/// Events in a second below which it may sleep again.
pub const SLEEP_EVENTS_PER_SECOND: u64 = 100;
/// How long it must have been that quiet.
pub const SLEEP_AFTER: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// Holds the lock while `awake` is true, for ever.
pub async fn attend(options: PgConnectOptions, mut awake: watch::Receiver<bool>) {
    loop {
        if awake.wait_for(|awake| *awake).await.is_err() {
            return;
        }
        let held = async {
            let mut connection = options.connect().await?;
            lock_doorbell(&mut connection).await?;
            // A lost connection is noticed by asking: the lock goes with it.
            loop {
                tokio::time::sleep(RETRY).await;
                connection.ping().await?;
            }
        };
        let mut wanted = awake.clone();
        let asleep = async { drop(wanted.wait_for(|awake| !*awake).await) };
        tokio::select! {
            // Dropping the connection ends the session, and so the lock or the wait for it.
            () = asleep => {}
            lost = held => {
                let Err::<std::convert::Infallible, sqlx::Error>(error) = lost;
                tracing::debug!(event = "doorbell_lost", %error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
