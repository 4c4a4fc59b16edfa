//! Redis: RESP3, where what is published to this node comes between the answers to its commands.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::str;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode_bytes_mut;
use redis_protocol::resp3::types::BytesFrame;

use super::contract::{Incoming, Unfinished, Wire, wrong_protocol};
use crate::error::{BusCause, BusError};
use crate::subject::Subject;
use crate::url::Login;

/// The connection's name in CLIENT LIST.
const CLIENT_NAME: &[u8] = b"hushnet";
/// The user of a password without a name.
const DEFAULT_USER: &str = "default";

/// A client's end of RESP3.
#[derive(Debug, Default)]
pub(crate) struct RedisWire {
    received: BytesMut,
    unfinished: Unfinished,
    out: BytesMut,
    subjects: HashSet<Subject>,
    /// The answers that the broker owes, in order; neighbours of a kind are one entry, so that a few entries are enough.
    owed: VecDeque<(Answer, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Publish,
    Subscribe,
    Unsubscribe,
    Ping,
}

impl RedisWire {
    /// Writes the login.
    pub(crate) fn hello(&mut self, login: &Login) {
        let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Login::Password { user, password } = login {
            let user = user.as_deref().unwrap_or(DEFAULT_USER);
            words.extend([b"AUTH".as_slice(), user.as_bytes(), password.as_bytes()]);
        }
        words.extend([b"SETNAME".as_slice(), CLIENT_NAME]);
        self.command(&words);
    }

    /// Whether the login is accepted; `None` until more is fed.
    pub(crate) fn login_answer(&mut self) -> Result<Option<()>, BusError> {
        self.unfinished.check()?;
        let Some(first) = self.received.first() else {
            return Ok(None);
        };
        // NATS's answer to HELLO, where its first line has been lost.
        let is_nats = self.received.starts_with(b"-ERR 'Unknown Protocol");
        if !matches!(first, b'%' | b'-') || is_nats {
            return Err(wrong_protocol("Redis", &self.received));
        }
        match self.frame()? {
            None => Ok(None),
            Some(BytesFrame::Map { .. }) => Ok(Some(())),
            Some(BytesFrame::SimpleError { data, .. }) => {
                let cause = match code(&data) {
                    "NOAUTH" | "WRONGPASS" => BusCause::LoginRefused,
                    _ => BusCause::Refused,
                };
                Err(BusError::new(cause, &*data))
            }
            Some(_) => Err(protocol("the answer to HELLO is of another kind")),
        }
    }

