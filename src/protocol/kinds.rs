//! The kinds of events that a server knows by name, the sources that events of the log are of, and the type of their users.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast;

use super::kind::{KINDS_MAX, Kind, WantedKinds};
use super::{LARGE_BYTES_MAX, Layout, NotALayout, Notification, Subject, UserType};

/// The kinds of events that a server knows: HushNet's own, and those of the database's sources. A kind keeps its
/// number. At most [`KINDS_MAX`] have one; an event of any other is handed on as [`Kind::OTHER`].
#[derive(Debug)]
pub struct Kinds {
    known: RwLock<Known>,
    /// The type of the users' ids, as in [`USER_TYPES`].
    user_type: AtomicU8,
    /// The longest JSON of an event that clients are sent.
    event_bytes_max: AtomicUsize,
}

/// The types of users by their numbers; the first is taken before the database has been read.
const USER_TYPES: [UserType; 4] = [
    UserType::Uuid,
    UserType::Uuid,
    UserType::Bigint,
    UserType::Text,
];

#[derive(Debug, Default)]
struct Known {
    /// By their numbers.
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, Kind>,
    /// Those that the log's triggers write.
    logged: Vec<Kind>,
    /// By their numbers in the database.
    sources: HashMap<i16, Source, fast::RandomState>,
}

/// A source of the database, which may be a retired one.
#[derive(Debug)]
struct Source {
    /// The kind of its events. [`Kind::OTHER`] if that has no number.
    kind: Kind,
    /// The kind's name.
    name: Arc<str>,
    /// How their JSON is written; `None` if this release cannot read that.
    layout: Option<Arc<Layout>>,
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
        Self {
            known: RwLock::new(known),
            user_type: AtomicU8::new(0),
            event_bytes_max: AtomicUsize::new(LARGE_BYTES_MAX),
        }
    }
}

impl Kinds {
    /// Of an event whose JSON is longer, clients are sent the key alone.
    pub fn set_event_bytes_max(&self, bytes_max: usize) {
        self.event_bytes_max.store(bytes_max, Relaxed);
    }

    /// The longest JSON of an event that clients are sent.
    #[must_use]
    pub fn event_bytes_max(&self) -> usize {
        self.event_bytes_max.load(Relaxed)
    }

    /// These are the kinds that the log's triggers write. Returns how many have no number, because there are too many.
    pub fn set_logged<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> usize {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let numbers: Vec<_> = names.into_iter().map(|name| known.number(name)).collect();
        known.logged = numbers.iter().copied().flatten().collect();
        numbers.len() - known.logged.len()
    }

    /// The type of the database's users. One atomic load.
    #[must_use]
    #[inline]
    pub fn user_type(&self) -> UserType {
        USER_TYPES[usize::from(self.user_type.load(Relaxed)) % USER_TYPES.len()]
    }

    /// Whether the database has said which type that is.
    #[must_use]
    pub fn knows_user_type(&self) -> bool {
        self.user_type.load(Relaxed) > 0
    }

    /// The database has users of this type. Returns whether clients may have come as users of another.
    pub fn set_user_type(&self, user_type: UserType) -> bool {
        let number = match user_type {
            UserType::Uuid => 1,
            UserType::Bigint => 2,
            UserType::Text => 3,
        };
        let before = usize::from(self.user_type.swap(number, Relaxed));
        USER_TYPES[before % USER_TYPES.len()] != user_type
    }

    /// These are the sources of the log's events: number, kind and layout. Returns those whose layout has become
    /// unreadable, and why it is.
    pub fn set_sources<'a>(
        &self,
        sources: impl IntoIterator<Item = (i16, &'a str, Result<Layout, NotALayout>)>,
    ) -> Vec<(i16, NotALayout)> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut unreadable = Vec::new();
        let mut read = HashMap::default();
        for (number, name, layout) in sources {
            let before = known.sources.get(&number);
            let layout = layout.map_err(|error| {
                if before.is_none_or(|source| source.layout.is_some()) {
                    unreadable.push((number, error));
                }
            });
            let source = Source {
                kind: known.numbers.get(name).copied().unwrap_or(Kind::OTHER),
                name: name.into(),
                layout: layout.ok().map(Arc::new),
            };
            read.insert(number, source);
        }
        known.sources = read;
        unreadable
    }

    /// The kind of the events of the source of this number, and how their JSON is written.
    #[must_use]
    pub fn source(&self, number: i16) -> Option<(Kind, Arc<Layout>)> {
        self.read(|known| {
            let Source { kind, layout, .. } = known.sources.get(&number)?;
            Some((*kind, Arc::clone(layout.as_ref()?)))
        })
    }

    /// The name of the kind of this source's events.
    #[must_use]
    pub fn source_name(&self, number: i16) -> Option<Arc<str>> {
        self.read(|known| Some(Arc::clone(&known.sources.get(&number)?.name)))
    }

    /// The numbers of all sources, and of those whose events are wanted.
    #[must_use]
    pub fn wanted_sources(&self, wanted: &WantedKinds) -> (Vec<i16>, Vec<i16>) {
        self.read(|known| {
            let all = known.sources.keys().copied().collect();
            let of_wanted = known
                .sources
                .iter()
                .filter(|(_, source)| wanted.names().any(|name| name == source.name.as_ref()));
            (all, of_wanted.map(|(number, _)| *number).collect())
        })
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
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
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
    fn a_source_has_its_kind_and_its_layout_and_is_reported_once_if_that_cannot_be_read() {
        let kinds = Kinds::default();
        kinds.set_logged(["order", "device"]);
        let layout = || Layout::parse(&["{}".to_owned()]);
        assert!(kinds.source(3).is_none());
        let sources = [
            (3, "device", layout()),
            (16, "order", Err(NotALayout::Ends)),
            (17, "order", layout()),
        ];
        let unreadable = kinds.set_sources(sources.clone());
        assert_eq!(unreadable, [(16, NotALayout::Ends)]);
        assert_eq!(kinds.source(3).unwrap().0, Kind::DEVICE);
        assert_eq!(kinds.source(17).unwrap().0, kind_of(&kinds, "order"));
        assert!(kinds.source(16).is_none());
        let (mut all, mut wanted) = kinds.wanted_sources(&"order,message".parse().unwrap());
        all.sort_unstable();
        wanted.sort_unstable();
        assert_eq!((all, wanted), (vec![3, 16, 17], vec![16, 17]));
        assert!(kinds.set_sources(sources).is_empty());
        let changed = kinds.set_sources([(17, "order", Err(NotALayout::Brace))]);
        assert_eq!(changed, [(17, NotALayout::Brace)]);
        assert!(kinds.source(3).is_none());
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
