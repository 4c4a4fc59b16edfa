//! Why there is no connection, with what the operator can do about it.

use std::fmt;

/// The most of a broker's own words that are kept.
const DETAIL_BYTES_MAX: usize = 300;

/// Why the connection to the broker failed or ended. Its `Display` is one line, and never shows the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", cause.sentence())]
pub struct BusError {
    cause: BusCause,
    detail: String,
}

/// The kinds of [`BusError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, enum_map::Enum, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum BusCause {
    /// The name is not known, the port is closed, or the network has no answer.
    Unreachable,
    /// TLS could not be agreed on, or one side expects it and the other does not.
    Tls,
    /// What answers at the address is another kind of server.
    WrongProtocol,
    /// The broker refuses the user, the password or the token.
    LoginRefused,
    /// The user may not subscribe to a subject.
    SubscribeRefused,
    /// The user may not publish on a subject.
    PublishRefused,
    /// A message is longer than the broker takes, or than this node takes from it.
    PayloadTooLarge,
    /// The broker ended the connection because this node did not read fast enough.
    SlowConsumer,
    /// The broker does not answer on an open connection.
    Silent,
    /// The broker, or the network, closed the connection.
    Closed,
    /// The broker answered with another error.
    Refused,
    /// The broker sent what its protocol does not know.
    Protocol,
    /// [`crate::Bus::reconnect`] was called.
    Requested,
}

impl BusCause {
    /// The cause as the label of a metric or the field of a log line.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.into()
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Unreachable => "the bus cannot be reached",
            Self::Tls => "TLS with the bus failed",
            Self::WrongProtocol => "the server at the bus's address is of another kind",
            Self::LoginRefused => "the bus refuses the login",
            Self::SubscribeRefused => "the bus refuses a subscription",
            Self::PublishRefused => "the bus refuses a message",
            Self::PayloadTooLarge => "a message is too long for the bus",
            Self::SlowConsumer => "the bus ended a connection that was read too slowly",
            Self::Silent => "the bus does not answer",
            Self::Closed => "the bus closed the connection",
            Self::Refused => "the bus answered with an error",
            Self::Protocol => "the bus broke its protocol",
            Self::Requested => "the connection to the bus is made anew",
        }
    }

    /// What the operator should do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "check the host and the port of the bus's URL, that the broker runs, and that no firewall is between"
            }
            Self::Tls => {
                "use rediss:// or tls:// if and only if the broker speaks TLS on this port, and check its certificate, \
                 the host's name in it, and the authority that signed it"
            }
            Self::WrongProtocol => {
                "the URL's scheme names another broker than the one at its address: redis:// and rediss:// are for \
                 Redis 6 or newer, nats:// and tls:// for NATS"
            }
            Self::LoginRefused => "check the user and the password or token of the bus's URL",
            Self::SubscribeRefused => {
                "give the user the right to subscribe to all subjects of HushNet: in Redis &hushnet.* and +subscribe, \
                 in NATS subscribe = \"hushnet.>\""
            }
            Self::PublishRefused => {
                "give the user the right to publish on all subjects of HushNet: in Redis &hushnet.* and +publish, in \
                 NATS publish = \"hushnet.>\""
            }
            Self::PayloadTooLarge => "raise NATS's max_payload, which is 1 MiB by default",
            Self::SlowConsumer => {
                "see whether this node lacks processor time or bandwidth; raise NATS's max_pending if it only has peaks"
            }
            Self::Silent => {
                "see whether the broker is stopped or overloaded, and whether the network loses packets"
            }
            Self::Closed => {
                "read the broker's log: it was restarted, or has too many clients, or, as Redis with \
                 client-output-buffer-limit pubsub, ends connections that are read too slowly"
            }
            Self::Refused | Self::Protocol => {
                "read the broker's log, and check its version: Redis 6, NATS 2 or newer"
            }
            Self::Requested => "nothing",
        }
    }
}

impl BusError {
    /// An error with what is known about it; other than printable characters are replaced.
    pub(crate) fn new(cause: BusCause, detail: impl fmt::Display) -> Self {
        let mut text = String::new();
        for character in detail.to_string().chars() {
            if text.len() + character.len_utf8() > DETAIL_BYTES_MAX {
                break;
            }
            text.push(if character.is_control() {
                ' '
            } else {
                character
            });
        }
        Self {
            cause,
            detail: text,
        }
    }

    /// The kind of error.
    #[must_use]
    pub fn cause(&self) -> BusCause {
        self.cause
    }

    /// What is known about it: the address, or the broker's own words.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What the operator should do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.cause.advice()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use enum_map::Enum;

    use super::*;

    #[test]
    fn labels_differ_and_a_server_cannot_write_lines_of_the_log() {
        let all = (0..BusCause::LENGTH).map(BusCause::from_usize);
        let labels: HashSet<_> = all.map(BusCause::label).collect();
        assert_eq!(labels.len(), BusCause::LENGTH);
        assert!(labels.contains("login_refused"), "{labels:?}");
        let error = BusError::new(BusCause::Refused, format!("a\r\nb{}", "é".repeat(1000)));
        assert!(!error.to_string().contains('\n'), "{error}");
        assert!(error.detail().len() <= DETAIL_BYTES_MAX);
    }
}
