//! The address of a broker.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

const REDIS_PORT: u16 = 6379;
const NATS_PORT: u16 = 4222;
/// The most hosts of one URL.
const HOSTS_MAX: usize = 32;

/// The kind of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// Redis 6 or newer, or what speaks its protocol: RESP3, PUBLISH, SUBSCRIBE.
    Redis,
    /// NATS, core subjects.
    Nats,
}

impl Broker {
    /// The broker as the label of a metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }
}

/// An address: `redis://[user[:password]@]host[:port]`, `rediss://…` over TLS,
/// `nats://[user:password@|token@]host[:port][,host[:port]…]`, `tls://…` for NATS over TLS. Users, passwords and tokens
/// are percent-encoded. Its `Display` and its `Debug` show no password and no token.
#[derive(Clone, PartialEq, Eq)]
pub struct BusUrl {
    broker: Broker,
    is_tls: bool,
    login: Login,
    hosts: Vec<Host>,
}

/// What the broker is shown at the login.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    None,
    Password {
        user: Option<String>,
        password: String,
    },
    /// NATS only.
    Token(String),
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// A name or an address, an IPv6 address without its brackets.
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// Why a text is no address of a bus. Never shows the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusUrlError {
    /// Another scheme, or none.
    #[error("a bus's URL begins with redis://, rediss://, nats:// or tls://")]
    Scheme,
    /// No host, or one that is none.
    #[error("a bus's URL names a host, as in redis://bus.example.org:6379")]
    Host,
    /// No number of a port.
    #[error("the port of a bus's URL is a number from 1 to 65535")]
    Port,
    /// Several hosts for Redis, or too many.
    #[error("a bus's URL has one host for Redis and at most {HOSTS_MAX} for NATS")]
    Hosts,
    /// A path, a query or a fragment.
    #[error(
        "a bus's URL ends after the port; a `/`, `?`, `#` or `@` in a password is written as %2F, %3F, %23 or %40"
    )]
    Rest,
    /// What stands before the host.
    #[error(
        "what stands before the @ of a bus's URL is user:password, or for NATS a token, percent-encoded as UTF-8"
    )]
    Login,
}

impl BusUrl {
    /// The kind of broker.
    #[must_use]
    pub fn broker(&self) -> Broker {
        self.broker
    }

    /// Whether the connection is over TLS by the scheme.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// At least one.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    fn scheme(&self) -> &'static str {
        match (self.broker, self.is_tls) {
            (Broker::Redis, false) => "redis",
            (Broker::Redis, true) => "rediss",
            (Broker::Nats, false) => "nats",
            (Broker::Nats, true) => "tls",
        }
    }
}

impl FromStr for BusUrl {
    type Err = BusUrlError;

    fn from_str(text: &str) -> Result<Self, BusUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(BusUrlError::Scheme)?;
        let (broker, is_tls) = match scheme.to_ascii_lowercase().as_str() {
            "redis" => (Broker::Redis, false),
            "rediss" => (Broker::Redis, true),
            "nats" => (Broker::Nats, false),
            "tls" => (Broker::Nats, true),
            _ => return Err(BusUrlError::Scheme),
        };
        let rest = without_database(rest, broker);
        if rest.contains(['/', '?', '#']) {
            return Err(BusUrlError::Rest);
        }
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, _)) if login.contains('@') => return Err(BusUrlError::Rest),
            Some((login, hosts)) => (Login::parse(login, broker)?, hosts),
            None => (Login::None, rest),
        };
        let port = match broker {
            Broker::Redis => REDIS_PORT,
            Broker::Nats => NATS_PORT,
        };
        let hosts: Vec<_> = hosts
            .split(',')
            .map(|host| Host::parse(host, port))
            .collect::<Result<_, _>>()?;
        if hosts.len() > HOSTS_MAX || (broker == Broker::Redis && hosts.len() > 1) {
            return Err(BusUrlError::Hosts);
        }
        Ok(Self {
            broker,
            is_tls,
            login,
            hosts,
        })
    }
}

/// A closing `/`, and for Redis the number of a database, say nothing: published messages belong to no database.
fn without_database(rest: &str, broker: Broker) -> &str {
    match rest.rsplit_once('/') {
        Some((before, "")) => before,
        Some((before, number))
            if broker == Broker::Redis && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            before
        }
        _ => rest,
    }
}

