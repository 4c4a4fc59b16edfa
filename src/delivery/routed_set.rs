//! The events that have been routed, each known by its id and its text.
//!
//! The id alone would not do. Any role may notify, so an id may be notified with another text before its event
//! is committed, and the event must not be dropped as a repeat of that.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

use foldhash::{fast, quality};

use crate::protocol::Notification;

/// Neighbouring ids in one block. Ids come from a sequence, so that most events find their block in the processor's
/// cache. A block is one line of it.
const BLOCK_IDS: usize = 16;

/// The most memory that a set of so many events takes, a power of two: some known by their blocks, others by their
/// hashes. A table that has just grown is half empty, and its old memory is half of the new.
pub(super) const fn bytes_max(events: usize) -> usize {
    let of_blocks = events / BLOCK_IDS * (size_of::<(i64, [u32; BLOCK_IDS])>() + 1);
    let of_others = events * (size_of::<u64>() + 1);
    3 * (of_blocks + of_others)
}

/// An event's id, and the hash of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    id: i64,
    hash: u64,
}

impl Fingerprint {
    /// The part of the hash that a block keeps; never 0, which is an id without an event. Of two texts with one id, one
    /// in 2^31 pairs has the same.
    fn tag(self) -> u32 {
        (self.hash >> 32) as u32 | 1
    }
}

/// Makes the fingerprints of one process. Their hash is keyed by a random number, so that nobody can write a text
/// that takes another one's place.
#[derive(Debug, Clone, Default)]
pub(super) struct Fingerprints(quality::RandomState);

impl Fingerprints {
    /// The fingerprint of the event in this notification; `None` for an event without an id, which nothing
    /// tells from another one with the same text.
    pub(super) fn of(&self, notification: &Notification<'_>) -> Option<Fingerprint> {
        let id = notification.id?;
        let mut hasher = self.0.build_hasher();
        hasher.write(notification.open_text.as_bytes());
        let hash = hasher.finish();
        Some(Fingerprint { id, hash })
    }
}

/// A set of events.
#[derive(Debug, Default)]
pub(super) struct RoutedSet {
    /// The tag of the first event with each id; 0 where there is none.
    blocks: HashMap<i64, [u32; BLOCK_IDS], fast::RandomState>,
    /// The hashes of the other events with these ids.
    others: HashSet<u64, fast::RandomState>,
}

impl RoutedSet {
    pub(super) fn contains(&self, event: Fingerprint) -> bool {
        let (block, index) = place(event.id);
        match self.blocks.get(&block).map_or(0, |tags| tags[index]) {
            0 => false,
            tag => tag == event.tag() || self.others.contains(&event.hash),
        }
    }

    /// Adds an event. Returns whether it was not in the set.
    pub(super) fn insert(&mut self, event: Fingerprint) -> bool {
        let (block, index) = place(event.id);
        let tag = &mut self.blocks.entry(block).or_default()[index];
        if *tag == 0 {
            *tag = event.tag();
            return true;
        }
        *tag != event.tag() && self.others.insert(event.hash)
    }

    /// How many events its memory is for: six bytes each.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() * BLOCK_IDS + self.others.len()
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.others.clear();
    }
}

/// The block of an id, and its index there.
fn place(id: i64) -> (i64, usize) {
    let index = usize::from(id.to_le_bytes()[0]) % BLOCK_IDS;
    (id >> BLOCK_IDS.ilog2(), index)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn device_event(id: &str, more: &str) -> String {
        let user = Uuid::nil();
        format!(r#"{{"type":"device","user_id":"{user}"{id}{more}}}"#)
    }

    #[test]
    fn an_event_is_known_by_id_and_text_together() {
        let fingerprints = Fingerprints::default();
        let ids = [0, 1, 15, 16, 17, -1, -16, i64::MAX, i64::MIN];
        let mut set = RoutedSet::default();
        for more in ["", r#","n":1"#, r#","n":2"#] {
            for id in ids {
                let text = device_event(&format!(r#","id":{id}"#), more);
                let event = fingerprints.of(&Notification::parse(&text).unwrap());
                let event = event.unwrap();
                assert!(!set.contains(event), "{text}");
                assert!(set.insert(event), "{text}");
                assert!(!set.insert(event) && set.contains(event), "{text}");
            }
        }
        set.clear();
        assert_eq!(set.len(), 0);
        let text = device_event(r#","id":1"#, "");
        let event = fingerprints.of(&Notification::parse(&text).unwrap());
        assert!(!set.contains(event.unwrap()));
    }

    #[test]
    fn ids_that_lie_apart_count_as_much_as_the_memory_that_they_take() {
        let mut set = RoutedSet::default();
        for id in 0..10 {
            set.insert(Fingerprint { id, hash: 1 });
        }
        assert_eq!(set.len(), 16);
        for id in 1..=10 {
            set.insert(Fingerprint {
                id: id << 20,
                hash: 1,
            });
        }
        assert_eq!(set.len(), 11 * 16);
    }

    #[test]
    fn an_event_without_an_id_is_never_a_repeat() {
        let text = device_event("", "");
        let notification = Notification::parse(&text).unwrap();
        assert_eq!(Fingerprints::default().of(&notification), None);
    }

    #[test]
    fn another_process_has_other_fingerprints() {
        let text = device_event(r#","id":1"#, "");
        let notification = Notification::parse(&text).unwrap();
        let of_one_process = || Fingerprints::default().of(&notification);
        assert_ne!(of_one_process(), of_one_process());
    }
}
