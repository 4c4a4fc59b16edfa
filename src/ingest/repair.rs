//! A follower's read of the log for some of its shards, from the last passed barrier on.

use super::statement::{self, Statement};
use crate::protocol::{ShardSet, Snapshot};
use crate::store::{Chunk, Chunks, Durability, Log};

/// A read that is under way.
#[derive(Debug)]
pub(super) struct Repair {
    log: Log,
    chunks: Chunks,
    /// A chunk that is not on disk yet.
    unflushed: Option<Chunk>,
    flush: Statement<u64>,
    /// All chunks are of one snapshot: one flush is for all of them.
    is_flushed: bool,
    /// The shards that are repaired.
    pub(super) shards: ShardSet,
    /// The snapshot of the read, once it is known.
    pub(super) snapshot: Option<Snapshot>,
}

impl Repair {
    pub(super) fn begin(log: &Log, from: &Snapshot, shards: ShardSet) -> Self {
        Self {
            log: log.clone(),
            chunks: log.read_all(from),
            unflushed: None,
            flush: Statement::default(),
            is_flushed: false,
            shards,
            snapshot: None,
        }
    }

    /// The next chunk, when what it sees is on disk: a crash takes back only what nobody was sent. `None` after the last.
    /// Cancel-safe: a flush goes on.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, sqlx::Error> {
        if self.unflushed.is_none() {
            self.unflushed = self.chunks.next().await?;
        }
        let is_unflushed = self
            .unflushed
            .as_ref()
            .is_some_and(|chunk| chunk.reading.durability == Durability::Unflushed);
        if is_unflushed && !self.is_flushed {
            self.flush.begin(|| statement::flush(&self.log, 0));
            self.flush.ended().await?;
            self.is_flushed = true;
        }
        Ok(self.unflushed.take())
    }
}

/// The next chunk of a read, if there is one; else it waits for ever.
pub(super) async fn next(repair: &mut Option<Repair>) -> Result<Option<Chunk>, sqlx::Error> {
    match repair {
        Some(repair) => repair.next().await,
        None => std::future::pending().await,
    }
}
