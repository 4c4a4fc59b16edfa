//! JSON Web Tokens, checked: `sub` is the user's id, `device_id` may name the device.
//!
//! The algorithm is the configured one, whatever a token's header says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use uuid::Uuid;

use super::algorithm::algorithm_of;
use super::key_file;
use super::published_keys::PublishedKeys;
use crate::config::{ConfigError, IdentitySettings, JwtAlgorithm};
use crate::protocol::AuthError;

/// Bytes of a token; the request's head may not be much longer.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a secret for HS256: as many as an HMAC with SHA-256 has.
const SECRET_BYTES_MIN: usize = 32;

/// What tokens are checked with.
#[derive(Debug)]
pub struct Tokens {
    keys: Keys,
    validation: Validation,
}

enum Keys {
    Fixed(Arc<DecodingKey>),
    Published(Box<PublishedKeys>),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Published(_) => "Published",
        })
    }
}

/// The claims that the service acts on; the library checks the others.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    device_id: Option<Uuid>,
    exp: f64,
}

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The user's id, of whatever type users are.
    pub user_id: String,
    /// The device, if the token names one.
    pub device_id: Option<Uuid>,
    /// When the token expires.
    pub expires: Option<SystemTime>,
}

impl Tokens {
    /// Reads the keys of these settings.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no key, or none that fits the algorithm.
    pub fn new(settings: &IdentitySettings) -> Result<Self, ConfigError> {
        let algorithm = settings.jwt_algorithm.ok_or(ConfigError::NoJwtAlgorithm)?;
        let keys = match (
            &settings.jwt_key,
            &settings.jwt_key_file,
            &settings.jwt_jwks_url,
        ) {
            (Some(key), None, None) => fixed(algorithm, key.expose().as_bytes())?,
            (None, Some(path), None) => fixed(algorithm, &key_file::read(path)?)?,
            (None, None, Some(url)) => {
                Keys::Published(Box::new(PublishedKeys::new(url, algorithm)?))
            }
            _ => return Err(ConfigError::OneJwtKey),
        };
        Ok(Self {
            keys,
            validation: validation(settings, algorithm_of(algorithm)),
        })
    }

    pub(super) async fn keep_fresh(&self) {
        match &self.keys {
            Keys::Fixed(_) => std::future::pending().await,
            Keys::Published(keys) => keys.keep_fresh().await,
        }
    }

    /// The bearer that the token proves.
    ///
    /// # Errors
    /// [`AuthError`] that says why the token is refused.
    pub async fn check(&self, token: &str) -> Result<Bearer, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::TokenMalformed);
        }
        let header = decode_header(token).map_err(|error| reason(&error))?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(AuthError::TokenAlgorithm);
        }
        let key = match &self.keys {
            Keys::Fixed(key) => Arc::clone(key),
            Keys::Published(keys) => keys.find(header.kid.as_deref()).await?,
        };
        let claims = decode::<Claims>(token, &key, &self.validation)
            .map_err(|error| reason(&error))?
            .claims;
        let expires = Duration::try_from_secs_f64(claims.exp)
            .ok()
            .and_then(|exp| SystemTime::UNIX_EPOCH.checked_add(exp))
            .ok_or(AuthError::TokenMalformed)?;
        Ok(Bearer {
            user_id: claims.sub,
            device_id: claims.device_id,
            expires: expires.checked_add(Duration::from_secs(self.validation.leeway)),
        })
    }
}

fn validation(settings: &IdentitySettings, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = settings.jwt_leeway_s.into();
    validation.validate_nbf = true;
    let mut required = vec!["exp", "sub"];
    if let Some(audience) = &settings.jwt_audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &settings.jwt_issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn fixed(algorithm: JwtAlgorithm, key: &[u8]) -> Result<Keys, ConfigError> {
    let key = match algorithm {
        JwtAlgorithm::Hs256 => {
            // Editors end a file with a line feed, which does not belong to the secret.
            let secret = key.trim_ascii_end();
            if secret.len() < SECRET_BYTES_MIN {
                return Err(ConfigError::ShortSecret {
                    bytes_min: SECRET_BYTES_MIN,
                });
            }
            Ok(DecodingKey::from_secret(secret))
        }
        JwtAlgorithm::Rs256 => DecodingKey::from_rsa_pem(key),
        JwtAlgorithm::Es256 => DecodingKey::from_ec_pem(key),
        JwtAlgorithm::EdDsa => DecodingKey::from_ed_pem(key),
    };
    key.map(|key| Keys::Fixed(Arc::new(key)))
        .map_err(|error| ConfigError::BadJwtKey {
            algorithm,
            cause: error.to_string(),
        })
}

/// What the library's error means for the client.
fn reason(error: &jsonwebtoken::errors::Error) -> AuthError {
    match error.kind() {
        ErrorKind::InvalidAlgorithm => AuthError::TokenAlgorithm,
        ErrorKind::InvalidSignature => AuthError::TokenSignature,
        ErrorKind::ExpiredSignature => AuthError::TokenExpired,
        ErrorKind::ImmatureSignature => AuthError::TokenNotYetValid,
        ErrorKind::InvalidAudience => AuthError::TokenAudience,
        ErrorKind::InvalidIssuer => AuthError::TokenIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => AuthError::TokenAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => AuthError::TokenIssuer,
        // The library cannot parse a header whose `alg` it does not know, such as "none".
        ErrorKind::Json(cause) if cause.to_string().starts_with("unknown variant") => {
            AuthError::TokenAlgorithm
        }
        _ => AuthError::TokenMalformed,
    }
}
