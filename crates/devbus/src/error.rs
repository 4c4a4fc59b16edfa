//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

/// Why a broker did not start, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The server's program is not on this machine.
    #[error("{program} is not installed: run sh scripts/setup.sh test")]
    NotInstalled {
        /// Its name.
        program: &'static str,
    },
    /// A file or a program could not be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no free port.
    #[error("no free port was found")]
    NoPort,
    /// The server did not do what its operator asked of it.
    #[error("the server on port {port} answered {command}: {answer}")]
    Command {
        /// Its port.
        port: u16,
        /// What was asked.
        command: String,
        /// What it said.
        answer: String,
    },
    /// The server ended, or does not accept connections.
    #[error("{program} does not serve port {port}; its log ends with:\n{log}")]
    Start {
        /// The server's program.
        program: &'static str,
        /// Its port.
        port: u16,
        /// The end of its log.
        log: String,
    },
}

impl BrokerError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
