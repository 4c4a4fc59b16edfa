//! A statement that goes on beside what else its owner does.

use std::future::pending;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use crate::store::Log;

type Sent<T> = BoxFuture<'static, Result<T, sqlx::Error>>;

/// At most one of the kind at a time. Nothing locks the mutex; with it the owner can be shared.
pub(super) struct Statement<T>(Mutex<Option<Sent<T>>>);

impl<T> Statement<T> {
    fn sent(&mut self) -> &mut Option<Sent<T>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it, unless one is under way.
    pub(super) fn begin(&mut self, send: impl FnOnce() -> Sent<T>) {
        self.sent().get_or_insert_with(send);
    }

    /// Whether one is under way. It may have been answered from before what happens now.
    pub(super) fn is_under_way(&mut self) -> bool {
        self.sent().is_some()
    }

    /// Returns what it has answered, when it has; never where none is under way. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Result<T, sqlx::Error> {
        let sent = self.sent();
        let Some(statement) = sent else {
            return pending().await;
        };
        let ended = statement.await;
        *sent = None;
        ended
    }
}

impl<T> Default for Statement<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> std::fmt::Debug for Statement<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statement").finish_non_exhaustive()
    }
}

/// A flush of the write-ahead log for the events up to this number, which it returns.
pub(super) fn flush(log: &Log, through: u64) -> Sent<u64> {
    let log = log.clone();
    Box::pin(async move { log.flush().await.map(|()| through) })
}

/// A read of the sources. Returns whether the type of the users is another.
pub(super) fn read_sources(log: &Log) -> Sent<bool> {
    let log = log.clone();
    Box::pin(async move { log.read_kinds().await })
}
