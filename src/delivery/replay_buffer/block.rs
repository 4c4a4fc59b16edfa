//! Signals one after another, in one piece of memory.

use std::sync::OnceLock;

use uuid::Uuid;

use crate::protocol::{
    Cursor, Event, InLog, Kind, Notification, Revocation, Sequence, Signal, Snapshot, Subject,
    UserKey, WantedKinds, Xid,
};
use std::sync::Arc;

/// The part of a block that holds texts, in quarters: a text is three times as long as its entry.
const TEXT_QUARTERS: usize = 3;

/// One signal: all of it but its text. It is small, since every event writes one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    user: UserKey,
    sequence: u64,
    xid: Option<Xid>,
    /// The event's id; 0 if `has_id` is false.
    id: i64,
    /// The end of its text, which begins at the end of the entry before.
    end: u32,
    /// `None` for a revocation.
    kind: Option<Kind>,
    has_id: bool,
}

/// The memory of one signal beside its text: its entry, and its number in the index by user.
const ENTRY_BYTES: usize = size_of::<Entry>() + size_of::<(UserKey, u32)>();

impl Entry {
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The transaction that has written it, where that is known.
    pub(super) fn xid(&self) -> Option<Xid> {
        self.xid
    }

    /// Whether clients are sent it.
    pub(super) fn is_event(&self) -> bool {
        self.kind.is_some()
    }
}

/// Signals in the order of routing. All of its memory is taken at its beginning, except for the index.
#[derive(Debug, Default)]
pub(super) struct Block {
    texts: String,
    entries: Vec<Entry>,
    /// The devices of revocations, by the number of their entry, ascending.
    revoked: Vec<(u32, Option<Uuid>)>,
    /// Where the log has the rest of large events, likewise.
    in_log: Vec<(u32, InLog)>,
    /// The lowest and the highest number of the transactions that have written them, where that is known of each.
    transactions: Option<(Xid, Xid)>,
    /// The entries' numbers by user, and each user's in their order. Made at the first request after the block
    /// is full.
    by_user: OnceLock<Vec<(UserKey, u32)>>,
}

