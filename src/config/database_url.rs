//! A PostgreSQL address that prints without its password.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sqlx::postgres::PgConnectOptions;

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

    /// The address with `***` for the password.
    #[must_use]
    pub fn masked(&self) -> String {
        let Some((scheme, rest)) = self.text.split_once("://") else {
            return "***".to_owned();
        };
        let rest = match rest.rsplit_once('@') {
            Some((account, host)) => match account.split_once(':') {
                Some((user, _)) => format!("{user}:***@{host}"),
                None => format!("{account}@{host}"),
            },
            None => rest.to_owned(),
        };
        // libpq also accepts the password in the query.
        let masked = match rest.split_once("password=") {
            Some((before, after)) => {
                let tail = after
                    .split_once('&')
                    .map_or(String::new(), |(_, tail)| format!("&{tail}"));
                format!("{before}password=***{tail}")
            }
            None => rest,
        };
        format!("{scheme}://{masked}")
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("it must start with postgres://".to_owned());
        }
        let options = text
            .parse()
            .map_err(|error: sqlx::Error| error.to_string())?;
        Ok(Self {
            text: text.to_owned(),
            options,
        })
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
            ("postgres://app@db/hushnet", "postgres://app@db/hushnet"),
        ] {
            assert_eq!(url.parse::<DatabaseUrl>().unwrap().masked(), masked);
            assert_eq!(format!("{:?}", url.parse::<DatabaseUrl>().unwrap()), masked);
        }
    }
}
