//! A flush of the write-ahead log, for events that wait for the disk.

use std::future::pending;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use crate::store::Log;

type Flushing = BoxFuture<'static, Result<u64, sqlx::Error>>;

/// At most one flush at a time. Nothing locks the mutex; with it the listener can be shared.
#[derive(Default)]
pub(super) struct Flush(Mutex<Option<Flushing>>);

impl Flush {
    fn flushing(&mut self) -> &mut Option<Flushing> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one for the events up to this number, unless one is under way.
    pub(super) fn begin(&mut self, log: &Log, through: u64) {
        self.flushing().get_or_insert_with(|| {
            let log = log.clone();
            Box::pin(async move { log.flush().await.map(|()| through) })
        });
    }

    /// Returns the number of the newest event that the flush was for, when it has ended; never where none is under way.
    /// Cancel-safe.
    pub(super) async fn ended(&mut self) -> Result<u64, sqlx::Error> {
        let flushing = self.flushing();
        let Some(flush) = flushing else {
            return pending().await;
        };
        let ended = flush.await;
        *flushing = None;
        ended
    }
}

impl std::fmt::Debug for Flush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flush").finish_non_exhaustive()
    }
}