impl Block {
    /// An empty block that takes this much memory, or as much as its only signal needs.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        let text_bytes = bytes / 4 * TEXT_QUARTERS;
        Self {
            texts: String::with_capacity(text_bytes),
            entries: Vec::with_capacity(((bytes - text_bytes) / ENTRY_BYTES).max(1)),
            revoked: Vec::new(),
            in_log: Vec::new(),
            transactions: None,
            by_user: OnceLock::new(),
        }
    }

    /// The memory that the block takes.
    pub(super) fn bytes(&self) -> usize {
        self.texts.capacity()
            + self.entries.capacity() * ENTRY_BYTES
            + self.revoked.capacity() * size_of::<(u32, Option<Uuid>)>()
            + self.in_log.capacity() * size_of::<(u32, InLog)>()
    }

    /// Whether a signal with this text fits. A text that is longer than a block has a block of its own.
    pub(super) fn has_room(&self, text: &str) -> bool {
        let has_room = self.texts.capacity() - self.texts.len() >= text.len()
            && self.entries.len() < self.entries.capacity();
        has_room || self.entries.is_empty()
    }

    /// Keeps the signal of a notification; there must be room.
    pub(super) fn push(&mut self, notification: &Notification<'_>, sequence: u64) {
        let (kind, text) = match notification.subject {
            Subject::Event(kind) => (Some(kind), notification.open_text),
            Subject::Revocation { device_id } => {
                self.revoked
                    .push((number_of(self.entries.len()), device_id));
                (None, "")
            }
        };
        if let Some(in_log) = notification.in_log {
            self.in_log.push((number_of(self.entries.len()), in_log));
        }
        if let Some(xid) = notification.xid {
            let (first, last) = self.transactions.get_or_insert((xid, xid));
            (*first, *last) = ((*first).min(xid), (*last).max(xid));
        }
        self.texts.reserve_exact(text.len());
        self.texts.push_str(text);
        self.entries.push(Entry {
            user: notification.user,
            sequence,
            xid: notification.xid,
            id: notification.id.unwrap_or_default(),
            end: number_of(self.texts.len()),
            kind,
            has_id: notification.id.is_some(),
        });
    }

    /// A copy of the user's signals.
    pub(super) fn only_of(&self, user: UserKey) -> Self {
        let mut copy = Self::default();
        for (number, entry) in self.entries.iter().enumerate() {
            if entry.user != user {
                continue;
            }
            if entry.kind.is_none() {
                let device_id = self.revoked_device(number);
                copy.revoked
                    .push((number_of(copy.entries.len()), device_id));
            }
            if let Some(in_log) = self.in_log(number) {
                copy.in_log.push((number_of(copy.entries.len()), in_log));
            }
            copy.texts.push_str(self.text(number));
            let end = number_of(copy.texts.len());
            copy.entries.push(Entry { end, ..*entry });
        }
        copy
    }

    pub(super) fn entry(&self, number: usize) -> &Entry {
        &self.entries[number]
    }

    /// The event's JSON without its closing brace; empty for a revocation.
    pub(super) fn text(&self, number: usize) -> &str {
        let begin = number
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].end);
        &self.texts[begin as usize..self.entries[number].end as usize]
    }

    /// Whether it is an event of one of these kinds, or a revocation.
    pub(super) fn is_of(&self, number: usize, kinds: &WantedKinds) -> bool {
        let kind = self.entries[number].kind;
        kind.is_none_or(|kind| kinds.admit(kind, self.text(number)))
    }

    /// The signal as it was routed, for a client that gets `cursor` with it.
    pub(super) fn signal(&self, number: usize, cursor: Option<Arc<Cursor>>) -> Signal {
        let entry = &self.entries[number];
        let sequence = Sequence::new(entry.sequence);
        match entry.kind {
            Some(kind) => {
                let id = entry.has_id.then_some(entry.id);
                let text = self.text(number);
                let event = Event::new(kind, id, entry.xid, text, sequence, cursor);
                Signal::Event(event.in_log(self.in_log(number)))
            }
            None => Signal::Revocation(Revocation {
                device_id: self.revoked_device(number),
                xid: entry.xid,
                sequence,
                cursor,
            }),
        }
    }

    fn in_log(&self, number: usize) -> Option<InLog> {
        let number = number_of(number);
        let found = self.in_log.binary_search_by_key(&number, |(of, _)| *of);
        found.ok().map(|place| self.in_log[place].1)
    }

    fn revoked_device(&self, number: usize) -> Option<Uuid> {
        let number = number_of(number);
        let found = self.revoked.binary_search_by_key(&number, |(of, _)| *of);
        found.ok().and_then(|place| self.revoked[place].1)
    }

    /// Whether this snapshot sees all of its signals, but for those whose transaction is not known.
    pub(super) fn is_seen_by(&self, snapshot: &Snapshot) -> bool {
        self.transactions
            .is_none_or(|(first, last)| snapshot.sees_all(first, last))
    }

    /// The transactions of its signals that this snapshot does not see.
    pub(super) fn unseen_by(&self, snapshot: Option<&Snapshot>) -> impl Iterator<Item = Xid> {
        let transactions = self.entries.iter().filter_map(|entry| entry.xid);
        transactions.filter(move |xid| snapshot.is_none_or(|snapshot| !snapshot.sees(*xid)))
    }

    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.sequence)
    }

    /// The numbers of all entries.
    pub(super) fn numbers(&self) -> std::ops::Range<usize> {
        0..self.entries.len()
    }

    /// The numbers of the user's entries, of a block that is full.
    pub(super) fn of_user(&self, user: UserKey) -> impl Iterator<Item = usize> {
        let by_user = self.by_user.get_or_init(|| {
            let users = self.entries.iter().map(|entry| entry.user);
            let mut numbers: Vec<_> = users.zip(0..).collect();
            numbers.sort_unstable();
            numbers
        });
        let from = by_user.partition_point(|(of, _)| *of < user);
        let of_user = by_user[from..]
            .iter()
            .take_while(move |(of, _)| *of == user);
        of_user.map(|(_, number)| *number as usize)
    }

    /// The same memory without its signals.
    pub(super) fn emptied(mut self) -> Self {
        self.texts.clear();
        self.entries.clear();
        self.revoked.clear();
        self.in_log.clear();
        Self {
            transactions: None,
            by_user: OnceLock::new(),
            ..self
        }
    }
}

/// A count or length within a block, which holds far less than 4 GiB: PostgreSQL's texts end at 1 GiB.
fn number_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