impl Login {
    fn parse(text: &str, broker: Broker) -> Result<Self, BusUrlError> {
        let decode = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            // A control character could end a line of a protocol.
            match decoded {
                Ok(decoded) if !decoded.contains(char::is_control) => Ok(decoded.into_owned()),
                _ => Err(BusUrlError::Login),
            }
        };
        match (text.split_once(':'), broker) {
            (Some((user, password)), _) => {
                let user = decode(user)?;
                if user.is_empty() && broker == Broker::Nats {
                    return Err(BusUrlError::Login);
                }
                Ok(Self::Password {
                    user: (!user.is_empty()).then_some(user),
                    password: decode(password)?,
                })
            }
            (None, _) if text.is_empty() => Err(BusUrlError::Login),
            (None, Broker::Nats) => Ok(Self::Token(decode(text)?)),
            (None, Broker::Redis) => Ok(Self::Password {
                user: Some(decode(text)?),
                password: String::new(),
            }),
        }
    }
}

impl Host {
    fn parse(text: &str, default_port: u16) -> Result<Self, BusUrlError> {
        let (name, port) = if let Some(rest) = text.strip_prefix('[') {
            let (name, after) = rest.split_once(']').ok_or(BusUrlError::Host)?;
            name.parse::<std::net::Ipv6Addr>()
                .map_err(|_| BusUrlError::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (name, Some(port)),
                None if after.is_empty() => (name, None),
                None => return Err(BusUrlError::Host),
            }
        } else {
            match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            }
        };
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if name.is_empty() || !name.chars().all(is_allowed) {
            return Err(BusUrlError::Host);
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(BusUrlError::Port),
            },
        };
        Ok(Self {
            name: name.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        match &self.login {
            Login::None => {}
            Login::Password { user, .. } => {
                write!(f, "{}:***@", user.as_deref().unwrap_or_default())?;
            }
            Login::Token(_) => f.write_str("***@")?,
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_printed_without_its_secrets() {
        for (text, printed) in [
            ("redis://host", "redis://host:6379"),
            ("redis://host:1/", "redis://host:1"),
            ("redis://host/15", "redis://host:6379"),
            ("rediss://:secret@host:7000", "rediss://:***@host:7000"),
            (
                "redis://me:se%2Fcret@[::1]:7000",
                "redis://me:***@[::1]:7000",
            ),
            ("redis://me@host", "redis://me:***@host:6379"),
            (
                "nats://secret@a,b:1,[::1]",
                "nats://***@a:4222,b:1,[::1]:4222",
            ),
            (
                "tls://me:secret@a.example.org",
                "tls://me:***@a.example.org:4222",
            ),
        ] {
            let url: BusUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), printed, "{text}");
            assert_eq!(format!("{url:?}"), printed);
        }
    }

    #[test]
    fn secrets_are_decoded() {
        let url: BusUrl = "redis://me:a%3Ab%40c@host".parse().unwrap();
        let expected = Login::Password {
            user: Some("me".to_owned()),
            password: "a:b@c".to_owned(),
        };
        assert!(*url.login() == expected);
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_shown() {
        for (text, error) in [
            ("host:6379", BusUrlError::Scheme),
            ("http://secret@host", BusUrlError::Scheme),
            ("redis://", BusUrlError::Host),
            ("redis://secret@", BusUrlError::Host),
            ("redis://[secret]", BusUrlError::Host),
            ("redis://host:secret", BusUrlError::Port),
            ("redis://host:0", BusUrlError::Port),
            ("redis://a,b", BusUrlError::Hosts),
            ("redis://me:sec/ret@host", BusUrlError::Rest),
            ("redis://me:sec@ret@host", BusUrlError::Rest),
            ("redis://me:sec#ret@host", BusUrlError::Rest),
            ("nats://host?tls=secret", BusUrlError::Rest),
            ("nats://host/1", BusUrlError::Rest),
            ("nats://:secret@host", BusUrlError::Login),
            ("nats://@host", BusUrlError::Login),
            ("redis://me:secret%0Dsecret@host", BusUrlError::Login),
            ("redis://me:secret%FF@host", BusUrlError::Login),
        ] {
            let found = text.parse::<BusUrl>().unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("secret"));
            assert!(!found.to_string().contains('\n'));
        }
    }
}
