//! A notification, read as far as routing needs it.
//!
//! Triggers write flat objects of short strings and numbers, which are read here in one pass. Everything else
//! (escapes, nesting, a number with a fraction, a member that comes twice) is left to `serde_json`, which decides
//! what is an event. The pass never accepts a text that `serde_json` would refuse, and never reads it differently.

use serde::Deserialize;
use uuid::Uuid;

use super::EventKind;
use super::json::object;

/// The largest part of a refused payload that is logged, in characters.
const LOGGED_PAYLOAD_CHARS: usize = 200;
/// A UUID as PostgreSQL writes it.
const UUID_CHARS: usize = 36;

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A change that clients are sent.
    Event(EventKind),
    /// A device was deleted, or the user. A notification whose device cannot be read counts as the user's, since
    /// closing a connection too many is better than closing one too few.
    Revocation {
        /// The device.
        device_id: Option<Uuid>,
    },
}

/// The members of a notification that routing needs, and its text, whose other members are skipped unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// What it is about.
    pub subject: Subject,
    /// The user whose event it is: the routing key.
    pub user_id: Uuid,
    /// Its row in `realtime.events`; `None` from a database that has only HushNet's own triggers.
    pub id: Option<i64>,
    /// Whether the notification only says that the event is in the log, because the event is too long to be
    /// notified.
    pub by_reference: bool,
    /// The JSON as the trigger wrote it.
    pub text: &'a str,
}

/// The values of `type` that routing knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Message,
    Session,
    Device,
    Revocation,
}

impl Type {
    fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"message" => Some(Self::Message),
            b"session" => Some(Self::Session),
            b"device" => Some(Self::Device),
            b"revocation" => Some(Self::Revocation),
            _ => None,
        }
    }

    /// The subject of a notification of this type with this text.
    fn subject(self, text: &str) -> Subject {
        match self {
            Self::Message => Subject::Event(EventKind::Message),
            Self::Session => Subject::Event(EventKind::Session),
            Self::Device => Subject::Event(EventKind::Device),
            Self::Revocation => Subject::Revocation {
                device_id: revoked_device(text),
            },
        }
    }
}

/// The device that a revocation names. Apart from the way of an event, which it would make longer.
#[cold]
#[inline(never)]
fn revoked_device(text: &str) -> Option<Uuid> {
    serde_json::from_str::<Revoked>(text).ok()?.device_id
}

/// The device that a revocation names.
#[derive(Deserialize)]
struct Revoked {
    device_id: Option<Uuid>,
}

/// A notification as serde reads it.
#[derive(Deserialize)]
struct Members {
    #[serde(rename = "type")]
    kind: Type,
    user_id: Uuid,
    id: Option<i64>,
    #[serde(default)]
    by_reference: bool,
}

