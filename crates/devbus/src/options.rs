//! How a broker is started.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The kind of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// `redis-server`.
    Redis,
    /// `nats-server`.
    Nats,
}

/// How a broker is started. By default without a password, without TLS, with the server's own limits.
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// More lines of the server's configuration file: for Redis also `user` lines, its access control list.
    pub configuration: String,
    /// The server speaks only TLS.
    pub tls: Option<BrokerTls>,
}

/// The server's certificate. No certificate is asked of clients.
#[derive(Debug, Clone)]
pub struct BrokerTls {
    /// A file in PEM with the certificate.
    pub certificate: PathBuf,
    /// A file in PEM with its key.
    pub key: PathBuf,
}

impl BrokerKind {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Nats => "nats-server",
        }
    }

    /// The server's configuration file.
    pub(crate) fn configuration(
        self,
        port: u16,
        directory: &Path,
        options: &BrokerOptions,
    ) -> String {
        match self {
            Self::Redis => redis(port, directory, options),
            Self::Nats => nats(port, options),
        }
    }
}

fn redis(port: u16, directory: &Path, options: &BrokerOptions) -> String {
    let mut text = format!(
        "bind 127.0.0.1\nsave \"\"\nappendonly no\ndir \"{}\"\n",
        directory.display()
    );
    // Writing into a String cannot fail.
    let _ = match &options.tls {
        None => writeln!(text, "port {port}"),
        Some(BrokerTls { certificate, key }) => writeln!(
            text,
            "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file \"{certificate}\"\n\
             tls-key-file \"{key}\"\ntls-ca-cert-file \"{certificate}\"",
            certificate = certificate.display(),
            key = key.display(),
        ),
    };
    text + &options.configuration
}

fn nats(port: u16, options: &BrokerOptions) -> String {
    let mut text = format!("listen: \"127.0.0.1:{port}\"\n");
    if let Some(BrokerTls { certificate, key }) = &options.tls {
        let _ = writeln!(
            text,
            "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
            certificate.display(),
            key.display(),
        );
    }
    text + &options.configuration
}
