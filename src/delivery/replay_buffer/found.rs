//! What one user may be sent from the replay buffer.

use std::sync::Arc;

use super::block::Block;
use crate::protocol::{Cursor, Recipient, Signal, Snapshot, WantedKinds};
use crate::store::{PAGE_BYTES_MAX, PAGE_EVENTS};

/// A page of one user's signals, in the order of routing.
#[derive(Debug, Default)]
pub struct Found {
    /// At most [`PAGE_EVENTS`] and [`PAGE_BYTES_MAX`], like a page of the log.
    pub signals: Vec<Arc<Signal>>,
    /// Whether others follow them.
    pub more: bool,
    /// The number of events for the client, those of later pages included.
    pub total: u64,
    /// Whether the reset was missed too that said that there is no log any more.
    pub has_lost_log: bool,
}

/// The blocks and segments that hold one user's signals, taken out of the buffer's lock: the router does not
/// wait while they are sorted or read.
#[derive(Debug)]
pub(super) struct View {
    pub(super) recipient: Recipient,
    /// Signals up to this sequence number are not part of it.
    pub(super) after: u64,
    /// Nor are those that this snapshot sees.
    pub(super) unseen_by: Option<Snapshot>,
    pub(super) full: Vec<Arc<Block>>,
    /// The user's signals of the block that is not full yet.
    pub(super) open: Block,
    /// The segments: the sequence number after which each begins, and the cursor that its signals come with.
    pub(super) cursors: Vec<(u64, Option<Arc<Cursor>>)>,
}

impl View {
    /// Its signals: a block, and the number of an entry in it. A signal whose transaction is not known is seen by every
    /// snapshot that the buffer serves.
    fn entries(&self) -> impl Iterator<Item = (&Block, usize)> {
        let full = self.full.iter().flat_map(|block| {
            let numbers = block.of_user(self.recipient.user);
            numbers.map(|number| (&**block, number))
        });
        full.chain(self.open.numbers().map(|number| (&self.open, number)))
            .filter(|(block, number)| {
                let entry = block.entry(*number);
                let is_unseen = |snapshot: &Snapshot| {
                    let xid = entry.xid();
                    xid.is_some_and(|xid| !snapshot.sees(xid))
                };
                let is_wanted = |kinds: &Arc<WantedKinds>| block.is_of(*number, kinds);
                entry.sequence() > self.after
                    && self.unseen_by.as_ref().is_none_or(is_unseen)
                    && self.recipient.kinds.as_ref().is_none_or(is_wanted)
            })
    }

    pub(super) fn found(&self) -> Found {
        let (mut found, mut bytes) = (Found::default(), 0);
        for (block, number) in self.entries() {
            let entry = block.entry(number);
            found.total += u64::from(entry.is_event());
            found.more |= found.signals.len() == PAGE_EVENTS || bytes >= PAGE_BYTES_MAX;
            if !found.more {
                bytes += block.text(number).len();
                let cursor = self.cursor_at(entry.sequence());
                found.signals.push(Arc::new(block.signal(number, cursor)));
            }
        }
        found
    }

    /// The cursor that the signal with this sequence number comes with.
    fn cursor_at(&self, sequence: u64) -> Option<Arc<Cursor>> {
        let segments = self.cursors.partition_point(|(after, _)| *after < sequence);
        let (_, cursor) = &self.cursors[segments.checked_sub(1)?];
        cursor.clone()
    }
}
