//! JSON Web Tokens, made, for development and tests.

use std::time::SystemTime;

use jsonwebtoken::{EncodingKey, Header, encode};

use super::algorithm::algorithm_of;
use super::key_file;
use super::token::Bearer;
use crate::config::{ConfigError, IdentitySettings, JwtAlgorithm};

/// Makes tokens, for development. In production the application signs them.
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
    /// Signs as these settings say. `private_key` is a PEM; HS256 needs none, because its secret both
    /// signs and checks.
    ///
    /// # Errors
    /// [`SigningError`] when there is no such key.
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
                    (None, Some(path)) => key_file::read(path)?,
                    _ => return Err(ConfigError::OneJwtKey.into()),
                };
                EncodingKey::from_secret(secret.trim_ascii_end())
            }
            JwtAlgorithm::Rs256 => EncodingKey::from_rsa_pem(pem()?)?,
            JwtAlgorithm::Es256 => EncodingKey::from_ec_pem(pem()?)?,
            JwtAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem()?)?,
        };
        Ok(Self {
            header: Header::new(algorithm_of(algorithm)),
            key,
            audience: settings.jwt_audience.clone(),
            issuer: settings.jwt_issuer.clone(),
        })
    }

    /// A token for this bearer, with the audience and the issuer of the settings.
    ///
    /// # Errors
    /// [`SigningError::Key`] when the key does not sign.
    pub fn sign(&self, bearer: &Bearer) -> Result<String, SigningError> {
        let expires = bearer
            .expires
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let mut claims = serde_json::json!({ "sub": bearer.user_id });
        for (name, value) in [
            (
                "device_id",
                bearer.device_id.map(|id| id.to_string().into()),
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
