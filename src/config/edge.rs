//! The settings of the edge: how the service is reached.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::{Serialize, Serializer};

/// How the service is reached; `edge/` and `http/` act on it.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Edge")]
pub struct EdgeSettings {
    /// The trusted proxies begin each connection with the PROXY protocol, version 1 or 2
    #[arg(long, env = "HUSHNET_PROXY_PROTOCOL", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub proxy_protocol: bool,

    /// An address of its own for `/metrics`, `/healthz` and `/readyz`. `/metrics` is then not elsewhere
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

    /// Serve the page at `/console`, to watch a user's events with. Without this setting `run` does and
    /// `serve` does not
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

/// The origins of web pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Whether a page of this origin may use the service that it finds at `host`.
    #[must_use]
    pub fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        let same_host = || {
            let (_, page) = origin.split_once("://")?;
            Some(page.eq_ignore_ascii_case(host?))
        };
        same_host().unwrap_or(false)
            || self
                .0
                .iter()
                .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let origin = |part: &str| match part.split_once("://") {
            _ if part == "*" => Ok(part.to_owned()),
            Some(("http" | "https", host)) if !host.is_empty() && !host.contains('/') => {
                Ok(part.to_owned())
            }
            _ => Err(format!(
                "{part} is not an origin as in https://app.example.org"
            )),
        };
        parts.map(origin).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_same_host_may_connect_and_others_that_are_named() {
        let named: Origins = "https://app.example.org, http://localhost:5173"
            .parse()
            .unwrap();
        for (origin, host, allowed) in [
            ("https://rt.example.org", "rt.example.org", true),
            ("http://rt.example.org:8080", "rt.example.org:8080", true),
            ("http://rt.example.org:8081", "rt.example.org:8080", false),
            ("https://app.example.org", "rt.example.org", true),
            ("https://APP.example.org", "rt.example.org", true),
            ("http://app.example.org", "rt.example.org", false),
            (
                "https://app.example.org.evil.example",
                "rt.example.org",
                false,
            ),
            ("http://localhost:5173", "rt.example.org", true),
            ("null", "rt.example.org", false),
            ("", "rt.example.org", false),
        ] {
            assert_eq!(named.allow(origin, Some(host)), allowed, "{origin}");
        }
        assert!(
            Origins::from_str("*")
                .unwrap()
                .allow("https://a.example", None)
        );
        for wrong in [
            "app.example.org",
            "https://a.example/path",
            "ftp://a.example",
        ] {
            assert!(Origins::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
