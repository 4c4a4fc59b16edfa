//! JSON Web Tokens: `sub` is the user, `device_id` may name the device.
//!
//! The algorithm is the configured one, whatever a token says of itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::Deserialize;
use uuid::Uuid;

use super::jwks::PublishedKeys;
use super::proof::Identity;
use crate::config::{ConfigError, IdentitySettings, JwtAlgorithm};
use crate::protocol::AuthError;

/// Of a token, in bytes; the request's head is not much longer.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Of a secret for HS256, in bytes: as long as what it makes.
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

/// The claims that are acted on; the library checks the others.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: Uuid,
    device_id: Option<Uuid>,
    exp: f64,
}

impl Tokens {
    /// By these settings.
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
            (None, Some(path), None) => fixed(algorithm, &read(path)?)?,
            (None, None, Some(url)) => {
                Keys::Published(Box::new(PublishedKeys::new(url, algorithm)?))
            }
            _ => return Err(ConfigError::OneJwtKey),
        };
        Ok(Self {
            keys,
            validation: validation(settings, algorithm.into()),
        })
    }

    pub(super) async fn keep_fresh(&self) {
        match &self.keys {
            Keys::Fixed(_) => std::future::pending().await,
            Keys::Published(keys) => keys.keep_fresh().await,
        }
    }

    /// Who the token is for.
    ///
    /// # Errors
    /// [`AuthError`] when it is not good.
    pub async fn check(&self, token: &str) -> Result<Identity, AuthError> {
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
        Ok(Identity {
            user_id: claims.sub,
            device_id: claims.device_id,
            expires: expires.checked_add(Duration::from_secs(self.validation.leeway)),
        })
    }
}

/// How tokens are made, for development: whoever signs in earnest has a service of its own for that.
pub struct Signing {
    header: Header,
    key: EncodingKey,
    audience: Option<String>,
    issuer: Option<String>,
}

/// Why a token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The settings do not say how.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key does not sign.
    #[error("the signing key is no private key in PEM for the algorithm: {0}")]
    Key(#[from] jsonwebtoken::errors::Error),
}

impl Signing {
    /// By these settings. `private_key` is a PEM, and not needed for HS256, whose secret does both.
    ///
    /// # Errors
    /// [`SigningError`] when there is no key for it.
    pub fn new(
        settings: &IdentitySettings,
        private_key: Option<&[u8]>,
    ) -> Result<Self, SigningError> {
        let algorithm = settings.jwt_algorithm.ok_or(ConfigError::NoJwtAlgorithm)?;
        let pem = || private_key.ok_or(ConfigError::NoSigningKey);
        let key = match algorithm {
            JwtAlgorithm::Hs256 => {
                let secret = match (&settings.jwt_key, &settings.jwt_key_file) {
                    (Some(key), None) => key.expose().as_bytes().to_vec(),
                    (None, Some(path)) => read(path)?,
                    _ => return Err(ConfigError::OneJwtKey.into()),
                };
                EncodingKey::from_secret(secret.trim_ascii_end())
            }
            JwtAlgorithm::Rs256 => EncodingKey::from_rsa_pem(pem()?)?,
            JwtAlgorithm::Es256 => EncodingKey::from_ec_pem(pem()?)?,
            JwtAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem()?)?,
        };
        Ok(Self {
            header: Header::new(algorithm.into()),
            key,
            audience: settings.jwt_audience.clone(),
            issuer: settings.jwt_issuer.clone(),
        })
    }

    /// A token for this identity, with the audience and the issuer of the settings.
    ///
    /// # Errors
    /// [`SigningError::Key`] when the key does not sign.
    pub fn sign(&self, identity: &Identity) -> Result<String, SigningError> {
        let expires = identity
            .expires
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let mut claims = serde_json::json!({ "sub": identity.user_id });
        for (name, value) in [
            (
                "device_id",
                identity.device_id.map(|id| id.to_string().into()),
            ),
            ("exp", expires.map(|at| at.as_secs().into())),
            ("aud", self.audience.clone().map(Into::into)),
            ("iss", self.issuer.clone().map(Into::into)),
        ] {
            if let Some(value) = value {
                claims[name] = value;
            }
        }
        Ok(encode(&self.header, &claims, &self.key)?)
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

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|cause| ConfigError::Unreadable {
        path: path.to_owned(),
        cause,
    })
}

fn fixed(algorithm: JwtAlgorithm, key: &[u8]) -> Result<Keys, ConfigError> {
    let key = match algorithm {
        JwtAlgorithm::Hs256 => {
            // Editors end a file with a line feed that is no part of the secret.
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

impl From<JwtAlgorithm> for Algorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::Hs256 => Self::HS256,
            JwtAlgorithm::Rs256 => Self::RS256,
            JwtAlgorithm::Es256 => Self::ES256,
            JwtAlgorithm::EdDsa => Self::EdDSA,
        }
    }
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
        // An `alg` that the library does not know, as "none", is no header to it.
        ErrorKind::Json(cause) if cause.to_string().starts_with("unknown variant") => {
            AuthError::TokenAlgorithm
        }
        _ => AuthError::TokenMalformed,
    }
}
