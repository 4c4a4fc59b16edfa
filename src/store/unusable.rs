//! Why the service may not use an address, as an error among the others.

/// Why the service may not use an address, although PostgreSQL answers there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error(
        "a pooler gives this session's connection to others: connect directly to PostgreSQL, or through a pooler in \
         session mode"
    )]
    Pooler,
    #[error("the database is in recovery: it takes no writes and no LISTEN")]
    Recovery,
}

impl Unusable {
    /// The reason in this error, if it is one.
    pub(super) fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Configuration(cause) => cause.downcast_ref().copied(),
            _ => None,
        }
    }
}

impl From<Unusable> for sqlx::Error {
    fn from(unusable: Unusable) -> Self {
        Self::Configuration(Box::new(unusable))
    }
}
