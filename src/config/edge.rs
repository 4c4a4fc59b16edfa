//! The settings of the edge: how the service is reached.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Origins;

/// How the service is reached; `edge/` and `http/` act on it.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Edge")]
pub struct EdgeSettings {
    /// The trusted proxies begin each connection with the PROXY protocol, version 1 or 2
    #[arg(long, env = "HUSHNET_PROXY_PROTOCOL", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub proxy_protocol: bool,

    /// Serve `/metrics` also at `listen`. Without this setting it is served there while `auth` is `none` and
    /// `metrics_listen` is not set
    #[arg(long, env = "HUSHNET_METRICS", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<bool>,

    /// An address of its own for `/metrics`, `/healthz` and `/readyz`. `/metrics` is then there alone, unless
    /// `metrics` is `true`
    #[arg(long, env = "HUSHNET_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,

    /// Serve TLS with this certificate chain in PEM. Read again at SIGHUP
    #[arg(long, env = "HUSHNET_TLS_CERTIFICATE_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate_file: Option<PathBuf>,

    /// The private key of that certificate, in PEM
    #[arg(long, env = "HUSHNET_TLS_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<PathBuf>,

    /// Origins of web pages that may connect beside those of the same host, with commas between. `*` for
    /// all
    #[arg(
        long,
        env = "HUSHNET_ALLOWED_ORIGINS",
        value_name = "ORIGINS",
        default_value = ""
    )]
    pub allowed_origins: Origins,

    /// Serve the page at `/console`, to watch a user's events with. Without this setting `run` does while
    /// `auth` is `none`, and `serve` does not
    #[arg(long, env = "HUSHNET_CONSOLE", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<bool>,

    /// Whether the database is that of `run`, with demo users whom the page may act for.
    #[arg(skip)]
    #[serde(skip)]
    pub demo: bool,
}

impl EdgeSettings {
    /// What an address of the service begins with.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self.tls_certificate_file {
            Some(_) => "https",
            None => "http",
        }
    }
}
