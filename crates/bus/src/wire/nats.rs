//! NATS: the client protocol, without headers.

use std::collections::{HashMap, VecDeque};

use bytes::{BufMut, Bytes};
use serde::Deserialize;
use watermelon_proto::error::ServerError;
use watermelon_proto::headers::HeaderMap;
use watermelon_proto::proto::{ClientOp, ServerOp, StreamDecoder, StreamEncoder};
use watermelon_proto::{Connect, MessageBase, NonStandardConnect, ServerMessage};

use super::contract::{Incoming, Unfinished, Wire, wrong_protocol};
use crate::error::{BusCause, BusError};
use crate::subject::Subject;
use crate::url::Login;

/// The connection's name in the server's monitoring.
const CLIENT_NAME: &str = "hushnet";
/// Version 0: INFO comes once. The server's later ones tell of a cluster's other servers, which the URL names.
const PROTOCOL: u8 = 0;

/// What is needed of the server's first line. The codec's own type refuses a server that calls itself by a name.
#[derive(Debug, Deserialize)]
pub(crate) struct NatsInfo {
    pub(crate) max_payload: usize,
    #[serde(default)]
    pub(crate) tls_required: bool,
    #[serde(default)]
    pub(crate) tls_available: bool,
}

impl NatsInfo {
    /// Reads the first line, without its end.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, BusError> {
        let Some(json) = line.strip_prefix(b"INFO ") else {
            return Err(wrong_protocol("NATS", line));
        };
        let info = serde_json::from_slice(json);
        info.map_err(|error| BusError::new(BusCause::Protocol, format!("INFO: {error}")))
    }
}

/// A client's end of NATS.
#[derive(Debug, Default)]
pub(crate) struct NatsWire {
    decoder: StreamDecoder,
    unfinished: Unfinished,
    out: StreamEncoder,
    /// By the numbers of the subscriptions.
    subjects: HashMap<u64, Subject>,
    numbers: HashMap<Subject, u64>,
    subscriptions: u64,
    /// The PONGs that the server owes, in order.
    owed: VecDeque<Pong>,
    /// Of a PONG that confirms several subscriptions.
    confirmed: VecDeque<Subject>,
}

#[derive(Debug)]
enum Pong {
    Ping,
    /// Answers a PING that was sent after these subscriptions.
    Subscribed(Vec<Subject>),
}

impl NatsWire {
    /// Writes the login.
    pub(crate) fn connect(&mut self, login: &Login, is_tls: bool) {
        let (username, password, auth_token) = match login.clone() {
            Login::None => (None, None, None),
            Login::Password { user, password } => (user, Some(password), None),
            Login::Token(token) => (None, None, Some(token)),
        };
        let connect = Connect {
            // No +OK. In a debug build the codec also panics at one that comes in two parts.
            verbose: false,
            pedantic: false,
            require_tls: is_tls,
            auth_token,
            username,
            password,
            client_name: Some(CLIENT_NAME.to_owned()),
            client_lang: "rust",
            client_version: env!("CARGO_PKG_VERSION"),
            protocol: PROTOCOL,
            echo: true,
            signature: None,
            jwt: None,
            supports_no_responders: false,
            supports_headers: false,
            nkey: None,
            non_standard: NonStandardConnect::default(),
        };
        self.out.enqueue_write_op(&ClientOp::Connect {
            connect: Box::new(connect),
        });
        self.ping();
    }

    /// Whether the login is accepted; `None` until more is fed.
    pub(crate) fn login_answer(&mut self) -> Result<Option<()>, BusError> {
        match self.next()? {
            Some(Incoming::Pong) => Ok(Some(())),
            Some(_) => Err(protocol("a message before the login")),
            None => Ok(None),
        }
    }

    fn message(&self, message: &ServerMessage) -> Option<Incoming> {
        // None: it was on its way when the subscription was ended.
        let subject = self.subjects.get(&message.subscription_id.into())?.clone();
        // A copy: the original would keep the whole read buffer.
        let payload = Bytes::copy_from_slice(&message.base.payload);
        Some(Incoming::Message { subject, payload })
    }

