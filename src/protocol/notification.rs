//! A notification, read as far as routing needs it.
//!
//! Triggers write flat objects of short strings and numbers, which are read here in one pass. Everything else
//! (escapes, nesting, a number with a fraction, a member that comes twice) is left to `serde_json`, which decides
//! what is an event. The pass never accepts a text that `serde_json` would refuse, and never reads it differently.

use std::borrow::Cow;

use serde::Deserialize;
use uuid::Uuid;

use super::flat_json::{Rest, Value, member};
use super::json::object;
use super::kind::{KIND_BYTES_MAX, is_reserved};
use super::trailer::Trailer;
use super::{InLog, Kind, UserKey, Xid};

/// The largest part of a refused payload that is logged, in characters.
const LOGGED_PAYLOAD_CHARS: usize = 200;
/// The white space of JSON.
const BLANKS: [char; 4] = [' ', '\n', '\r', '\t'];

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A change that clients are sent.
    Event(Kind),
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
    /// What it is about. A kind that is none of HushNet's is [`Kind::OTHER`], as it is parsed.
    pub subject: Subject,
    /// The name of such a kind.
    pub other_kind: Option<&'a str>,
    /// The user whose event it is: the routing key.
    pub user: UserKey,
    /// Its row in the log; `None` from a database that has only HushNet's own triggers.
    pub id: Option<i64>,
    /// The transaction that has written it. `None` where the trigger does not notify it: before migration 7, and from
    /// HushNet's own.
    pub xid: Option<Xid>,
    /// Whether its transaction commits without waiting for the disk (`synchronous_commit = off`).
    pub asynchronous: bool,
    /// Whether the notification only says that the event is in the log, because the event is too long to be
    /// notified.
    pub by_reference: bool,
    /// Where the log has the rest of a large event, of which `open_text` has the beginning alone.
    pub in_log: Option<InLog>,
    /// The event's JSON object without its closing brace, and without the members that only the service reads.
    pub open_text: &'a str,
}

/// The value of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type<'a> {
    Preset(Kind),
    Other(&'a str),
    Revocation,
}

impl<'a> Type<'a> {
    /// `None` for a name that no kind may have.
    #[inline]
    fn from_name(name: &'a [u8]) -> Option<Self> {
        Kind::of_preset(name).map_or_else(|| Self::of_others(name), |kind| Some(Self::Preset(kind)))
    }

    #[inline(never)]
    fn of_others(name: &'a [u8]) -> Option<Self> {
        let name = str::from_utf8(name).ok()?;
        match name {
            "revocation" => Some(Self::Revocation),
            _ if name.is_empty() || name.len() > KIND_BYTES_MAX || is_reserved(name) => None,
            _ => Some(Self::Other(name)),
        }
    }

    /// A name of HushNet's may be written with escapes; any other is handed on as it is.
    fn from_member(name: &Cow<'a, str>) -> Result<Self, serde_json::Error> {
        let known = match name {
            Cow::Borrowed(name) => Self::from_name(name.as_bytes()),
            Cow::Owned(name) if name == "revocation" => Some(Self::Revocation),
            Cow::Owned(name) => Kind::of_preset(name.as_bytes()).map(Self::Preset),
        };
        known.ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "type names no kind of events: it has 1 to {KIND_BYTES_MAX} bytes, no escapes, and is no frame's"
            ))
        })
    }

    /// The subject of a notification of this type with this text.
    #[inline]
    fn subject(self, open_text: &str) -> Subject {
        match self {
            Self::Preset(kind) => Subject::Event(kind),
            Self::Other(_) => Subject::Event(Kind::OTHER),
            Self::Revocation => Subject::Revocation {
                device_id: revoked_device(open_text),
            },
        }
    }

    #[inline]
    fn other_kind(self) -> Option<&'a str> {
        match self {
            Self::Other(name) => Some(name),
            Self::Preset(_) | Self::Revocation => None,
        }
    }
}

/// The device that a revocation names. Apart from the way of an event, which it would make longer.
#[cold]
#[inline(never)]
fn revoked_device(open_text: &str) -> Option<Uuid> {
    let revoked = serde_json::from_str::<Revoked>(&format!("{open_text}}}"));
    revoked.ok()?.device_id
}

/// The device that a revocation names.
#[derive(Deserialize)]
struct Revoked {
    device_id: Option<Uuid>,
}

/// A notification as serde reads it.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    id: Option<i64>,
    #[serde(default)]
    by_reference: bool,
}

/// The text without the white space at its end, which few have.
#[inline]
fn trimmed(payload: &str) -> &str {
    if payload.ends_with('}') {
        payload
    } else {
        payload.trim_end_matches(BLANKS)
    }
}

/// Whether the transaction of this payload of the log committed without waiting for the disk.
#[must_use]
pub fn is_asynchronous(payload: &str) -> bool {
    Trailer::cut_from(payload).is_some_and(|trailer| trailer.asynchronous)
}

