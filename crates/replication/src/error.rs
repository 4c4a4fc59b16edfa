//! What can go wrong, with what PostgreSQL said.

use std::{fmt, io};

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// Why the connection cannot be used, or ended. Only after [`Error::Server`] in answer to a query can it be used on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, or the connection broke.
    #[error("the connection: {0}")]
    Io(#[from] io::Error),
    /// TLS could not be agreed on.
    #[error("TLS: {0}")]
    Tls(String),
    /// The server asks for a proof that is not known.
    #[error("authentication: {0}")]
    Login(String),
    /// PostgreSQL refused.
    #[error("{0}")]
    Server(ServerError),
    /// PostgreSQL sent what is none of its protocol.
    #[error("the protocol: {0}")]
    Protocol(&'static str),
    /// A message is longer than is taken.
    #[error("a message of {bytes} bytes, and at most {bytes_max} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// PostgreSQL ended the connection without a word.
    #[error("PostgreSQL closed the connection")]
    Closed,
}

/// An error of PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// More about it; empty where PostgreSQL says no more.
    pub detail: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            message,
            detail,
        } = self;
        write!(f, "{message} ({code})")?;
        if detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {detail}")
    }
}

impl Error {
    /// The SQLSTATE of PostgreSQL's error.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    pub(crate) fn server(mut fields: ErrorFields<'_>) -> Self {
        let mut error = ServerError::default();
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                _ => {}
            }
        }
        Self::Server(error)
    }
}
