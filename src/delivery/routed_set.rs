//! The events that have been routed, each known by its id and its text.
//!
//! The id alone would not do. Any role may notify, so an id may be notified with another text before its event
//! is committed, and the event must not be dropped as a repeat of that.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use foldhash::quality::RandomState;

use crate::protocol::Notification;

/// An event's text, of which its id is a part, as one number. The hash is keyed by a random number of this process,
/// so that nobody can write a text that takes another one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(u64);

/// Makes the fingerprints of one process.
#[derive(Debug, Clone, Default)]
pub(super) struct Fingerprints(RandomState);

impl Fingerprints {
    /// The fingerprint of the event in this notification; `None` for an event without an id, which nothing
    /// tells from another one with the same text.
    pub(super) fn of(&self, notification: &Notification<'_>) -> Option<Fingerprint> {
        notification.id?;
        let mut hasher = self.0.build_hasher();
        hasher.write(notification.text.as_bytes());
        Some(Fingerprint(hasher.finish()))
    }
}

/// A fingerprint is a hash already.
#[derive(Debug, Default)]
struct Unchanged(u64);

impl Hasher for Unchanged {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A set of fingerprints.
#[derive(Debug, Default)]
pub(super) struct RoutedSet(HashSet<Fingerprint, BuildHasherDefault<Unchanged>>);

impl RoutedSet {
    pub(super) fn contains(&self, event: Fingerprint) -> bool {
        self.0.contains(&event)
    }

    /// Adds an event. Returns whether it was not in the set.
    pub(super) fn insert(&mut self, event: Fingerprint) -> bool {
        self.0.insert(event)
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
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
        let texts = [
            device_event(r#","id":1"#, ""),
            device_event(r#","id":2"#, ""),
            device_event(r#","id":1"#, r#","n":1"#),
        ];
        let events: Vec<_> = texts
            .iter()
            .map(|text| {
                fingerprints
                    .of(&Notification::parse(text).unwrap())
                    .unwrap()
            })
            .collect();
        let mut set = RoutedSet::default();
        for (held, event) in events.iter().enumerate() {
            assert!(!set.contains(*event));
            assert_eq!(set.len(), held);
            assert!(set.insert(*event));
            assert!(!set.insert(*event));
            assert!(set.contains(*event));
        }
        set.clear();
        assert!(events.iter().all(|event| !set.contains(*event)) && set.len() == 0);
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
