//! The way of ingest that this process writes to a log before it first uses it.

use hushnet_replication::Endpoint;

use crate::config::Ingest;
use crate::protocol::Label;
use crate::store::{Log, RowStream};

/// What the settings say of the way of ingest.
#[derive(Debug)]
pub(super) struct IngestChoice {
    pub(super) wanted: Option<Ingest>,
    /// Whether there could be a stream is asked with this credential, where nobody has chosen the way of ingest.
    pub(super) endpoint: Option<Endpoint>,
}

impl IngestChoice {
    /// Writes how events are to reach the server: as the settings say, or, where nobody has chosen, as it can be had.
    /// Returns what the log says then.
    pub(super) async fn write(&self, log: &Log) -> Result<Ingest, sqlx::Error> {
        match self.wanted.unwrap_or(Ingest::Auto) {
            Ingest::Auto => log.propose_ingest(self.proposed(log).await).await?,
            wanted => log.set_ingest(wanted).await?,
        }
        let state = log.state().await?;
        Ok(state.map_or(Ingest::Notify, |state| state.ingest))
    }

    async fn proposed(&self, log: &Log) -> Ingest {
        let Some(endpoint) = &self.endpoint else {
            return Ingest::Adaptive;
        };
        match RowStream::check(log, endpoint).await {
            Ok(()) => Ingest::Wal,
            Err(error) => {
                let (cause, advice) = (error.fault.as_str(), error.fault.advice());
                tracing::warn!(event = "wal_cannot_be_had", cause, %error, advice);
                Ingest::Adaptive
            }
        }
    }
}
