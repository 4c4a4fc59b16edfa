//! The errors of the settings, each with what to do about it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{JwtAlgorithm, KeysUrl};

/// Settings that contradict one another or miss something.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No database was named.
    #[error(
        "no database: set DATABASE_URL, or PGHOST and PGDATABASE, or give --database-url \
         postgres://user:password@host:port/name"
    )]
    NoDatabase,
    /// libpq's variables name a database, and one of them cannot be used.
    #[error("the database that libpq's variables name: {cause}")]
    BadVariables {
        /// What is wrong, without any value.
        cause: String,
    },
    /// Without authentication only loopback is safe.
    #[error(
        "--listen {0} can be reached from other machines, and nothing proves who a client is: whoever \
         knows a user's id would get that user's events; listen on 127.0.0.1, or say \
         --insecure-no-auth if something in front of this server checks identities"
    )]
    NotLoopback(SocketAddr),
    /// Tokens are accepted, and no algorithm is set.
    #[error("--auth jwt needs --jwt-algorithm: HS256, RS256, ES256 or EdDSA")]
    NoJwtAlgorithm,
    /// Tokens are accepted, and no key is set, or more than one.
    #[error("--auth jwt needs one of --jwt-key, --jwt-key-file and --jwt-jwks-url")]
    OneJwtKey,
    /// A token cannot be made: only the key to check it with is set.
    #[error("--signing-key-file must name the private key, in PEM")]
    NoSigningKey,
    /// A secret that could be guessed.
    #[error("the secret for HS256 must have {bytes_min} bytes or more")]
    ShortSecret {
        /// How many bytes it needs.
        bytes_min: usize,
    },
    /// A key that the algorithm cannot use.
    #[error("the key for {algorithm:?} is no public key in PEM: {cause}")]
    BadJwtKey {
        /// The algorithm.
        algorithm: JwtAlgorithm,
        /// What is wrong.
        cause: String,
    },
    /// A URL that keys cannot be fetched from.
    #[error("--jwt-jwks-url {url}: {cause}")]
    BadJwksUrl {
        /// The URL, which is printed without its secrets.
        url: KeysUrl,
        /// What is wrong.
        cause: String,
    },
    /// A certificate without a key, or a key without a certificate.
    #[error("TLS needs both --tls-certificate-file and --tls-key-file")]
    HalfTls,
    /// A file that holds no certificate or no key.
    #[error("cannot serve TLS with {}: {cause}", path.display())]
    BadPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: line {line}: {cause}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where. The line itself may hold a password.
        line: usize,
        /// Why.
        cause: String,
    },
    /// An unknown key.
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
    /// A variable with the prefix of settings that is no setting.
    #[error("unknown environment variable {name}; known: {known}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// Every setting's variable.
        known: String,
    },
}
