//! What can be wrong with the settings.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings that contradict one another or miss something.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No database was named.
    #[error(
        "no database: set DATABASE_URL or give --database-url postgres://user:password@host:port/name"
    )]
    NoDatabase,
    /// Without authentication only loopback is safe.
    #[error(
        "--listen {0} can be reached from other machines, and nothing proves who a client is: whoever \
         knows a user's id would get that user's events; listen on 127.0.0.1, or say \
         --insecure-no-auth if something in front of this server checks identities"
    )]
    NotLoopback(SocketAddr),
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {cause}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        cause: toml::de::Error,
    },
    /// A key that is no setting.
    #[error("{}: unknown key {key}; known: {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Every setting's name.
        known: String,
    },
    /// A key whose value is a table or a date.
    #[error("{}: {key} takes a text, a number or true or false", path.display())]
    NotScalar {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that the setting does not admit.
    #[error("{}: {cause}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// What is wrong and what is allowed.
        cause: String,
    },
    /// A variable that looks like a setting and is none.
    #[error("unknown environment variable {name}; known: {known}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// Every setting's variable.
        known: String,
    },
}
