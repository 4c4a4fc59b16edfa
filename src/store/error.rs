//! What the service makes of the database's errors.

use std::error::Error;

use tokio_rustls::rustls::{self, CertificateError};

use super::deadline::has_passed;
use super::unusable::Unusable;
use crate::protocol::DatabaseFault;

/// Characters of an error that are shown to whoever asks.
const SUMMARY_MAX: usize = 200;

/// 42P01: no such table, also when its schema is missing.
#[must_use]
pub fn is_undefined_table(error: &sqlx::Error) -> bool {
    has_code(error, &["42P01"])
}

/// 3F000, 42P01, 42703 or 42883: no such schema, table, column or function.
#[must_use]
pub fn is_undefined(error: &sqlx::Error) -> bool {
    has_code(error, &["3F000", "42P01", "42703", "42883"])
}

/// The same, or XX000: what a statement uses was dropped while the statement began.
pub(super) fn is_gone(error: &sqlx::Error) -> bool {
    let message = error
        .as_database_error()
        .map_or("", |error| error.message());
    let is_dropped = ["could not open relation", "cache lookup failed"]
        .iter()
        .any(|beginning| message.starts_with(beginning));
    is_undefined(error) || is_dropped && has_code(error, &["XX000"])
}

/// 42883: no such function, in a schema that exists.
#[must_use]
pub fn is_undefined_function(error: &sqlx::Error) -> bool {
    has_code(error, &["42883"])
}

/// 3F000 or 42P01: no such schema or table.
#[must_use]
pub fn is_without_schema(error: &sqlx::Error) -> bool {
    has_code(error, &["3F000", "42P01"])
}

/// 42501: the role lacks a right.
#[must_use]
pub fn is_forbidden(error: &sqlx::Error) -> bool {
    has_code(error, &["42501"])
}

/// 55P03: a lock was not to be had in time.
#[must_use]
pub fn is_lock_not_available(error: &sqlx::Error) -> bool {
    has_code(error, &["55P03"])
}

/// 57014: a statement was ended, by its timeout or by somebody.
pub(super) fn is_query_canceled(error: &sqlx::Error) -> bool {
    has_code(error, &["57014"])
}

/// 08P01: PostgreSQL, or a pooler before it, takes no such message now.
pub(super) fn is_protocol_violation(error: &sqlx::Error) -> bool {
    has_code(error, &["08P01"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    code(error).is_some_and(|code| codes.contains(&&*code))
}

fn code(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
}

/// Why a statement failed.
#[must_use]
pub fn fault(error: &sqlx::Error) -> DatabaseFault {
    match error {
        sqlx::Error::Database(_) => DatabaseFault::of_sqlstate(&code(error).unwrap_or_default()),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => DatabaseFault::Unreachable,
        error if has_passed(error) => DatabaseFault::Timeout,
        error if Unusable::of(error) == Some(Unusable::Pooler) => DatabaseFault::Pooler,
        error if Unusable::of(error) == Some(Unusable::Recovery) => DatabaseFault::ReadOnly,
        _ => DatabaseFault::Other,
    }
}

/// Whether the same statement may well succeed a little later on the same database: it took too long, or the service
/// had no connection for it.
#[must_use]
pub fn may_pass(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
        || fault(error) == DatabaseFault::Timeout
}

/// The error in one short line, for answers that anyone may read. Of PostgreSQL's errors only the message and the
/// code: details, hints and statements may hold a row's values. A refused login names roles and addresses, so only
/// its code is shown.
#[must_use]
pub fn summary(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let code = code(error).unwrap_or_default();
            let fault = DatabaseFault::of_sqlstate(&code);
            let text = if fault == DatabaseFault::Login {
                "PostgreSQL refuses the login"
            } else {
                database.message()
            };
            format!("{} ({code})", one_line(text))
        }
        sqlx::Error::Io(cause) => one_line(&match of_tls(cause) {
            Some(fault) => format!("the connection failed: {fault}"),
            None => format!("the connection failed: {}", cause.kind()),
        }),
        sqlx::Error::Tls(cause) => one_line(&format!("the connection failed: {}", root(&**cause))),
        sqlx::Error::PoolTimedOut => "no connection was to be had in time".to_owned(),
        sqlx::Error::PoolClosed => "the connections were given up".to_owned(),
        error if has_passed(error) => error.to_string(),
        error => match Unusable::of(error) {
            Some(unusable) => unusable.to_string(),
            None => "the connection failed".to_owned(),
        },
    }
}

/// What is wrong with TLS, if that is the cause. Without the names that a certificate has.
fn of_tls(cause: &std::io::Error) -> Option<String> {
    use CertificateError::{BadSignature, NotValidForName, NotValidForNameContext, UnknownIssuer};
    let fault = cause.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match fault {
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "the server's certificate is of another host".to_owned()
        }
        // Of an authority that has the same name, the signature is another.
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "the server's certificate is of an unknown authority".to_owned()
        }
        fault => fault.to_string(),
    })
}

fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a dyn Error {
    error.source().map_or(error, root)
}

/// The text in one short line.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(SUMMARY_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_is_summed_up_in_one_short_line() {
        assert_eq!(one_line("a\n\tb\u{7}  c"), "a b c");
        let long = one_line(&"é".repeat(SUMMARY_MAX + 1));
        assert_eq!(long.chars().count(), SUMMARY_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn an_error_that_is_not_postgresql_s_keeps_its_text_to_itself() {
        let text = "postgres://app:secret@host/db";
        let io = sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionRefused, text));
        let configuration = sqlx::Error::Configuration(text.into());
        for (error, fault_of) in [
            (io, DatabaseFault::Unreachable),
            (configuration, DatabaseFault::Other),
        ] {
            let summary = summary(&error);
            assert!(!summary.contains("secret"), "{summary}");
            assert!(summary.starts_with("the connection failed"), "{summary}");
            assert_eq!(fault(&error), fault_of);
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_says_why() {
        for (unusable, fault_of) in [
            (Unusable::Pooler, DatabaseFault::Pooler),
            (Unusable::Recovery, DatabaseFault::ReadOnly),
        ] {
            let error = sqlx::Error::from(unusable);
            assert_eq!(summary(&error), unusable.to_string());
            assert_eq!(fault(&error), fault_of);
        }
    }
}
