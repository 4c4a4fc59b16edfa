//! Events' texts one after another, in one piece of memory.

use std::sync::OnceLock;

use uuid::Uuid;

use crate::protocol::{EventKind, Notification};

/// The part of a block that is texts, in quarters; a text is three times as long as what is kept beside it.
const TEXT_QUARTERS: usize = 3;

/// Where an event is, and what is asked of it before it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) user_id: Uuid,
    pub(super) sequence: u64,
    /// The end of its text, which begins at the end of the one before.
    end: usize,
    pub(super) kind: EventKind,
}

/// What one event takes beside its text: a place, and one in the index.
const PLACE_BYTES: usize = size_of::<Place>() + size_of::<(Uuid, u32)>();

/// Events in the order of routing. All of its memory is taken at its beginning, but for the index.
#[derive(Debug, Default)]
pub(super) struct Block {
    texts: String,
    places: Vec<Place>,
    /// The events by user, and each user's in their order; made when somebody asks for the first time
    /// after the block is full.
    by_user: OnceLock<Vec<(Uuid, u32)>>,
}

impl Block {
    /// An empty one that takes so much memory, or as much as its only event.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        let text_bytes = bytes / 4 * TEXT_QUARTERS;
        Self {
            texts: String::with_capacity(text_bytes),
            places: Vec::with_capacity(((bytes - text_bytes) / PLACE_BYTES).max(1)),
            by_user: OnceLock::new(),
        }
    }

    /// The memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.texts.capacity() + self.places.capacity() * PLACE_BYTES
    }

    pub(super) fn has_room(&self, text: &str) -> bool {
        let has_room = self.texts.capacity() - self.texts.len() >= text.len()
            && self.places.len() < self.places.capacity();
        has_room || self.places.is_empty()
    }

    /// Keeps the event; there must be room.
    pub(super) fn push(&mut self, told: &Notification<'_>, sequence: u64) {
        self.texts.reserve_exact(told.text.len());
        self.texts.push_str(told.text);
        self.places.push(Place {
            user_id: told.user_id,
            sequence,
            end: self.texts.len(),
            kind: told.kind,
        });
    }

    /// A copy of the user's events.
    pub(super) fn only_of(&self, user_id: Uuid) -> Self {
        let mut copy = Self::default();
        for (number, place) in self.places.iter().enumerate() {
            if place.user_id == user_id {
                copy.texts.push_str(self.text(number));
                let end = copy.texts.len();
                copy.places.push(Place { end, ..*place });
            }
        }
        copy
    }

    pub(super) fn place(&self, number: usize) -> &Place {
        &self.places[number]
    }

    /// The event as it was told.
    pub(super) fn text(&self, number: usize) -> &str {
        let before = number
            .checked_sub(1)
            .map_or(0, |before| self.places[before].end);
        &self.texts[before..self.places[number].end]
    }

    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.places.last().map(|place| place.sequence)
    }

    /// The numbers of all of its events.
    pub(super) fn numbers(&self) -> std::ops::Range<usize> {
        0..self.places.len()
    }

    /// The numbers of the user's events, of a block that is full.
    pub(super) fn of_user(&self, user_id: Uuid) -> impl Iterator<Item = usize> {
        let by_user = self.by_user.get_or_init(|| {
            let users = self.places.iter().map(|place| place.user_id);
            let mut numbers: Vec<_> = users.zip(0..).collect();
            numbers.sort_unstable();
            numbers
        });
        let from = by_user.partition_point(|(of, _)| *of < user_id);
        let of_user = by_user[from..]
            .iter()
            .take_while(move |(of, _)| *of == user_id);
        of_user.map(|(_, number)| *number as usize)
    }

    /// The same memory without its events.
    pub(super) fn emptied(mut self) -> Self {
        self.texts.clear();
        self.places.clear();
        Self {
            by_user: OnceLock::new(),
            ..self
        }
    }
}
