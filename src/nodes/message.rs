//! What nodes send each other over the bus: batches of a shard's events, marks and barriers. Pure.
//!
//! A message is the version of its format, then the envelope and the body in postcard's encoding: varints, and texts with
//! their length. The items of a batch follow its head one after another up to the end of the message, so that the
//! publisher appends them as they come. A message that cannot be read is dropped and counted; whoever may publish on the
//! bus may forge events (SECURITY.md), and no bytes may make a node panic.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::protocol::{Epoch, Kind, Notification, SHARDS, Shard, Subject, UserKey, Xid};

/// The oldest format that this version reads and writes.
pub const VERSION_OLDEST: u8 = 1;
/// The newest format that this version reads and writes. The leader writes the newest that all live nodes read.
pub const VERSION: u8 = 1;
/// The longest text of an event that a batch carries, in bytes. Of a longer one the batch says that it is in the log.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// A batch ends when it has so many bytes.
pub const BATCH_BYTES: usize = 16 << 10;
/// The longest message, in bytes: a batch that has just not ended, with one long event.
pub const MESSAGE_BYTES_MAX: usize = BATCH_BYTES + TEXT_BYTES_MAX + 512;
/// The number of a kind that is none of HushNet's own: the text has its name.
const OTHER: u8 = u8::MAX;

/// The time in which one leader publishes. Numbers of batches count within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The history of the log that the leader reads.
    pub history: u64,
    /// The timeline of its database.
    pub timeline: u32,
    /// The leader's random number.
    pub number: u64,
}

impl Run {
    /// The history and the timeline.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch {
            history: self.history,
            timeline: self.timeline,
        }
    }
}

/// What every message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The format.
    pub version: u8,
    /// The run.
    pub run: Run,
}

/// The part of a message after the envelope.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Head<'a> {
    Batch {
        shard: u8,
        sequence: u64,
    },
    Mark {
        shard: u8,
        sequence: u64,
    },
    Alive,
    Barrier {
        snapshot: &'a str,
        reached: Vec<u64>,
        seen: Vec<u64>,
    },
    Sources,
}

/// A message without its envelope.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Events of a shard's users, in the order of routing.
    Batch {
        /// The shard.
        shard: Shard,
        /// The number of the batch: 1, 2, 3 and so on for each run and shard.
        sequence: u64,
        /// The events.
        items: Items<'a>,
    },
    /// Proof that the leader lives and that this subscription works.
    Mark {
        /// The shard.
        shard: Shard,
        /// The number of the shard's last batch.
        sequence: u64,
    },
    /// The leader lives. Sent where a node has no shard.
    Alive,
    /// The leader has routed everything that this snapshot sees.
    Barrier {
        /// The text of the snapshot.
        snapshot: &'a str,
        /// The number of each shard's last batch before the barrier.
        reached: Box<Numbers>,
        /// Of each shard the number up to which the snapshot sees all events.
        seen: Box<Numbers>,
    },
    /// The sources of the log may have changed.
    Sources,
}

/// A number for each shard.
pub type Numbers = [u64; SHARDS];

/// An item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Item<'a> {
    Event {
        user: [u8; 16],
        id: Option<i64>,
        xid: Option<u64>,
        kind: u8,
        text: &'a str,
    },
    Revocation {
        user: [u8; 16],
        id: Option<i64>,
        xid: Option<u64>,
        device: Option<[u8; 16]>,
        text: &'a str,
    },
    InLog,
}

/// What an item of a batch says.
#[derive(Debug, PartialEq, Eq)]
pub enum Published<'a> {
    /// An event or a revocation, to be routed.
    Notification(Notification<'a>),
    /// Something that the message does not carry is in the log by now: a large event, or a row for all users.
    InLog,
}

/// The items of a batch that have not been read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Items<'a>(&'a [u8]);

/// Why a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is of a format that this version does not read.
    #[error("the message has the format {0}, which this version does not read")]
    Version(u8),
    /// It is no message of a node.
    #[error("the message is no message of a node")]
    Malformed,
}

/// Begins a message. The body is appended.
fn begin(envelope: &Envelope, head: &Head<'_>) -> Vec<u8> {
    let message = postcard::to_extend(&envelope.run, vec![envelope.version]);
    let message = message.and_then(|message| postcard::to_extend(head, message));
    // Writing to memory does not fail.
    message.unwrap_or_default()
}

/// A batch, whose items were written with [`append`].
#[must_use]
pub fn batch(envelope: &Envelope, shard: Shard, sequence: u64, items: &[u8]) -> Vec<u8> {
    let shard = shard.number();
    let mut message = begin(envelope, &Head::Batch { shard, sequence });
    message.extend_from_slice(items);
    message
}

/// A mark.
#[must_use]
pub fn mark(envelope: &Envelope, shard: Shard, sequence: u64) -> Vec<u8> {
    let shard = shard.number();
    begin(envelope, &Head::Mark { shard, sequence })
}

