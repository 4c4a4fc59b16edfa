//! Whether `wal` can be had by now, for a server that is to choose by itself (`ingest = auto`).
//!
//! The listener asks once, when it begins with a log. This task asks again, so that what an operator has mended since is
//! taken without a restart. It writes nothing where somebody has chosen, and nothing where `wal` cannot be had.

use std::time::Duration;

use hushnet_replication::Endpoint;
use tokio::time::sleep;

use crate::config::Ingest;
use crate::protocol::{Label, StreamFault};
use crate::store::{Log, RowStream};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Proposes `wal` as soon as it can be had, for ever.
pub async fn propose_wal_when_it_can_be_had(log: Log, endpoint: Endpoint) {
    let mut cause = None;
    loop {
        sleep(LOOK_INTERVAL).await;
        // A database that cannot be asked is asked again.
        if log.may_propose_wal().await.unwrap_or(false) {
            look(&log, &endpoint, &mut cause).await;
        } else {
            cause = None;
        }
    }
}

/// `cause` is why it could not be had the last time.
async fn look(log: &Log, endpoint: &Endpoint, cause: &mut Option<StreamFault>) {
    match RowStream::check(log, endpoint).await {
        Ok(()) => match log.propose_ingest(Ingest::Wal).await {
            Ok(()) => tracing::info!(event = "wal_proposed"),
            Err(error) => tracing::warn!(event = "wal_not_proposed", %error),
        },
        Err(error) => {
            // The listener has logged the first one.
            let before = cause.replace(error.fault);
            if before.is_some_and(|before| before != error.fault) {
                let (cause, advice) = (error.fault.as_str(), error.fault.advice());
                tracing::warn!(event = "wal_cannot_be_had", cause, %error, advice);
            }
        }
    }
}
