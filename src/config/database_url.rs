//! A PostgreSQL address that prints without its password.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use clap::builder::{TypedValueParser, ValueParserFactory};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use reqwest::Url;
use serde::{Serialize, Serializer};
use sqlx::postgres::PgConnectOptions;

/// The parameters that the library takes, without `password`. It warns of others with their values, so they are kept
/// from it.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "application_name",
    "options",
];
/// What is said of an address that falls apart where a password was not escaped.
const ESCAPES: &str =
    "a character of the password such as / ? # @ or : must be written as %2F %3F %23 %40 or %3A";

/// A PostgreSQL address that prints without its password.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    options: PgConnectOptions,
}

impl DatabaseUrl {
    /// How to connect. Without `extra_float_digits`, which PgBouncer refuses at the start of a session.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        let options = self.options.clone().application_name("hushnet-realtime");
        options.extra_float_digits(None)
    }

    /// The address as it was given, password and all.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The address with `***` for the password, and for the value of each parameter that is unknown.
    #[must_use]
    pub fn masked(&self) -> String {
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
}

/// A parameter as it is printed.
fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        _ if is_known(parameter) => parameter.to_owned(),
        Some(("password", _)) => "password=***".to_owned(),
        _ => "***".to_owned(),
    }
}

fn is_known(parameter: &str) -> bool {
    let name = parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name);
    PARAMETERS.contains(&name) || name.starts_with("options[")
}

/// Refuses an address whose password was not escaped and now stands where a port, a name or a parameter should.
fn check(url: &Url) -> Result<(), String> {
    let name = url.path().trim_start_matches('/');
    let is_whole = !name.contains(['/', '@'])
        && url.fragment().is_none()
        && !url.query().is_some_and(|query| {
            let mut parameters = query.split('&');
            parameters.any(|parameter| !is_known(parameter) && parameter.contains('@'))
        });
    if is_whole {
        Ok(())
    } else {
        Err(format!(
            "it must be as in postgres://user:password@host:port/name; {ESCAPES}"
        ))
    }
}

/// No part of the text is in the error: it may be of the password.
impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("it must start with postgres://".to_owned());
        }
        let url = Url::parse(text).map_err(|fault| format!("{fault}; {ESCAPES}"))?;
        check(&url)?;
        let mut taken = url.clone();
        taken.set_query(None);
        for (name, value) in url.query_pairs() {
            if name == "password" || is_known(&name) {
                taken.query_pairs_mut().append_pair(&name, &value);
            }
        }
        let options = taken.as_str().parse().map_err(|_: sqlx::Error| {
            "a value in it cannot be used: look at sslmode, port, hostaddr, statement-cache-capacity and at each %"
                .to_owned()
        })?;
        Ok(Self {
            text: text.to_owned(),
            options,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, masked) in [
            (
                "postgres://app:s3cret@db:5432/hushnet",
                "postgres://app:***@db:5432/hushnet",
            ),
            (
                "postgres://app:a@b@db/hushnet",
                "postgres://app:***@db/hushnet",
            ),
            (
                "postgres://db/hushnet?password=s3cret&sslmode=disable",
                "postgres://db/hushnet?password=***&sslmode=disable",
            ),
            (
                "postgres://db/hushnet?passwort=s3cret&p%61ssword=s3cret&s3cret",
                "postgres://db/hushnet?***&***&***",
            ),
            ("postgres://app@db/hushnet", "postgres://app@db/hushnet"),
        ] {
            assert_eq!(url.parse::<DatabaseUrl>().unwrap().masked(), masked);
            assert_eq!(format!("{:?}", url.parse::<DatabaseUrl>().unwrap()), masked);
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_it() {
        for text in [
            "postgres://app:s3cret/x9z@db/hushnet",
            "postgres://app:s3cret?x9z@db/hushnet",
            "postgres://app:s3cret#x9z@db/hushnet",
            // What stands before the sign is a port.
            "postgres://app:12/x9z@db/hushnet",
            "postgres://app:12?x9z@db/hushnet",
            "postgres://app:12#x9z@db/hushnet",
            "postgres://app:12/x9z/hushnet",
            "postgres://db/hushnet?sslmode=s3cret",
            "postgres://db/hushnet?hostaddr=s3cret",
            "postgres://db/hushnet?port=s3cret",
            "postgres://s3cret%FF:x9z@db/hushnet",
            "mysql://app:s3cret@db/hushnet",
            "s3cret",
        ] {
            let fault = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(
                !fault.contains("s3cret") && !fault.contains("x9z"),
                "{fault}"
            );
            assert!(!fault.contains("12"), "{fault}");
        }
    }

    #[test]
    fn the_library_gets_no_parameter_that_it_would_warn_of() {
        let url =
            "postgres://db:1/hushnet?passwort=s3cret&password=pa%26ss&sslmode=disable&options[a]=b";
        let options = url.parse::<DatabaseUrl>().unwrap().options();
        assert_eq!(options.get_host(), "db");
        assert_eq!(options.get_options(), Some("-c a=b"));
        let ssl_mode = options.get_ssl_mode();
        assert!(
            matches!(ssl_mode, sqlx::postgres::PgSslMode::Disable),
            "{ssl_mode:?}"
        );
        assert!(format!("{options:?}").contains("pa&ss"));
    }
}
