//! A PostgreSQL address that prints without its password.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::{TypedValueParser, ValueParserFactory};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use hushnet_replication::Endpoint;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde::{Serialize, Serializer};
use sqlx::postgres::PgConnectOptions;

use super::address::{self, Address, NotUsed, Variables, several_hosts};
use super::parameters::{self, Parameter};
use crate::config::ConfigError;

/// What is said of an address that falls apart where a password was not escaped.
const ESCAPES: &str =
    "a character of the password such as / ? # @ or : must be written as %2F %3F %23 %40 or %3A";
/// A URL that leaves everything to the variables.
const ALL_OF_VARIABLES: &str = "postgres://";
/// Each of these variables names a database.
const NAMING: [&str; 4] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"];
/// Letters of the name of a parameter that is repeated; a longer one is none.
const NAME_MAX: usize = 40;

/// A PostgreSQL address that prints without its password.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    address: Address,
}

impl DatabaseUrl {
    /// The given URL, or the database that libpq's variables name.
    ///
    /// # Errors
    /// [`ConfigError::NoDatabase`] when nothing names one, [`ConfigError::BadVariables`] for a variable that cannot be
    /// used.
    pub fn or_of_variables(given: Option<Self>) -> Result<Self, ConfigError> {
        if let Some(given) = given {
            return Ok(given);
        }
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if !NAMING.iter().any(is_set) {
            return Err(ConfigError::NoDatabase);
        }
        let named = ALL_OF_VARIABLES.parse();
        named.map_err(|cause| ConfigError::BadVariables { cause })
    }

    /// The database of this URL and these variables.
    ///
    /// # Errors
    /// What is wrong, without any value.
    pub(super) fn with(text: &str, variables: Variables<'_>) -> Result<Self, String> {
        let url = parse(text)?;
        check(&url)?;
        let (mut parameters, mut session) = (of_authority(&url)?, Vec::new());
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match (parameters::named(&name), setting_of(&name)) {
                (Some(parameter), _) => parameters.push((parameter, value)),
                (None, Some(setting)) => session.push((setting.to_owned(), value)),
                // JDBC's word.
                _ if name == "ssl" && value == "true" => {
                    parameters.push((known("sslmode")?, "require".to_owned()));
                }
                _ if name == "ssl" => return Err("ssl must be true; sslmode says more".to_owned()),
                _ => return Err(unknown(if value.is_empty() { "" } else { &name })),
            }
        }
        Ok(Self {
            text: text.to_owned(),
            address: address::join(parameters, &session, variables)?,
        })
    }

    /// How to connect.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.address.options.clone()
    }

    /// How to connect for replication.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.address.endpoint.clone()
    }

    /// What was given beside and is not used.
    #[must_use]
    pub fn not_used(&self) -> &[NotUsed] {
        &self.address.not_used
    }

    /// libpq's variables that are used, by name.
    #[must_use]
    pub fn variables(&self) -> &[&'static str] {
        &self.address.variables
    }

    /// Where the password comes from, if there is one.
    #[must_use]
    pub fn password_of(&self) -> Option<&str> {
        self.address.password_of.as_deref()
    }

    /// The address as it was given, or as the variables make it, with `***` for each secret.
    #[must_use]
    pub fn masked(&self) -> String {
        if self.text == ALL_OF_VARIABLES {
            return self.effective();
        }
        let Ok(mut url) = Url::parse(&self.text) else {
            return "***".to_owned();
        };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return "***".to_owned();
        }
        if let Some(query) = url.query() {
            let masked: Vec<String> = query.split('&').map(masked_parameter).collect();
            url.set_query(Some(&masked.join("&")));
        }
        url.into()
    }

    /// Where the connections lead, without the password.
    #[must_use]
    pub fn effective(&self) -> String {
        let options = &self.address.options;
        let (host, port) = (options.get_host(), options.get_port());
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let mut url = format!("postgres://{host}:{port}");
        if let Ok(mut whole) = Url::parse(&url) {
            // Neither fails for a URL that has a host.
            let _ = whole.set_username(options.get_username());
            whole.set_path(options.get_database().unwrap_or_default());
            if let Some(directory) = options.get_socket() {
                let directory = directory.to_string_lossy();
                whole.query_pairs_mut().append_pair("host", &directory);
            } else {
                let mode = ssl_mode(options);
                whole.query_pairs_mut().append_pair("sslmode", mode);
            }
            url = whole.into();
        }
        url
    }
}