/// What proves to a node without shards that the leader lives.
#[must_use]
pub fn alive(envelope: &Envelope) -> Vec<u8> {
    begin(envelope, &Head::Alive)
}

/// A barrier.
#[must_use]
pub fn barrier(envelope: &Envelope, snapshot: &str, reached: &Numbers, seen: &Numbers) -> Vec<u8> {
    let (reached, seen) = (reached.to_vec(), seen.to_vec());
    begin(
        envelope,
        &Head::Barrier {
            snapshot,
            reached,
            seen,
        },
    )
}

/// Says that the sources of the log may have changed.
#[must_use]
pub fn sources(envelope: &Envelope) -> Vec<u8> {
    begin(envelope, &Head::Sources)
}

/// Appends a notification to a batch's items.
pub fn append(items: &mut Vec<u8>, notification: &Notification<'_>) {
    let user = notification.user.uuid().into_bytes();
    let (id, xid) = (notification.id, notification.xid.map(Xid::get));
    let text = notification.open_text;
    if notification.in_log.is_some() || text.len() > TEXT_BYTES_MAX {
        return append_in_log(items);
    }
    let item = match notification.subject {
        Subject::Event(kind) => Item::Event {
            user,
            id,
            xid,
            kind: preset(kind),
            text,
        },
        Subject::Revocation { device_id } => Item::Revocation {
            user,
            id,
            xid,
            device: device_id.map(Uuid::into_bytes),
            text,
        },
    };
    write(items, &item);
}

/// Appends that there is something in the log that the batch does not carry.
pub fn append_in_log(items: &mut Vec<u8>) {
    write(items, &Item::InLog);
}

fn write(items: &mut Vec<u8>, item: &Item<'_>) {
    // Writing to memory does not fail.
    let _ = postcard::to_io(item, items);
}

fn preset(kind: Kind) -> u8 {
    let number = u8::try_from(kind.number()).unwrap_or(OTHER);
    if kind.is_preset() { number } else { OTHER }
}

/// Reads a message of a format up to `newest`.
///
/// # Errors
/// [`Unreadable`].
pub fn read(bytes: &[u8], newest: u8) -> Result<(Run, Message<'_>), Unreadable> {
    let (version, bytes) = bytes.split_first().ok_or(Unreadable::Malformed)?;
    if !(VERSION_OLDEST..=newest).contains(version) {
        return Err(Unreadable::Version(*version));
    }
    let malformed = |_| Unreadable::Malformed;
    let (run, bytes) = postcard::take_from_bytes(bytes).map_err(malformed)?;
    let (head, items) = postcard::take_from_bytes(bytes).map_err(malformed)?;
    let shard = |number| Shard::new(number).ok_or(Unreadable::Malformed);
    let numbers = |numbers: Vec<u64>| {
        numbers
            .try_into()
            .map(Box::new)
            .map_err(|_| Unreadable::Malformed)
    };
    let message = match head {
        Head::Batch { shard: s, sequence } => Message::Batch {
            shard: shard(s)?,
            sequence,
            items: Items(items),
        },
        Head::Mark { shard: s, sequence } => Message::Mark {
            shard: shard(s)?,
            sequence,
        },
        Head::Alive => Message::Alive,
        Head::Barrier {
            snapshot,
            reached,
            seen,
        } => Message::Barrier {
            snapshot,
            reached: numbers(reached)?,
            seen: numbers(seen)?,
        },
        Head::Sources => Message::Sources,
    };
    Ok((run, message))
}

impl<'a> Items<'a> {
    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// [`Unreadable`]; the items after it cannot be read either.
    pub fn next_item(&mut self) -> Result<Option<Published<'a>>, Unreadable> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let taken = postcard::take_from_bytes(self.0);
        let (item, rest) = taken.map_err(|_| Unreadable::Malformed)?;
        self.0 = rest;
        published(item).map(Some)
    }

    /// Whether every item can be read, and none is left to the log.
    #[must_use]
    pub fn are_whole(mut self) -> bool {
        loop {
            match self.next_item() {
                Ok(Some(Published::Notification(_))) => {}
                Ok(None) => return true,
                Ok(Some(Published::InLog)) | Err(_) => return false,
            }
        }
    }
}

