//! The ways of ingest: how events reach the server.

use std::str::FromStr;

/// How events reach the server. The database stores it, so that triggers and servers agree: all but `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ingest {
    /// Every event notifies its channel.
    Notify,
    /// Triggers only write the log, and the server reads it in a loop.
    Tail,
    /// Notify while it is quiet, tail while it is busy.
    Adaptive,
    /// The server takes the log's rows from PostgreSQL's write-ahead log
    Wal,
    /// `wal` where it can be had, else `adaptive`; what an operator has chosen stands
    Auto,
}

impl Ingest {
    /// The value in `realtime.state` and of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::Tail => "tail",
            Self::Adaptive => "adaptive",
            Self::Wal => "wal",
            Self::Auto => "auto",
        }
    }
}

/// A value of `realtime.state.ingest` that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("no way of ingest: {0}")]
pub struct UnknownIngest(String);

impl FromStr for Ingest {
    type Err = UnknownIngest;

    fn from_str(name: &str) -> Result<Self, UnknownIngest> {
        [Self::Notify, Self::Tail, Self::Adaptive, Self::Wal]
            .into_iter()
            .find(|ingest| ingest.as_str() == name)
            .ok_or_else(|| UnknownIngest(name.to_owned()))
    }
}
