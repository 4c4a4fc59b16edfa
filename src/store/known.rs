//! Statements for each schema that a database may have, of which the first that it knows is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::error::{is_forbidden, is_undefined};

/// Which of several statements the database knew last, so that it is not asked in vain each time. Cheap to clone; every
/// clone knows the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<AtomicUsize>);

impl Known {
    /// Begins to try these statements: the one that the database knew last, then all in their order.
    pub(super) fn attempts<'a>(&'a self, statements: &'a [&'static str]) -> Attempts<'a> {
        let last = self.0.load(Relaxed);
        Attempts {
            known: self,
            statements,
            last: (last > 0 && last < statements.len()).then_some(last),
            next: 0,
            tried: 0,
            refused: None,
        }
    }
}

/// The statements that are being tried.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    known: &'a Known,
    statements: &'a [&'static str],
    /// Tried before the others.
    last: Option<usize>,
    next: usize,
    tried: usize,
    refused: Option<sqlx::Error>,
}

impl Attempts<'_> {
    /// The next statement; `None` if all were tried.
    pub(super) fn next(&mut self) -> Option<&'static str> {
        self.tried = self.last.take().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.statements.get(self.tried).copied()
    }

    /// Takes the answer to that statement. Returns it, unless the statement names what the database does not have or
    /// the role may not use.
    pub(super) fn take<T>(
        &mut self,
        answer: Result<T, sqlx::Error>,
    ) -> Option<Result<T, sqlx::Error>> {
        match answer {
            Err(error) if is_undefined(&error) || is_forbidden(&error) => {
                if !self.refused.as_ref().is_some_and(is_forbidden) {
                    self.refused = Some(error);
                }
                None
            }
            answer => {
                self.known.0.store(self.tried, Relaxed);
                Some(answer)
            }
        }
    }

    /// Why the database took none of the statements: the role lacks a right, or the last error.
    pub(super) fn refused(self) -> sqlx::Error {
        self.refused.unwrap_or(sqlx::Error::RowNotFound)
    }
}