/// Whether this payload of the log tells that a table was emptied with TRUNCATE. Such a row is for all users.
#[must_use]
pub fn is_truncation(payload: &str) -> bool {
    #[derive(Deserialize)]
    struct Truncation {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_str(payload).is_ok_and(|row: Truncation| row.kind == "truncated")
}

/// A notification that is no event: not JSON, of an unknown type, or without a `user_id`.
#[derive(Debug, thiserror::Error)]
#[error("{cause}; payload: {payload}")]
pub struct MalformedEvent {
    cause: serde_json::Error,
    payload: String,
}

impl<'a> Notification<'a> {
    /// Reads a notification's payload, or a payload of the log.
    ///
    /// # Errors
    /// [`MalformedEvent`] when it is not a JSON object with a known `type` and a UUID `user_id`.
    pub fn parse(payload: &'a str) -> Result<Self, MalformedEvent> {
        let read = Self::of_flat(payload).map_or_else(|| Self::of_any(payload), Ok);
        read.map_err(|cause| MalformedEvent {
            cause,
            payload: payload.chars().take(LOGGED_PAYLOAD_CHARS).collect(),
        })
    }

    fn of_any(payload: &'a str) -> Result<Self, serde_json::Error> {
        let members: Members = object(payload)?;
        let text = payload.trim_end();
        Ok(Self {
            subject: members.kind.subject(text),
            user_id: members.user_id,
            id: members.id,
            by_reference: members.by_reference,
            text,
        })
    }

    /// Reads a flat and plain object; `None` for any other text, and for an object that is no event.
    fn of_flat(payload: &'a str) -> Option<Self> {
        let mut rest = Rest(payload.as_bytes());
        let (mut kind, mut user_id, mut id, mut by_reference) = (None, None, None, None);
        rest.expect(b'{')?;
        loop {
            let name = rest.name()?;
            rest.expect(b':')?;
            let value = rest.value()?;
            match (name, value) {
                (b"type", Value::String(text)) => set(&mut kind, Type::from_name(text)?)?,
                (b"user_id", Value::String(text)) => {
                    set(&mut user_id, Uuid::try_parse_ascii(text).ok()?)?;
                }
                (b"id", Value::Number(number)) => set(&mut id, number)?,
                (b"by_reference", Value::Bool(is)) => set(&mut by_reference, is)?,
                (b"type" | b"user_id" | b"id" | b"by_reference", _) => return None,
                _ => {}
            }
            match rest.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        if !rest.is_blank() {
            return None;
        }
        let text = payload.trim_end();
        Some(Self {
            subject: kind?.subject(text),
            user_id: user_id?,
            id,
            by_reference: by_reference.unwrap_or_default(),
            text,
        })
    }
}

/// Sets a member; `None` if it was set before, since an object with a member twice is no event.
fn set<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

enum Value<'a> {
    String(&'a [u8]),
    Number(i64),
    Bool(bool),
    Null,
}

/// The rest of a JSON text, which has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn is_blank(&mut self) -> bool {
        self.skip_blanks();
        self.0.is_empty()
    }

    /// The next byte that is not white space. Triggers write at most one space before it. Anything more is skipped
    /// in a function of its own, which keeps this one short.
    fn next(&mut self) -> Option<u8> {
        let (mut first, mut rest) = self.0.split_first()?;
        if *first == b' ' {
            (first, rest) = rest.split_first()?;
        }
        if *first <= b' ' {
            return self.next_after_blanks();
        }
        self.0 = rest;
        Some(*first)
    }

    #[cold]
    #[inline(never)]
    fn next_after_blanks(&mut self) -> Option<u8> {
        self.skip_blanks();
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// The name of a member.
    fn name(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        self.string_begun()
    }

    /// A string without escapes, whose first quote has been read.
    fn string_begun(&mut self) -> Option<&'a [u8]> {
        let (text, rest) = self.0.split_at_checked(end_of_string(self.0)?)?;
        self.0 = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// The same for a string that is a value. Most values are UUIDs. Checking that a string of that length ends
    /// there is quicker than searching for its end.
    fn string_value_begun(&mut self) -> Option<&'a [u8]> {
        match self.0.split_first_chunk() {
            Some((text, [b'"', rest @ ..])) if is_plain(text) => {
                self.0 = rest;
                Some(text)
            }
            _ => self.string_begun(),
        }
    }

    fn value(&mut self) -> Option<Value<'a>> {
        match self.next()? {
            b'"' => self.string_value_begun().map(Value::String),
            digit @ b'0'..=b'9' => self.number_begun(digit).map(Value::Number),
            b't' => self.word(b"rue").map(|()| Value::Bool(true)),
            b'f' => self.word(b"alse").map(|()| Value::Bool(false)),
            b'n' => self.word(b"ull").map(|()| Value::Null),
            _ => None,
        }
    }

    /// A whole number that is not negative, without a leading zero; nothing larger than an `i64`.
    fn number_begun(&mut self, digit: u8) -> Option<i64> {
        let mut number = i64::from(digit - b'0');
        while let [digit @ b'0'..=b'9', rest @ ..] = self.0 {
            if number == 0 {
                return None;
            }
            let digit = i64::from(digit - b'0');
            number = number.checked_mul(10)?.checked_add(digit)?;
            self.0 = rest;
        }
        match self.0.first() {
            Some(b'.' | b'e' | b'E') => None,
            _ => Some(number),
        }
    }
}

/// Whether the text holds no byte that ends a plain string.
fn is_plain(text: &[u8; UUID_CHARS]) -> bool {
    const LAST: usize = UUID_CHARS - size_of::<u64>();
    let special_at = |at: usize| {
        let word = text[at..].first_chunk();
        word.map_or(u64::MAX, |word| special_bytes(u64::from_le_bytes(*word)))
    };
    let words = [0, 8, 16, 24, LAST].into_iter();
    words.fold(0, |all, at| all | special_at(at)) == 0
}

/// The index of the first quote, backslash or control character.
fn end_of_string(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            let place = bytes.len() - rest.len();
            return Some(place + special.trailing_zeros() as usize / 8);
        }
        rest = after;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    let place = rest.iter().position(special)?;
    Some(bytes.len() - rest.len() + place)
}

