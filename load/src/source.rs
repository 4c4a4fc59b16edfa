//! How events get to the server: through its injector or through its database.

use std::ops::Range;

use mio::Registry;
use uuid::Uuid;

use crate::cli::{Common, Usage};
use crate::commits::Commits;
use crate::inject::Injector;

#[derive(Debug)]
pub(crate) enum Source {
    Injector(Injector),
    Database(Commits),
}

impl Source {
    /// The one that was asked for, ready for events of these numbers for these users.
    pub(crate) fn open(
        common: &Common,
        registry: &Registry,
        users: &[Uuid],
        numbers: Range<u64>,
    ) -> anyhow::Result<Self> {
        match (common.inject, &common.database_url) {
            (Some(address), _) => Injector::connect(address, registry).map(Self::Injector),
            (None, Some(url)) => {
                Commits::start(url, common.writers, users, numbers).map(Self::Database)
            }
            (None, None) => Err(Usage(
                "events need a way in: give --inject or --database-url".to_owned(),
            )
            .into()),
        }
    }

    /// Events that belong together, numbered from `first` on, one for each of these users. A
    /// database gets them in one transaction.
    pub(crate) fn send(&mut self, first: u64, users: Vec<Uuid>) -> anyhow::Result<()> {
        match self {
            Self::Injector(injector) => {
                (first..)
                    .zip(users)
                    .for_each(|(number, user)| injector.add(number, user));
                Ok(())
            }
            Self::Database(commits) => commits.send(first, users),
        }
    }

    /// Passes on what was sent, as much as is taken without waiting; fails if earlier events could
    /// not be passed on.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Injector(injector) => injector.flush(),
            Self::Database(commits) => commits.check(),
        }
    }

    /// Events that the database has committed; none by way of the injector.
    pub(crate) fn committed(&self) -> u64 {
        match self {
            Self::Injector(_) => 0,
            Self::Database(commits) => commits.committed(),
        }
    }
}
