//! What an event is about.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Deserialize;

use super::flat_json::member;

/// The kinds that a server knows by name at most.
pub const KINDS_MAX: usize = 256;
/// The longest name of a kind, in bytes.
pub const KIND_BYTES_MAX: usize = 32;

/// The names of the protocol's own frames, of rows of the log that are no events, and of unknown kinds. No kind
/// has one of these.
const RESERVED: [&str; 18] = [
    "ack",
    "auth",
    "authenticated",
    "barrier",
    "cursor",
    "error",
    "event_failed",
    "goaway",
    "hello",
    Kind::OTHER_NAME,
    "ping",
    "pong",
    "presence",
    "receipt",
    "reset",
    "revocation",
    "truncated",
    "typing",
];

/// What an event is about: the value of `type` in its JSON, as a number. [`super::Kinds`] has the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(NonZeroU16);

impl Kind {
    /// A row was inserted into `messages`.
    pub const MESSAGE: Self = Self::numbered(0);
    /// A row was inserted into `sessions` (Double Ratchet sessions, not connections).
    pub const SESSION: Self = Self::numbered(1);
    /// A row of `devices` was inserted, changed or deleted.
    pub const DEVICE: Self = Self::numbered(2);
    /// A row was inserted into `pending_sessions`.
    pub const PENDING_SESSION: Self = Self::numbered(3);
    /// A kind that has no number in this process: nothing has registered it.
    pub const OTHER: Self = Self::numbered(256);

    /// What stands for such kinds where a name is needed. No kind has this name.
    pub const OTHER_NAME: &'static str = "other";

    /// The names of HushNet's own kinds, by their numbers.
    pub const PRESET: [&'static str; 4] = ["message", "session", "device", "pending_session"];

    pub(super) const fn numbered(number: u16) -> Self {
        Self(NonZeroU16::MIN.saturating_add(number))
    }

    /// The number, from 0 to [`KINDS_MAX`].
    #[must_use]
    #[inline]
    pub fn number(self) -> usize {
        usize::from(self.0.get()) - 1
    }

    /// One of HushNet's own kinds by its number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        (usize::from(number) < Self::PRESET.len()).then(|| Self::numbered(number.into()))
    }

    /// One of HushNet's own kinds by its name.
    #[inline]
    pub(super) fn of_preset(name: &[u8]) -> Option<Self> {
        match name {
            b"message" => Some(Self::MESSAGE),
            b"session" => Some(Self::SESSION),
            b"device" => Some(Self::DEVICE),
            b"pending_session" => Some(Self::PENDING_SESSION),
            _ => None,
        }
    }

    /// Whether it is one of HushNet's own.
    #[must_use]
    #[inline]
    pub fn is_preset(self) -> bool {
        self.number() < Self::PRESET.len()
    }

    /// The name of this kind, which the event with this JSON has. The JSON may lack its closing brace.
    pub(super) fn name_in(self, text: &str) -> Cow<'_, str> {
        match Self::PRESET.get(self.number()) {
            Some(name) => Cow::Borrowed(name),
            None => type_in(text),
        }
    }
}

/// Whether no kind may have this name: it would be taken for a frame of the protocol.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.binary_search(&name).is_ok()
}

/// The value of `type` in this JSON object, which may lack its closing brace.
#[cold]
fn type_in(text: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Type {
        #[serde(rename = "type")]
        name: String,
    }
    if let Some(name) = member(text, b"type") {
        return Cow::Borrowed(name);
    }
    let parse = |text: &str| serde_json::from_str(text).map(|Type { name }| name);
    let name = parse(text).or_else(|_| parse(&format!("{text}}}")));
    Cow::Owned(name.unwrap_or_default())
}

/// The kinds of events that a client wants: their names with commas between, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedKinds(Box<str>);

/// Why a list of kinds cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKinds {
    /// The list is longer than a connection keeps.
    #[error("kinds takes at most {} bytes", WantedKinds::BYTES_MAX)]
    Long,
    /// A name is too long, or empty.
    #[error(
        "kinds takes names of 1 to {KIND_BYTES_MAX} bytes with commas between, as in message,session"
    )]
    Length,
    /// A frame of the protocol has that name.
    #[error("a name in kinds is reserved by the protocol, and no event has it")]
    Reserved,
}

