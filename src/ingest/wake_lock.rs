//! The wake lock: while a server holds it, that server reads the log and the triggers need not notify.
//!
//! With `ingest = adaptive` each event tries to share the lock. While a server holds it exclusively, or
//! waits for it, that fails and the event stays silent; otherwise the event notifies. This task asks
//! for the lock, on a connection of its own, when the schedule wants to be awake, and closes that
//! connection when it may sleep. If the connection is lost, so is the lock, and events notify again:
//! only the speed of writers depends on it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;

use crate::store::{HeldWakeLock, Log};

/// Between two attempts, and between two checks of the connection.
const RETRY: Duration = Duration::from_secs(1);

/// Holds the lock while `wanted` is true. Ends when the listener has.
pub async fn hold_while_wanted(log: Log, mut wanted: watch::Receiver<bool>) {
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let held = async {
            let mut lock = HeldWakeLock::take(&log).await?;
            loop {
                tokio::time::sleep(RETRY).await;
                lock.check().await?;
            }
        };
        let mut until = wanted.clone();
        let unwanted = async { drop(until.wait_for(|wanted| !*wanted).await) };
        tokio::select! {
            // Dropping the connection ends the session, and with it the lock or the wait for it.
            () = unwanted => {}
            lost = held => {
                let Err::<Infallible, sqlx::Error>(error) = lost;
                tracing::debug!(event = "doorbell_lost", %error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
