//! What can go wrong with the private PostgreSQL, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::MAJOR_MIN;

/// Why there is no private PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// No server to run.
    #[error(
        "found no server of PostgreSQL {MAJOR_MIN} or newer in /usr/lib/postgresql/*/bin, in \
         `pg_config --bindir` or in PATH: install one (Debian and Ubuntu: apt-get install \
         postgresql), or name a database of your own with --database-url"
    )]
    NotInstalled,

    /// Data of one major version are unreadable to every other.
    #[error(
        "the cluster {data} was made by PostgreSQL {major}, whose server is not installed: install \
         that version, or remove the cluster with all that is in it"
    )]
    OtherVersion {
        /// The cluster's directory.
        data: PathBuf,
        /// The version that made it.
        major: String,
    },

    /// A living service holds the directory.
    #[error(
        "another hushnet-realtime runs on {directory}: stop it first, or choose another directory"
    )]
    InUse {
        /// The directory that was asked for.
        directory: PathBuf,
    },

    /// PostgreSQL refuses root, and there is no one else.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has no account postgres or nobody to run \
         it under: run hushnet-realtime as another account"
    )]
    NoAccount,

    /// A step on files or processes failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The step, as a verb.
        what: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },

    /// initdb failed.
    #[error("initdb made no cluster in {data} ({status}):\n{output}")]
    Initdb {
        /// The directory that it was to fill.
        data: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },

    /// The server ended, or was not ready in time.
    #[error("PostgreSQL did not start: {why}; the end of {log}:\n{tail}")]
    NotStarted {
        /// What was seen instead.
        why: String,
        /// The log's path.
        log: PathBuf,
        /// Its last lines, of this start only.
        tail: String,
    },

    /// The server did not end in time.
    #[error("PostgreSQL on {data} did not stop within {} s", .after.as_secs())]
    NotStopped {
        /// The cluster's directory.
        data: PathBuf,
        /// How long was waited.
        after: Duration,
    },

    /// The server runs and refuses what was asked.
    #[error("cannot create database {name:?} in the private PostgreSQL: {source}")]
    Database {
        /// The database's name.
        name: String,
        /// PostgreSQL's answer.
        source: sqlx::Error,
    },
}

impl EmbeddedError {
    /// For `map_err`: the step and what it was tried on.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
