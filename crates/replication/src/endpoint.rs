//! Where a connection leads, and as whom.

use std::fmt;
use std::path::PathBuf;

/// A database, a role that has REPLICATION, and how the connection is protected. Prints without the password.
#[derive(Clone)]
pub struct Endpoint {
    /// The server's name or address; the certificate is held against it.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// The directory of the server's socket, which is used instead of the host.
    pub socket: Option<PathBuf>,
    /// The role.
    pub user: String,
    /// Its password; empty where it needs none.
    pub password: String,
    /// The database.
    pub database: String,
    /// The session's name in `pg_stat_replication`.
    pub application_name: String,
    /// What the session sets at its start, as in `-c name=value`.
    pub options: String,
    /// How the connection is protected.
    pub tls: Tls,
    /// The longest message that is taken, in bytes. A longer one ends the connection.
    pub message_bytes_max: usize,
}

/// How a connection is protected.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// What is demanded of the server.
    pub mode: TlsMode,
    /// A file in PEM with authorities beside those that are built in.
    pub root_certificate: Option<PathBuf>,
    /// Files in PEM with the client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is demanded of the server, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// No TLS.
    #[default]
    Disable,
    /// TLS if the server has it; its certificate is not verified.
    Prefer,
    /// TLS; the certificate is not verified.
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// The same, and the certificate is this host's.
    VerifyFull,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