fn published(item: Item<'_>) -> Result<Published<'_>, Unreadable> {
    let (user, id, xid, text, subject) = match item {
        Item::InLog => return Ok(Published::InLog),
        Item::Event {
            user,
            id,
            xid,
            kind,
            text,
        } => {
            let kind = Kind::of_number(kind).unwrap_or(Kind::OTHER);
            (user, id, xid, text, Subject::Event(kind))
        }
        Item::Revocation {
            user,
            id,
            xid,
            device,
            text,
        } => {
            let device_id = device.map(Uuid::from_bytes);
            (user, id, xid, text, Subject::Revocation { device_id })
        }
    };
    let xid = match xid {
        None => None,
        Some(xid) => Some(Xid::new(xid).ok_or(Unreadable::Malformed)?),
    };
    let user = UserKey::from(Uuid::from_bytes(user));
    let notification = Notification::published(subject, user, id, xid, text);
    Ok(Published::Notification(notification))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run {
        history: u64::MAX,
        timeline: 3,
        number: 1 << 63,
    };
    const ENVELOPE: Envelope = Envelope {
        version: VERSION,
        run: RUN,
    };

    fn shard(number: u8) -> Shard {
        Shard::new(number).unwrap()
    }

    fn event(text: &str) -> Notification<'_> {
        let user = Uuid::from_u128(9).into();
        let subject = Subject::Event(Kind::MESSAGE);
        Notification::published(subject, user, Some(-5), Xid::new(1 << 40), text)
    }

    #[test]
    fn a_batch_brings_what_was_put_into_it() {
        let text = r#"{"type":"message","text":"Zoë""#;
        let device_id = Some(Uuid::from_u128(4));
        let revocation = Notification {
            subject: Subject::Revocation { device_id },
            xid: None,
            ..event("{")
        };
        let other = Notification {
            subject: Subject::Event(Kind::OTHER),
            other_kind: Some("invoice"),
            id: None,
            ..event(r#"{"type":"invoice""#)
        };
        let mut items = Vec::new();
        for notification in [&event(text), &revocation, &other] {
            append(&mut items, notification);
        }
        append_in_log(&mut items);
        let bytes = batch(&ENVELOPE, shard(63), 300, &items);
        let (run, message) = read(&bytes, VERSION).unwrap();
        assert_eq!(run, RUN);
        let Message::Batch {
            shard: of,
            sequence: 300,
            mut items,
        } = message
        else {
            panic!("{message:?}");
        };
        assert_eq!(of, shard(63));
        assert!(!items.are_whole());
        for notification in [event(text), revocation, other] {
            let read = items.next_item().unwrap().unwrap();
            assert_eq!(read, Published::Notification(notification));
        }
        assert_eq!(items.next_item(), Ok(Some(Published::InLog)));
        assert_eq!(items.next_item(), Ok(None));
    }

    #[test]
    fn an_event_that_is_too_long_is_read_from_the_log() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let mut items = Vec::new();
        append(&mut items, &event(&long));
        assert_eq!(Items(&items).next_item(), Ok(Some(Published::InLog)));
    }

    #[test]
    fn the_other_messages_come_as_they_went() {
        let mut numbers = [0; SHARDS];
        (numbers[0], numbers[63]) = (u64::MAX, 1);
        let snapshot = "7:9:7,8";
        let messages = [
            (
                mark(&ENVELOPE, shard(5), 9),
                Message::Mark {
                    shard: shard(5),
                    sequence: 9,
                },
            ),
            (alive(&ENVELOPE), Message::Alive),
            (sources(&ENVELOPE), Message::Sources),
            (
                barrier(&ENVELOPE, snapshot, &numbers, &[3; SHARDS]),
                Message::Barrier {
                    snapshot,
                    reached: Box::new(numbers),
                    seen: Box::new([3; SHARDS]),
                },
            ),
        ];
        for (bytes, message) in messages {
            assert_eq!(read(&bytes, VERSION), Ok((RUN, message)));
        }
    }

    #[test]
    fn no_bytes_are_read_that_no_node_has_written() {
        let mut items = Vec::new();
        append(&mut items, &event(r#"{"a":1"#));
        let whole = batch(&ENVELOPE, shard(1), 1, &items);
        for end in 0..whole.len() {
            let cut = match read(&whole[..end], VERSION) {
                Ok((_, Message::Batch { items, .. })) => items.are_whole(),
                Ok(_) => true,
                Err(_) => false,
            };
            // Between the head and its items a batch may end.
            let is_empty = end == whole.len() - items.len();
            assert_eq!(cut, is_empty, "{end}");
        }
        let mut newer = whole;
        newer[0] = 2;
        assert_eq!(read(&newer, 1), Err(Unreadable::Version(2)));
        assert!(read(&newer, 2).is_ok());
        newer[0] = VERSION_OLDEST - 1;
        assert_eq!(read(&newer, 2), Err(Unreadable::Version(0)));
        let short = begin(
            &ENVELOPE,
            &Head::Barrier {
                snapshot: "",
                reached: vec![1; 63],
                seen: vec![1; 64],
            },
        );
        let beyond = begin(
            &ENVELOPE,
            &Head::Mark {
                shard: 64,
                sequence: 1,
            },
        );
        for bytes in [short, beyond] {
            assert_eq!(read(&bytes, VERSION), Err(Unreadable::Malformed));
        }
    }
}
