//! Why the private PostgreSQL cannot be used, with what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::binaries::{DIRECTORY_VARIABLE, MAJOR_MIN};

/// Why the private PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No server program was found.
    #[error(
        "found no server of PostgreSQL {MAJOR_MIN} or newer in /usr/lib/postgresql/*/bin, in \
         `pg_config --bindir` or in PATH, or in the directory that {DIRECTORY_VARIABLE} names if it is set: \
         install one (Debian and Ubuntu: apt-get install postgresql), or name a database of your own with \
         --database-url"
    )]
    NotInstalled,

    /// A server can only read the data of its own major version.
    #[error(
        "the cluster {data} was made by PostgreSQL {major}, whose server is not installed: install \
         that version, or remove the cluster with all that is in it"
    )]
    OtherVersion {
        /// The data directory.
        data: PathBuf,
        /// The version that created it.
        major: String,
    },

    /// Another living service uses the directory.
    #[error(
        "another hushnet-realtime runs on {directory}: stop it first, or choose another directory"
    )]
    InUse {
        /// The directory that was asked for.
        directory: PathBuf,
    },

    /// The service runs as root, PostgreSQL refuses to, and there is no other user to run it as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has no account postgres or nobody to run \
         it under: run hushnet-realtime as another account"
    )]
    NoAccount,

    /// An operation on a file or a process failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// initdb failed.
    #[error("initdb made no cluster in {data} ({status}):\n{output}")]
    Initdb {
        /// The directory that it should have filled.
        data: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// Its output.
        output: String,
    },

    /// The server ended, or was not ready in time.
    #[error("PostgreSQL did not start: {why}; the end of {log}:\n{tail}")]
    NotStarted {
        /// What happened instead.
        why: String,
        /// The log's path.
        log: PathBuf,
        /// The last lines that the server wrote during this start.
        tail: String,
    },

    /// The server did not end in time.
    #[error("PostgreSQL on {data} did not stop within {} s", .after.as_secs())]
    NotStopped {
        /// The data directory.
        data: PathBuf,
        /// How long the service waited.
        after: Duration,
    },

    /// The server runs, and refused to create a database.
    #[error("cannot create database {name:?} in the private PostgreSQL: {source}")]
    Database {
        /// The database's name.
        name: String,
        /// PostgreSQL's error.
        source: sqlx::Error,
    },
}

impl ClusterError {
    /// For `map_err`: the operation, as a verb, and the file or program.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