/// Eight bytes at a time: the high bit of the first byte that ends a plain string, and perhaps of some after it.
fn special_bytes(word: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let of = |byte: u8| EACH * u64::from(byte);
    // A byte below the bound borrows, which sets its high bit. A byte whose high bit was set is not special.
    let control = word.wrapping_sub(of(0x20));
    let quote = (word ^ of(b'"')).wrapping_sub(of(1));
    let backslash = (word ^ of(b'\\')).wrapping_sub(of(1));
    (control | quote | backslash) & !word & of(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";

    fn by_serde(payload: &str) -> Option<Notification<'_>> {
        Notification::of_any(payload).ok()
    }

    /// Both ways are made to say the same of every text that a change of one byte makes of these.
    #[test]
    fn what_is_read_in_one_pass_is_what_serde_reads() {
        let texts = [
            format!(r#"{{"type" : "message", "chat_id" : null, "user_id" : "{USER}", "id" : 70}}"#),
            format!(r#"{{"id":1,"by_reference":true,"user_id":"{USER}","type":"device"}} "#),
            format!(
                r#"{{"type":"session","user_id":"{USER}","x":false,"id":9223372036854775807}}"#
            ),
            format!(r#"{{"type":"revocation","user_id":"{USER}","device_id":null}}"#),
        ];
        let bytes = br#"{}[]:,"\ x01.-eE/tfn"#;
        let mut flat = 0;
        for text in texts {
            assert!(Notification::of_flat(&text).is_some(), "{text}");
            for at in 0..text.len() {
                for byte in bytes {
                    let mut changed = text.clone().into_bytes();
                    changed[at] = *byte;
                    let changed = String::from_utf8(changed).unwrap();
                    if let Some(read) = Notification::of_flat(&changed) {
                        assert_eq!(Some(read), by_serde(&changed), "{changed}");
                        flat += 1;
                    }
                }
                let cut = &text[..at];
                if let Some(read) = Notification::of_flat(cut) {
                    assert_eq!(Some(read), by_serde(cut), "{cut}");
                }
            }
        }
        assert!(flat > 100, "{flat}");
    }

    #[test]
    fn only_the_white_space_of_json_is_skipped_and_all_of_it() {
        let spaced = format!(r#"{{ "type" : "device" , "user_id" : "{USER}" , "id" : 7 }} "#);
        let tokens: Vec<_> = spaced.split(' ').collect();
        for byte in 0..=b' ' {
            for count in 1..4 {
                let blank = char::from(byte).to_string().repeat(count);
                let is_blank = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
                for at in 0..tokens.len() {
                    let (before, after) = (tokens[..at].concat(), tokens[at..].concat());
                    let text = format!("{before}{blank}{after}");
                    let read = Notification::of_flat(&text);
                    assert_eq!(read.is_some(), is_blank, "{text:?}");
                    assert_eq!(read, by_serde(&text), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_string_ends_at_the_first_byte_that_is_special() {
        for byte in 0..=255_u8 {
            let special = matches!(byte, b'"' | b'\\' | 0..=0x1f);
            // Three words, and a rest that is shorter than a word.
            for place in 0..29 {
                let mut bytes = [b'x'; 29];
                bytes[place..].fill(byte);
                let end = special.then_some(place);
                assert_eq!(end_of_string(&bytes), end, "{byte} at {place}");
                assert_eq!(end_of_string(&bytes[..place]), None);
            }
        }
    }

    #[test]
    fn a_string_of_a_uuid_s_length_is_read_as_any_other() {
        for byte in 0..=127_u8 {
            for place in 0..UUID_CHARS {
                let mut text = [b'x'; UUID_CHARS];
                text[place] = byte;
                let text = str::from_utf8(&text).unwrap();
                let payload = format!(r#"{{"x":"{text}","type":"device","user_id":"{USER}"}}"#);
                let read = Notification::of_flat(&payload);
                let special = matches!(byte, b'"' | b'\\' | 0..=0x1f);
                assert_eq!(read.is_none(), special, "{byte} at {place}");
                assert!(special || read == by_serde(&payload));
            }
        }
    }

    #[test]
    fn two_special_bytes_a_word_apart_do_not_hide_each_other() {
        for place in 0..UUID_CHARS - size_of::<u64>() {
            let mut text = [b'x'; UUID_CHARS];
            text[place] = b'\\';
            text[place + size_of::<u64>()] = b'\\';
            assert!(!is_plain(&text), "{place}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_serde() {
        for (text, is_event) in [
            (
                format!(r#"{{"type":"message","user_id":"{USER}","x":{{"id":1}}}}"#),
                true,
            ),
            (
                format!(r#"{{"type":"m\u0065ssage","user_id":"{USER}"}}"#),
                true,
            ),
            (
                format!(r#"{{"type":"message","user_id":"{USER}","id":-4}}"#),
                true,
            ),
            (
                format!(r#"{{"type":"message","user_id":"{USER}","id":null}}"#),
                true,
            ),
            (
                format!(r#"{{"type":"message","user_id":"{USER}","id":1,"id":1}}"#),
                false,
            ),
            (
                format!(r#"{{"type":"message","user_id":"{USER}","id":01}}"#),
                false,
            ),
            (
                format!(r#"{{"type":"message","user_id":"{USER}","id":9223372036854775808}}"#),
                false,
            ),
            (format!(r#"{{"type":"reset","user_id":"{USER}"}}"#), false),
        ] {
            assert!(Notification::of_flat(&text).is_none(), "{text}");
            assert_eq!(Notification::parse(&text).is_ok(), is_event, "{text}");
        }
    }
}