    fn command(&mut self, words: &[&[u8]]) {
        // Writing into the buffer cannot fail.
        let _ = write!(self.out, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(self.out, "${}\r\n", word.len());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn owe(&mut self, answer: Answer, count: usize) {
        match self.owed.back_mut() {
            Some((last, owed)) if *last == answer => *owed += count,
            _ => self.owed.push_back((answer, count)),
        }
    }

    /// The kind of the next answer that is owed, which has come.
    fn settle(&mut self) -> Option<Answer> {
        let (answer, owed) = self.owed.front_mut()?;
        let answer = *answer;
        *owed -= 1;
        if *owed == 0 {
            self.owed.pop_front();
        }
        Some(answer)
    }

    fn frame(&mut self) -> Result<Option<BytesFrame>, BusError> {
        match decode_bytes_mut(&mut self.received) {
            Ok(Some((frame, _, _))) => {
                self.unfinished.finished();
                Ok(Some(frame))
            }
            Ok(None) => {
                self.unfinished.check()?;
                Ok(None)
            }
            Err(error) => Err(protocol(error)),
        }
    }

    /// What an answer to a command says.
    fn answer(&mut self, frame: &BytesFrame) -> Result<Option<Incoming>, BusError> {
        let owed = self.settle();
        match (frame, owed) {
            (BytesFrame::SimpleError { data, .. }, owed) => Err(refused(data, owed)),
            (BytesFrame::Number { .. }, Some(Answer::Publish)) => Ok(None),
            (BytesFrame::SimpleString { .. }, Some(Answer::Ping)) => Ok(Some(Incoming::Pong)),
            _ => Err(protocol("an answer that was not asked for")),
        }
    }

    /// What comes without having been asked for, and the answers to SUBSCRIBE and UNSUBSCRIBE.
    fn push(&mut self, parts: &[BytesFrame]) -> Result<Option<Incoming>, BusError> {
        let [BytesFrame::BlobString { data: kind, .. }, rest @ ..] = parts else {
            return Err(protocol("a push without a kind"));
        };
        let [BytesFrame::BlobString { data: channel, .. }, rest @ ..] = rest else {
            // Of a feature that nobody asked for.
            return Ok(None);
        };
        let subject = str::from_utf8(channel)
            .ok()
            .and_then(|text| self.subjects.get(text).cloned());
        match (&**kind, rest) {
            (b"message", [BytesFrame::BlobString { data: payload, .. }]) => {
                // A copy: the original would keep the whole read buffer.
                let payload = Bytes::copy_from_slice(payload);
                Ok(subject.map(|subject| Incoming::Message { subject, payload }))
            }
            (b"subscribe", _) => match self.settle() {
                Some(Answer::Subscribe) => Ok(subject.map(Incoming::Subscribed)),
                _ => Err(protocol("a subscription that was not asked for")),
            },
            (b"unsubscribe", _) => {
                if self
                    .owed
                    .front()
                    .is_some_and(|(next, _)| *next == Answer::Unsubscribe)
                {
                    self.settle();
                    return Ok(None);
                }
                Ok(subject.map(|subject| {
                    self.subjects.remove(&subject);
                    Incoming::Unsubscribed(subject)
                }))
            }
            _ => Ok(None),
        }
    }
}

impl Wire for RedisWire {
    type Out = BytesMut;

    fn publish(&mut self, subject: &Subject, payload: Bytes) {
        self.command(&[b"PUBLISH", subject.as_str().as_bytes(), &payload]);
        self.owe(Answer::Publish, 1);
    }

    fn change(&mut self, unsubscribe: &[Subject], subscribe: Vec<Subject>) {
        let names = |subjects: &[Subject]| -> Vec<Subject> { subjects.to_vec() };
        for (command, answer, subjects) in [
            ("UNSUBSCRIBE", Answer::Unsubscribe, names(unsubscribe)),
            ("SUBSCRIBE", Answer::Subscribe, names(&subscribe)),
        ] {
            if subjects.is_empty() {
                continue;
            }
            let mut words = vec![command.as_bytes()];
            words.extend(subjects.iter().map(|subject| subject.as_str().as_bytes()));
            self.command(&words);
            self.owe(answer, subjects.len());
        }
        for subject in unsubscribe {
            self.subjects.remove(subject);
        }
        self.subjects.extend(subscribe);
    }

    fn is_confirming(&self) -> bool {
        let mut owed = self.owed.iter();
        owed.any(|(answer, _)| matches!(answer, Answer::Subscribe | Answer::Unsubscribe))
    }

    fn ping(&mut self) {
        self.command(&[b"PING"]);
        self.owe(Answer::Ping, 1);
    }

    fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.unfinished.fed(bytes);
        self.received.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Incoming>, BusError> {
        while let Some(frame) = self.frame()? {
            let incoming = match &frame {
                BytesFrame::Push { data, .. } => self.push(data)?,
                answer => self.answer(answer)?,
            };
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
        Ok(None)
    }
}

/// The first word of an error.
fn code(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

fn refused(text: &str, owed: Option<Answer>) -> BusError {
    let cause = match (code(text), owed) {
        ("NOPERM", Some(Answer::Publish)) => BusCause::PublishRefused,
        ("NOPERM", Some(Answer::Subscribe | Answer::Unsubscribe)) => BusCause::SubscribeRefused,
        ("NOAUTH", _) => BusCause::LoginRefused,
        _ => BusCause::Refused,
    };
    BusError::new(cause, text)
}

fn protocol(detail: impl std::fmt::Display) -> BusError {
    BusError::new(BusCause::Protocol, detail)
}
