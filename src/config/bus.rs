//! The settings of many nodes: the bus between them, and this node's name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use hushnet_bus::{BusUrl, BusUrlError, TlsSettings};
use serde::{Serialize, Serializer};

/// The longest name of a node, in bytes.
const NODE_NAME_BYTES_MAX: usize = 64;

/// The bus between the nodes of one database.
#[derive(Clone, Default)]
pub enum BusAddress {
    /// Each node reads the database by itself.
    #[default]
    None,
    /// One node reads the database, and the others take events from the bus.
    Url(BusUrl),
}

impl BusAddress {
    /// The broker's address.
    #[must_use]
    pub fn url(&self) -> Option<&BusUrl> {
        match self {
            Self::None => None,
            Self::Url(url) => Some(url),
        }
    }
}

impl FromStr for BusAddress {
    type Err = BusUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            url => url.parse().map(Self::Url),
        }
    }
}

/// Without the password.
impl fmt::Display for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Url(url) => url.fmt(f),
        }
    }
}

impl fmt::Debug for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for BusAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name that tells nodes apart for people: 1 to 64 bytes that print, without blanks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeName(String);

/// A text that names no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node's name has 1 to {NODE_NAME_BYTES_MAX} bytes, and no blanks")]
pub struct NotANodeName;

impl FromStr for NodeName {
    type Err = NotANodeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        if is_plain && (1..=NODE_NAME_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotANodeName)
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The settings of many nodes.
#[derive(Debug, Clone, Args, Serialize)]
pub struct NodeSettings {
    /// The bus between the nodes of one database: `redis://`, `rediss://`, `nats://` or `tls://` (NATS over TLS), as
    /// `redis://user:password@host:port`; `none`: each node reads the database by itself
    #[arg(
        long,
        env = "HUSHNET_BUS",
        value_name = "URL",
        default_value = "none",
        hide_env_values = true
    )]
    pub bus: BusAddress,

    /// File in PEM with certificates of authorities that the broker's certificate is checked with, beside the public ones
    #[arg(long, env = "HUSHNET_BUS_ROOT_CERTIFICATE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus_root_certificate: Option<PathBuf>,

    /// This node's name, for people. Two live nodes of one name say so in their logs. Left out, it is the
    /// machine's name and the port
    #[arg(long, env = "HUSHNET_NODE_NAME", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<NodeName>,

    /// The newest format of messages that this node reads, if not the program's own. No setting of an operator's: with it
    /// a test has a program of another version.
    #[arg(skip)]
    #[serde(skip)]
    pub batch_version: Option<u8>,
}

impl NodeSettings {
    /// How the broker is verified.
    #[must_use]
    pub fn tls(&self) -> TlsSettings {
        TlsSettings {
            root_certificate: self.bus_root_certificate.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_prints_without_its_password_and_a_wrong_one_is_refused() {
        let address: BusAddress = "redis://node:secret@127.0.0.1:6379".parse().unwrap();
        for text in [address.to_string(), format!("{address:?}")] {
            assert!(
                !text.contains("secret") && text.contains("127.0.0.1"),
                "{text}"
            );
        }
        assert!("none".parse::<BusAddress>().unwrap().url().is_none());
        for wrong in ["", "kafka://host", "redis:", "None"] {
            let refused = wrong.parse::<BusAddress>().unwrap_err().to_string();
            assert!(!refused.is_empty() && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn a_name_of_a_node_is_short_and_has_no_blanks() {
        for name in ["a", "host-1:8080", &"x".repeat(64)] {
            assert_eq!(name.parse::<NodeName>().unwrap().to_string(), name);
        }
        for wrong in ["", "a b", "a\n", &"x".repeat(65)] {
            assert_eq!(wrong.parse::<NodeName>(), Err(NotANodeName));
        }
    }
}
