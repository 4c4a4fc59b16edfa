//! Keys that are published as a JSON Web Key Set.
//!
//! They are fetched at start, every few minutes, and when a token names an unknown key, but never more
//! often than [`REFRESH_MIN`]. When a fetch fails, the last good copy stays. One task fetches, and requests wait for it:
//! a client that leaves ends no fetch.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::{ConfigError, JwtAlgorithm, KeysUrl};
use crate::protocol::AuthError;

/// Between two regular fetches.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);
/// The least time between two fetches.
const REFRESH_MIN: Duration = Duration::from_secs(10);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a key set.
const SET_BYTES_MAX: usize = 256 * 1024;
/// Keys of a set that are used: the first ones.
const KEYS_MAX: usize = 100;

type KeySet = HashMap<Option<String>, Arc<DecodingKey>>;

/// The keys that a URL publishes.
pub(super) struct PublishedKeys {
    url: Url,
    /// The same, to be printed.
    shown: KeysUrl,
    algorithm: JwtAlgorithm,
    client: Client,
    keys: RwLock<KeySet>,
    /// A token names an unknown key.
    wanted: Notify,
    /// When the last fetch began, of those that have ended.
    fetched: watch::Sender<Option<Instant>>,
}

/// A key set as it was published. Each key is read by itself, so that one that cannot be read spoils no other.
#[derive(Deserialize)]
struct PublishedSet {
    keys: Vec<Value>,
}

/// Without the URL, which may have a secret.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(reqwest::Error),
    #[error("the answer is longer than {SET_BYTES_MAX} bytes")]
    TooLong,
    #[error("the answer is no JSON Web Key Set: {0}")]
    NoSet(#[from] serde_json::Error),
    #[error("none of its keys is for the configured algorithm")]
    NoKey,
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

impl PublishedKeys {
    pub(super) fn new(url: &KeysUrl, algorithm: JwtAlgorithm) -> Result<Self, ConfigError> {
        let refused = |cause: &dyn ToString| ConfigError::BadJwksUrl {
            url: url.clone(),
            cause: cause.to_string(),
        };
        if algorithm == JwtAlgorithm::Hs256 {
            return Err(refused(&"a secret, as of HS256, cannot be published"));
        }
        let parsed = Url::parse(url.expose()).map_err(|error| refused(&error))?;
        let loopback = matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if parsed.scheme() != "https" && !(parsed.scheme() == "http" && loopback) {
            return Err(refused(&"it must be https, or http on this machine"));
        }
        let client = Client::builder()
            .timeout(FETCH_TIMEOUT)
            .https_only(parsed.scheme() == "https")
            .build()
            .map_err(|error| refused(&error))?;
        Ok(Self {
            url: parsed,
            shown: url.clone(),
            algorithm,
            client,
            keys: RwLock::default(),
            wanted: Notify::new(),
            fetched: watch::Sender::new(None),
        })
    }

    /// Fetches the keys for ever.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let begun = Instant::now();
            match self.fetch().await {
                Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
                Err(error) => {
                    tracing::warn!(event = "jwks_not_fetched", url = %self.shown, %error);
                }
            }
            self.fetched.send_replace(Some(begun));
            sleep_until(begun + REFRESH_MIN).await;
            let _ = timeout_at(begun + REFRESH_INTERVAL, self.wanted.notified()).await;
        }
    }

    /// The key that a token names. A token that names none is checked with the only key of the set.
    pub(super) async fn find(&self, kid: Option<&str>) -> Result<Arc<DecodingKey>, AuthError> {
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        self.wait_for_fetch().await;
        self.known(kid).ok_or_else(|| {
            if self.read().is_empty() {
                AuthError::Unavailable
            } else {
                AuthError::TokenKeyUnknown
            }
        })
    }

    fn known(&self, kid: Option<&str>) -> Option<Arc<DecodingKey>> {
        let keys = self.read();
        match kid {
            Some(kid) => keys.get(&Some(kid.to_owned())).cloned(),
            None if keys.len() == 1 => keys.values().next().cloned(),
            None => None,
        }
    }

    /// Waits for the end of a fetch, unless the last one is too recent for another.
    async fn wait_for_fetch(&self) {
        let is_recent =
            |begun: &Option<Instant>| begun.is_some_and(|begun| begun.elapsed() < REFRESH_MIN);
        let mut fetched = self.fetched.subscribe();
        if !is_recent(&fetched.borrow()) {
            self.wanted.notify_one();
            let _ = timeout(FETCH_TIMEOUT, fetched.wait_for(is_recent)).await;
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let answer = self.client.get(self.url.clone()).send().await?;
        let mut answer = answer.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > SET_BYTES_MAX {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let set: PublishedSet = serde_json::from_slice(&body)?;
        let keys: KeySet = set
            .keys
            .into_iter()
            .filter(|key| self.fits(key))
            .filter_map(|key| self.read_key(key))
            .take(KEYS_MAX)
            .collect();
        if keys.is_empty() {
            return Err(FetchError::NoKey);
        }
        Ok(keys)
    }

    /// The key and its name. One that cannot be read is logged.
    fn read_key(&self, key: Value) -> Option<(Option<String>, Arc<DecodingKey>)> {
        let kid = key["kid"].clone();
        let read = serde_json::from_value(key)
            .map_err(|error| error.to_string())
            .and_then(|key: Jwk| match DecodingKey::from_jwk(&key) {
                Ok(decoding) => Ok((key.common.key_id, Arc::new(decoding))),
                Err(error) => Err(error.to_string()),
            });
        read.inspect_err(|error| {
            tracing::warn!(event = "jwks_key_unreadable", url = %self.shown, %kid, error);
        })
        .ok()
    }

    /// Whether the key is of the configured algorithm's kind, and for signatures. The others are no faults.
    fn fits(&self, key: &Value) -> bool {
        let signs = key["use"].is_null() || key["use"] == "sig";
        let kind = match self.algorithm {
            JwtAlgorithm::Hs256 => return false,
            JwtAlgorithm::Rs256 => "RSA",
            JwtAlgorithm::Es256 => "EC",
            JwtAlgorithm::EdDsa => "OKP",
        };
        signs && key["kty"] == kind
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, KeySet> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for PublishedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedKeys")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}