    fn pong(&mut self) -> Result<Option<Incoming>, BusError> {
        match self.owed.pop_front() {
            Some(Pong::Ping) => Ok(Some(Incoming::Pong)),
            Some(Pong::Subscribed(subjects)) => {
                self.confirmed = subjects.into();
                Ok(self.confirmed.pop_front().map(Incoming::Subscribed))
            }
            None => Err(protocol("a PONG that was not asked for")),
        }
    }
}

impl Wire for NatsWire {
    type Out = StreamEncoder;

    fn publish(&mut self, subject: &Subject, payload: Bytes) {
        let message = MessageBase {
            subject: name(subject),
            reply_subject: None,
            headers: HeaderMap::new(),
            payload,
        };
        self.out.enqueue_write_op(&ClientOp::Publish { message });
    }

    fn change(&mut self, unsubscribe: &[Subject], subscribe: Vec<Subject>) {
        for subject in unsubscribe {
            if let Some(number) = self.numbers.remove(subject) {
                self.subjects.remove(&number);
                self.out.enqueue_write_op(&ClientOp::Unsubscribe {
                    id: number.into(),
                    max_messages: None,
                });
            }
        }
        if subscribe.is_empty() {
            return;
        }
        for subject in &subscribe {
            self.subscriptions += 1;
            self.subjects.insert(self.subscriptions, subject.clone());
            self.numbers.insert(subject.clone(), self.subscriptions);
            self.out.enqueue_write_op(&ClientOp::Subscribe {
                id: self.subscriptions.into(),
                subject: name(subject),
                queue_group: None,
            });
        }
        self.out.enqueue_write_op(&ClientOp::Ping);
        self.owed.push_back(Pong::Subscribed(subscribe));
    }

    fn is_confirming(&self) -> bool {
        let mut owed = self.owed.iter();
        !self.confirmed.is_empty() || owed.any(|pong| matches!(pong, Pong::Subscribed(_)))
    }

    fn ping(&mut self) {
        self.out.enqueue_write_op(&ClientOp::Ping);
        self.owed.push_back(Pong::Ping);
    }

    fn outgoing(&mut self) -> &mut StreamEncoder {
        &mut self.out
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.unfinished.fed(bytes);
        self.decoder.read_buf().put_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Incoming>, BusError> {
        if let Some(subject) = self.confirmed.pop_front() {
            return Ok(Some(Incoming::Subscribed(subject)));
        }
        loop {
            let Some(operation) = self.decoder.decode().map_err(undecodable)? else {
                self.unfinished.check()?;
                return Ok(None);
            };
            self.unfinished.finished();
            let incoming = match operation {
                ServerOp::Message { message } => self.message(&message),
                ServerOp::Pong => self.pong()?,
                ServerOp::Ping => {
                    self.out.enqueue_write_op(&ClientOp::Pong);
                    None
                }
                ServerOp::Error { error } => return Err(refused(&error)),
                ServerOp::Success | ServerOp::Info { .. } => None,
            };
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
    }
}

/// A [`Subject`] is one of NATS, too.
fn name(subject: &Subject) -> watermelon_proto::Subject {
    watermelon_proto::Subject::from_dangerous_value(subject.text().clone())
}

fn refused(error: &ServerError) -> BusError {
    let cause = match error {
        ServerError::AuthorizationViolation | ServerError::AuthorizationTimeout => {
            BusCause::LoginRefused
        }
        // "User Authentication Expired" and its like.
        ServerError::Other { raw_message } if raw_message.contains("Authentication") => {
            BusCause::LoginRefused
        }
        ServerError::SubscribePermissionViolation => BusCause::SubscribeRefused,
        ServerError::PublishPermissionViolation => BusCause::PublishRefused,
        ServerError::MaximumPayloadViolation => BusCause::PayloadTooLarge,
        ServerError::SlowConsumer => BusCause::SlowConsumer,
        ServerError::TlsRequired => BusCause::Tls,
        ServerError::ConnectionAttemptedToWrongPort => BusCause::WrongProtocol,
        ServerError::StaleConnection => BusCause::Closed,
        _ => BusCause::Refused,
    };
    BusError::new(cause, error)
}

fn undecodable(error: impl std::error::Error) -> BusError {
    match error.source() {
        Some(source) => protocol(format!("{error}: {source}")),
        None => protocol(error),
    }
}

fn protocol(detail: impl std::fmt::Display) -> BusError {
    BusError::new(BusCause::Protocol, detail)
}