fn ssl_mode(options: &PgConnectOptions) -> &'static str {
    use sqlx::postgres::PgSslMode;
    match options.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

/// A parameter as it is printed.
fn masked_parameter(parameter: &str) -> String {
    let name = parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name);
    match parameters::named(name) {
        Some(known) if parameters::is_secret(known) => format!("{name}=***"),
        Some(_) => parameter.to_owned(),
        None if is_known(parameter) => parameter.to_owned(),
        None => "***".to_owned(),
    }
}

fn is_known(parameter: &str) -> bool {
    let name = parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name);
    parameters::named(name).is_some() || name.starts_with("options[") || name == "ssl"
}

/// The setting that `options[setting]` names.
fn setting_of(name: &str) -> Option<&str> {
    name.strip_prefix("options[")?.strip_suffix(']')
}

fn known(name: &str) -> Result<&'static Parameter, String> {
    parameters::named(name).ok_or_else(|| unknown(name))
}

/// A name is repeated if it looks like one: it may be of the password.
fn unknown(name: &str) -> String {
    let is_name = name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphabetic() || c == '_' || c == '-');
    if is_name {
        format!("it has the unknown parameter {name}; docs/operations.md lists the known ones")
    } else {
        format!("it has a parameter that is unknown; {ESCAPES}")
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    let rest = rest.ok_or("it must start with postgres://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    // Before the colon of a lone host may be a user, and after it the begin of a password.
    if hosts.contains(',') && (authority.contains('@') || !rest.contains('@')) {
        return Err(several_hosts("it"));
    }
    Url::parse(text).map_err(|fault| format!("{fault}; {ESCAPES}"))
}

/// Refuses an address whose password was not escaped and now stands where a port, a name or a parameter should. A
/// password with a `?` ends with a sign that stands in the query, also where a known parameter seems to.
fn check(url: &Url) -> Result<(), String> {
    let name = url.path().trim_start_matches('/');
    let is_whole = !name.contains(['/', '@'])
        && url.fragment().is_none()
        && !url.query().is_some_and(|query| query.contains('@'));
    if is_whole {
        Ok(())
    } else {
        Err(format!(
            "it must be as in postgres://user:password@host:port/name; {ESCAPES}"
        ))
    }
}

/// What stands before the query.
fn of_authority(url: &Url) -> Result<Vec<(&'static Parameter, String)>, String> {
    let port = url.port().map(|port| port.to_string());
    let parts = [
        ("user", url.username()),
        ("password", url.password().unwrap_or_default()),
        ("host", url.host_str().unwrap_or_default()),
        ("port", port.as_deref().unwrap_or_default()),
        ("dbname", url.path().trim_start_matches('/')),
    ];
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
    let decoded = parts.map(|(name, text)| Ok((known(name)?, decoded(text)?)));
    decoded.collect()
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "a character behind a % is not UTF-8")?;
    Ok(decoded.into_owned())
}

/// No part of the text is in the error: it may be of the password.
impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::with(text, &|name| std::env::var_os(name))
    }
}

/// Reads the address from a flag or a variable, and never repeats it.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseUrlParser;

impl TypedValueParser for DatabaseUrlParser {
    type Value = DatabaseUrl;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<DatabaseUrl, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        text.and_then(str::parse).map_err(|fault| {
            let argument = argument.map_or_else(String::new, |argument| format!(" '{argument}'"));
            let message = format!("invalid value for{argument}: {fault}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

impl ValueParserFactory for DatabaseUrl {
    type Parser = DatabaseUrlParser;

    fn value_parser() -> DatabaseUrlParser {
        DatabaseUrlParser
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}
