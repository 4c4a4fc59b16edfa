//! What messages are published on.

use std::borrow::Borrow;
use std::fmt;

use bytestring::ByteString;

/// The longest subject.
pub const SUBJECT_BYTES_MAX: usize = 200;

/// A subject: tokens of `[A-Za-z0-9_-]` joined by dots, at most [`SUBJECT_BYTES_MAX`] bytes. It has no wildcards, and
/// means the same to Redis and to NATS. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(ByteString);

/// Why a text is no subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It is too long.
    #[error("a subject has at most {SUBJECT_BYTES_MAX} bytes")]
    TooLong,
    /// It, or a part between dots, is empty.
    #[error("a subject is made of tokens joined by dots, none of which is empty")]
    EmptyToken,
    /// It has another character.
    #[error("a token of a subject is made of the characters A-Z, a-z, 0-9, _ and -")]
    Character,
}

impl Subject {
    /// The subject that the text names.
    pub fn new(text: &str) -> Result<Self, SubjectError> {
        if text.len() > SUBJECT_BYTES_MAX {
            return Err(SubjectError::TooLong);
        }
        for token in text.split('.') {
            if token.is_empty() {
                return Err(SubjectError::EmptyToken);
            }
            let is_allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if !token.bytes().all(is_allowed) {
                return Err(SubjectError::Character);
            }
        }
        Ok(Self(ByteString::from(text)))
    }

    /// The subject's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub(crate) fn text(&self) -> &ByteString {
        &self.0
    }
}

impl Borrow<str> for Subject {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_joined_by_dots_are_subjects() {
        for text in [
            "a",
            "hushnet.h-1_2.shard.63",
            &"x".repeat(SUBJECT_BYTES_MAX),
        ] {
            assert_eq!(Subject::new(text).unwrap().as_str(), text);
        }
        for (text, error) in [
            ("", SubjectError::EmptyToken),
            (".", SubjectError::EmptyToken),
            ("a..b", SubjectError::EmptyToken),
            ("a.", SubjectError::EmptyToken),
            ("a.*", SubjectError::Character),
            ("a.>", SubjectError::Character),
            ("a b", SubjectError::Character),
            ("a\r\nb", SubjectError::Character),
            ("ä", SubjectError::Character),
            (&"x".repeat(SUBJECT_BYTES_MAX + 1), SubjectError::TooLong),
        ] {
            assert_eq!(Subject::new(text).unwrap_err(), error, "{text:?}");
        }
    }
}