/// A notification that is no event: not JSON, of a type that no kind may have, or without a `user_id`.
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
    /// [`MalformedEvent`] when it is not a JSON object with a `type` that names a kind, and with a user: a UUID
    /// `user_id`, or its key at the end.
    pub fn parse(payload: &'a str) -> Result<Self, MalformedEvent> {
        let trailer = Trailer::cut_from(trimmed(payload));
        let flat = trailer.and_then(|trailer| Self::of_flat(trailer.open_text, trailer));
        // Without an id it is not from the log's triggers, and has no trailer.
        match flat {
            Some(read) if read.id.is_some() || trailer.is_none_or(Trailer::is_empty) => Ok(read),
            _ => Self::of_any(payload, trailer).map_err(|cause| MalformedEvent {
                cause,
                payload: payload.chars().take(LOGGED_PAYLOAD_CHARS).collect(),
            }),
        }
    }

    /// The notification of a row of the log, which this transaction has written.
    ///
    /// # Errors
    /// As [`Notification::parse`].
    pub fn of_row(payload: &'a str, xid: Option<Xid>) -> Result<Self, MalformedEvent> {
        Self::parse(payload).map(|read| Self { xid, ..read })
    }

    /// What another node has routed. Its text, which may be trusted, has the name of its kind if that is none of
    /// HushNet's.
    #[must_use]
    pub fn published(
        subject: Subject,
        user: UserKey,
        id: Option<i64>,
        xid: Option<Xid>,
        open_text: &'a str,
    ) -> Self {
        let is_other = subject == Subject::Event(Kind::OTHER);
        let other_kind = is_other.then(|| member(open_text, b"type")).flatten();
        Self {
            subject,
            other_kind,
            user,
            id,
            xid,
            asynchronous: false,
            by_reference: false,
            in_log: None,
            open_text,
        }
    }

    fn of_any(payload: &'a str, trailer: Option<Trailer<'a>>) -> Result<Self, serde_json::Error> {
        let members: Members<'a> = object(payload)?;
        let kind = Type::from_member(&members.kind)?;
        let whole = trimmed(payload);
        let whole = Trailer {
            open_text: whole.strip_suffix('}').unwrap_or(whole),
            xid: None,
            user: None,
            asynchronous: false,
        };
        let trailer = trailer.filter(|_| members.id.is_some()).unwrap_or(whole);
        let user = match trailer.user {
            Some(user) => user,
            None => Uuid::try_parse(&members.user_id)
                .map_err(serde::de::Error::custom)?
                .into(),
        };
        Ok(Self {
            subject: kind.subject(trailer.open_text),
            other_kind: kind.other_kind(),
            user,
            id: members.id,
            xid: trailer.xid,
            asynchronous: trailer.asynchronous,
            by_reference: members.by_reference,
            in_log: None,
            open_text: trailer.open_text,
        })
    }

    /// Reads a flat and plain object without its closing brace; `None` for any other text, and for an object that is no
    /// event.
    fn of_flat(open_text: &'a str, trailer: Trailer<'a>) -> Option<Self> {
        let mut rest = Rest(open_text.as_bytes());
        let (mut kind, mut user_id, mut id, mut by_reference) = (None, None, None, None);
        rest.expect(b'{')?;
        rest.expect(b'"')?;
        loop {
            let name = rest.name_begun()?;
            let value = rest.value()?;
            match (name, value) {
                (b"type", Value::String(text)) => set(&mut kind, Type::from_name(text)?)?,
                (b"user_id", Value::String(text)) => set(&mut user_id, text)?,
                (b"id", Value::Number(number)) => set(&mut id, number)?,
                (b"by_reference", Value::Bool(is)) => set(&mut by_reference, is)?,
                (b"type" | b"user_id" | b"id" | b"by_reference", _) => return None,
                _ => {}
            }
            if !rest.next_begins()? {
                break;
            }
        }
        let (kind, user_id) = (kind?, user_id?);
        let user = match trailer.user {
            Some(user) => user,
            None => Uuid::try_parse_ascii(user_id).ok()?.into(),
        };
        Some(Self {
            subject: kind.subject(open_text),
            other_kind: kind.other_kind(),
            user,
            id,
            xid: trailer.xid,
            asynchronous: trailer.asynchronous,
            by_reference: by_reference.unwrap_or_default(),
            in_log: None,
            open_text,
        })
    }
}

