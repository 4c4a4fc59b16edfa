//! The kinds of events that a server knows by name.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::kind::{KINDS_MAX, Kind};
use super::{Notification, Subject};

/// The kinds of events that a server knows: HushNet's own, and those of the database's sources. A kind keeps its
/// number. At most [`KINDS_MAX`] have one; an event of any other is handed on as [`Kind::OTHER`].
#[derive(Debug)]
pub struct Kinds(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By their numbers.
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, Kind>,
    /// Those that the log's triggers write.
    logged: Vec<Kind>,
}

impl Known {
    /// The number of a kind, which may be new. `None` if there are too many.
    fn number(&mut self, name: &str) -> Option<Kind> {
        if let Some(kind) = self.numbers.get(name) {
            return Some(*kind);
        }
        let number = self.names.len();
        if number == KINDS_MAX {
            return None;
        }
        let (kind, name) = (Kind::numbered(u16::try_from(number).ok()?), Arc::from(name));
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, kind);
        Some(kind)
    }
}

impl Default for Kinds {
    fn default() -> Self {
        let mut known = Known::default();
        for name in Kind::PRESET {
            known.number(name);
        }
        Self(RwLock::new(known))
    }
}

impl Kinds {
    /// These are the kinds that the log's triggers write. Returns how many have no number, because there are too many.
    pub fn set_logged<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> usize {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let numbers: Vec<_> = names.into_iter().map(|name| known.number(name)).collect();
        known.logged = numbers.iter().copied().flatten().collect();
        numbers.len() - known.logged.len()
    }

    /// Whether the log's triggers write events of this kind.
    #[must_use]
    pub fn is_logged(&self, kind: Kind) -> bool {
        self.read(|known| known.logged.contains(&kind))
    }

    /// Gives the notification the number of its kind, if that has one.
    #[inline]
    pub fn resolve(&self, notification: &mut Notification<'_>) {
        if let Some(name) = notification.other_kind {
            self.resolve_other(notification, name);
        }
    }

    fn resolve_other(&self, notification: &mut Notification<'_>, name: &str) {
        if let Some(kind) = self.read(|known| known.numbers.get(name).copied()) {
            notification.subject = Subject::Event(kind);
            notification.other_kind = None;
        }
    }

    /// The names, by their numbers.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.read(|known| known.names.clone())
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(kinds: &Kinds, name: &str) -> Kind {
        let user = uuid::Uuid::nil();
        let text = format!(r#"{{"type":"{name}","user_id":"{user}"}}"#);
        let mut notification = Notification::parse(&text).unwrap();
        kinds.resolve(&mut notification);
        match notification.subject {
            Subject::Event(kind) => kind,
            other @ Subject::Revocation { .. } => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_kind_has_a_number_once_a_source_has_it_and_keeps_it() {
        let kinds = Kinds::default();
        assert_eq!(kind_of(&kinds, "device"), Kind::DEVICE);
        assert_eq!(kind_of(&kinds, "order"), Kind::OTHER);
        assert_eq!(kinds.set_logged(["order", "device"]), 0);
        let order = kind_of(&kinds, "order");
        assert_eq!(order.number(), Kind::PRESET.len());
        assert!(kinds.is_logged(order) && kinds.is_logged(Kind::DEVICE));
        assert!(!kinds.is_logged(Kind::MESSAGE));
        assert_eq!(kinds.set_logged(["invoice"]), 0);
        assert!(!kinds.is_logged(order));
        assert_eq!(kind_of(&kinds, "order"), order);
        assert_eq!(kinds.names()[order.number()].as_ref(), "order");
    }

    #[test]
    fn a_kind_beyond_the_bound_has_no_number() {
        let kinds = Kinds::default();
        let names: Vec<_> = (0..KINDS_MAX).map(|n| format!("kind{n}")).collect();
        let left_out = kinds.set_logged(names.iter().map(String::as_str));
        assert_eq!(left_out, Kind::PRESET.len());
        assert_eq!(kinds.names().len(), KINDS_MAX);
        assert_eq!(kind_of(&kinds, names.last().unwrap()), Kind::OTHER);
    }
}