impl WantedKinds {
    /// The longest list, in bytes.
    pub const BYTES_MAX: usize = 1_024;
    /// Stands for every kind.
    pub const ALL: &'static str = "*";

    /// Whether every kind is wanted.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.names().any(|name| name == Self::ALL)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split(',')
    }

    /// Whether an event of this kind with this JSON is wanted. The JSON may lack its closing brace.
    #[must_use]
    pub fn admit(&self, kind: Kind, text: &str) -> bool {
        let name = kind.name_in(text);
        self.names()
            .any(|wanted| wanted == name || wanted == Self::ALL)
    }
}

impl FromStr for WantedKinds {
    type Err = NotKinds;

    fn from_str(text: &str) -> Result<Self, NotKinds> {
        if text.len() > Self::BYTES_MAX {
            return Err(NotKinds::Long);
        }
        for name in text.split(',') {
            if name.is_empty() || name.len() > KIND_BYTES_MAX {
                return Err(NotKinds::Length);
            }
            if is_reserved(name) {
                return Err(NotKinds::Reserved);
            }
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_names_are_in_order_and_none_is_a_preset_s() {
        assert!(RESERVED.is_sorted());
        for (number, name) in Kind::PRESET.into_iter().enumerate() {
            assert!(!is_reserved(name));
            let kind = Kind::of_preset(name.as_bytes()).unwrap();
            assert_eq!((kind.number(), kind.is_preset()), (number, true));
        }
        assert!(RESERVED.into_iter().all(is_reserved));
        assert!(!Kind::OTHER.is_preset());
        assert_eq!(Kind::OTHER.number(), KINDS_MAX);
    }

    #[test]
    fn the_database_registers_no_source_of_a_reserved_name() {
        let migration = include_str!("../../sql/realtime/0010_statement_triggers.up.sql");
        let (_, names) = migration.split_once("WHEN NEW.kind IN (").unwrap();
        let (names, _) = names.split_once(')').unwrap();
        let names = names.split(',').map(|name| name.trim().trim_matches('\''));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        assert_eq!(names, RESERVED);
    }

    #[test]
    fn the_name_of_a_kind_is_read_from_an_event_s_text() {
        for text in [
            r#"{"type":"order","user_id":"u""#,
            r#"{"user_id" : "u", "type" : "order"}"#,
            r#"{"row":{"type":"message"},"type":"order""#,
            r#"{"row":{"type":"message"},"type":"order"}"#,
        ] {
            assert_eq!(Kind::OTHER.name_in(text), "order", "{text}");
            assert_eq!(Kind::DEVICE.name_in(text), "device");
        }
    }

    #[test]
    fn kinds_that_are_wanted_are_named_with_commas_between() {
        let wanted: WantedKinds = "message,order".parse().unwrap();
        let order = r#"{"type":"order""#;
        assert!(wanted.admit(Kind::MESSAGE, order) && wanted.admit(Kind::OTHER, order));
        assert!(!wanted.admit(Kind::DEVICE, order));
        assert!(!wanted.admit(Kind::OTHER, r#"{"type":"orders""#));
        let all: WantedKinds = "*".parse().unwrap();
        assert!(all.are_all() && !wanted.are_all() && all.admit(Kind::OTHER, order));
        let longest = "x".repeat(KIND_BYTES_MAX);
        assert!(longest.parse::<WantedKinds>().is_ok());
        let many = "kind,".repeat(WantedKinds::BYTES_MAX / 5);
        for (text, fault) in [
            (String::new(), NotKinds::Length),
            ("message,".to_owned(), NotKinds::Length),
            (format!("{longest}x"), NotKinds::Length),
            ("message,hello".to_owned(), NotKinds::Reserved),
            (format!("{many}kinds"), NotKinds::Long),
        ] {
            assert_eq!(text.parse::<WantedKinds>(), Err(fault), "{text}");
        }
        assert!(many.trim_end_matches(',').parse::<WantedKinds>().is_ok());
    }
}