/// Sets a member; `None` if it was set before, since an object with a member twice is no event.
fn set<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";

    fn by_serde(payload: &str) -> Option<Notification<'_>> {
        let trailer = Trailer::cut_from(payload.trim_end_matches(BLANKS));
        Notification::of_any(payload, trailer).ok()
    }

    fn in_one_pass(payload: &str) -> Option<Notification<'_>> {
        let trailer = Trailer::cut_from(payload.trim_end_matches(BLANKS))?;
        let read = Notification::of_flat(trailer.open_text, trailer)?;
        (read.id.is_some() || trailer.is_empty()).then_some(read)
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
            format!(r#"{{"type":"device","user_id":"{USER}", "id" : 7, "xid" : 12}}"#),
            format!(r#"{{"type":"order","user_id":"42", "id" : 7, "user_key" : "{USER}"}}"#),
            format!(
                r#"{{"type":"device","user_id":"{USER}", "id" : 7, "asynchronous" : true, "xid" : 12}}"#
            ),
        ];
        let bytes = br#"{}[]:,"\ x01.-eE/tfn"#;
        let mut flat = 0;
        for text in texts {
            assert!(in_one_pass(&text).is_some(), "{text}");
            for at in 0..text.len() {
                for byte in bytes {
                    let mut changed = text.clone().into_bytes();
                    changed[at] = *byte;
                    let changed = String::from_utf8(changed).unwrap();
                    if let Some(read) = in_one_pass(&changed) {
                        assert_eq!(Some(read), by_serde(&changed), "{changed}");
                        flat += 1;
                    }
                }
                let cut = &text[..at];
                if let Some(read) = in_one_pass(cut) {
                    assert_eq!(Some(read), by_serde(cut), "{cut}");
                }
            }
        }
        assert!(flat > 100, "{flat}");
    }

    #[test]
    fn the_text_is_the_same_from_a_notification_and_from_the_log() {
        let open = format!(r#"{{"type" : "device", "user_id" : "{USER}", "id" : 7"#);
        let mark = r#", "asynchronous" : true"#;
        let logged = format!("{open}}}");
        let logged = Notification::of_row(&logged, Xid::new(12)).unwrap();
        assert_eq!((logged.open_text, logged.asynchronous), (&*open, false));
        let notified = format!(r#"{open}, "xid" : 12}}"#);
        assert_eq!(Notification::parse(&notified).unwrap(), logged);
        let logged = format!("{open}{mark}}}");
        assert!(is_asynchronous(&logged) && !is_asynchronous(&open));
        let logged = Notification::of_row(&logged, Xid::new(12)).unwrap();
        let notified = format!(r#"{open}{mark}, "xid" : 12}}"#);
        assert_eq!(Notification::parse(&notified).unwrap(), logged);
        assert_eq!((logged.open_text, logged.asynchronous), (&*open, true));
    }

    /// The client is sent the user's own id; whose the event is says the key.
    #[test]
    fn the_key_at_the_end_says_whose_event_it_is_and_is_no_part_of_the_text() {
        let key = format!(r#", "user_key" : "{USER}""#);
        let xid = r#", "xid" : 12"#;
        for id in ["42", "-7", "é", r#"a\"b"#, r#"}, \"xid\" : 9}"#, USER] {
            let open = format!(r#"{{"type" : "order", "user_id" : "{id}", "id" : 7"#);
            for mark in ["", r#", "asynchronous" : true"#] {
                let notified = format!("{open}{mark}{key}{xid}}}");
                let read = Notification::parse(&notified).unwrap();
                assert_eq!(read.user.to_string(), USER);
                assert_eq!(
                    (read.open_text, read.asynchronous),
                    (&*open, !mark.is_empty())
                );
                assert_eq!((read.id, read.xid), (Some(7), Xid::new(12)));
            }
        }
        // Nobody has such a key, and without one the id is a uuid.
        for wrong in [
            key.replace("a1b2", "x1b2"),
            key.replace('-', "_"),
            String::new(),
        ] {
            let text = format!(r#"{{"type" : "order", "user_id" : "42", "id" : 7{wrong}{xid}}}"#);
            assert!(Notification::parse(&text).is_err(), "{text}");
        }
        // The log's triggers write an id before the key.
        let text = format!(r#"{{"type" : "order", "user_id" : "42"{key}}}"#);
        assert!(Notification::parse(&text).is_err());
    }

    /// HushNet's own triggers write no id.
    #[test]
    fn an_event_without_an_id_keeps_its_text() {
        for more in [
            r#", "xid" : 12"#,
            r#", "asynchronous" : true"#,
            r#","x":[]"#,
        ] {
            let open = format!(r#"{{"type":"device","user_id":"{USER}"{more}"#);
            let payload = format!("{open}}}\n");
            let read = Notification::parse(&payload).unwrap();
            assert_eq!(read.open_text, open);
            assert_eq!((read.xid, read.asynchronous), (None, false));
        }
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
                    let read = in_one_pass(&text);
                    assert_eq!(read.is_some(), is_blank, "{text:?}");
                    assert_eq!(read, by_serde(&text), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_string_of_a_uuid_s_length_is_read_as_any_other() {
        for byte in 0..=127_u8 {
            for place in 0..36 {
                let mut text = [b'x'; 36];
                text[place] = byte;
                let text = str::from_utf8(&text).unwrap();
                let payload = format!(r#"{{"x":"{text}","type":"device","user_id":"{USER}"}}"#);
                let read = in_one_pass(&payload);
                let special = matches!(byte, b'"' | b'\\' | 0..=0x1f);
                assert_eq!(read.is_none(), special, "{byte} at {place}");
                assert!(special || read == by_serde(&payload));
            }
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
            assert!(in_one_pass(&text).is_none(), "{text}");
            assert_eq!(Notification::parse(&text).is_ok(), is_event, "{text}");
        }
    }
}
