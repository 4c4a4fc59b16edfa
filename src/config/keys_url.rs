//! The address of published keys. It may hold a password or a token.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::{Serialize, Serializer};

/// An address that prints without its user, its password and its query.
#[derive(Clone, PartialEq, Eq)]
pub struct KeysUrl(String);

impl KeysUrl {
    /// The address itself. Never to be logged.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The address with `***` for what may be a secret.
    #[must_use]
    pub fn masked(&self) -> String {
        let masked = Url::parse(&self.0)
            .ok()
            .filter(Url::has_host)
            .and_then(|mut url| {
                if !url.username().is_empty() || url.password().is_some() {
                    url.set_username("***").ok()?;
                    url.set_password(None).ok()?;
                }
                url.set_query(url.query().map(|_| "***"));
                url.set_fragment(None);
                Some(url.into())
            });
        masked.unwrap_or_else(|| "***".to_owned())
    }
}

/// What is wrong with it is said where the keys are fetched: an error of the parser of settings would repeat it.
impl FromStr for KeysUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Serialize for KeysUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_it_is_masked_wherever_it_is_printed() {
        for (text, masked) in [
            (
                "https://keys.example/set.json",
                "https://keys.example/set.json",
            ),
            (
                "https://me:s3cret@keys.example/set",
                "https://***@keys.example/set",
            ),
            (
                "https://s3cret@keys.example:8443/set",
                "https://***@keys.example:8443/set",
            ),
            (
                "https://keys.example/set?token=s3cret#s3cret",
                "https://keys.example/set?***",
            ),
            ("https://me:s3/cret@keys.example/set", "***"),
            ("me:s3cret", "***"),
            ("s3cret", "***"),
        ] {
            let url: KeysUrl = text.parse().unwrap();
            assert_eq!((url.expose(), url.to_string().as_str()), (text, masked));
            assert_eq!(format!("{url:?}"), masked);
            assert_eq!(
                serde_json::to_string(&url).unwrap(),
                format!("\"{masked}\"")
            );
        }
    }
}
