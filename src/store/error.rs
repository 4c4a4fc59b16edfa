//! The database's errors that the service acts on, by their SQLSTATE.

/// 42P01: no such table, also when its schema is missing.
#[must_use]
pub fn is_undefined_table(error: &sqlx::Error) -> bool {
    has_code(error, &["42P01"])
}

/// 3F000, 42P01 or 42883: no such schema, table or function.
pub(super) fn is_undefined(error: &sqlx::Error) -> bool {
    has_code(error, &["3F000", "42P01", "42883"])
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

/// 55P03: a lock was not to be had in time.
#[must_use]
pub fn is_lock_not_available(error: &sqlx::Error) -> bool {
    has_code(error, &["55P03"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| codes.contains(&&*code))
}
