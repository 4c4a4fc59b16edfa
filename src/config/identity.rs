//! The settings of who a client is, and how that is proven.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::bounds::within;
use crate::protocol::Secret;

/// How clients prove who they are. `auth.rs` acts on it.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Identity")]
pub struct IdentitySettings {
    /// How clients prove who they are; with jwt+device either will do
    #[arg(long, env = "HUSHNET_AUTH", value_name = "WAY", default_value = "none")]
    pub auth: AuthMode,

    /// Serve on an address that others can reach although anyone who knows a user's id may listen
    #[arg(long, env = "HUSHNET_INSECURE_NO_AUTH", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub insecure_no_auth: bool,

    /// The one algorithm that tokens may be signed with
    #[arg(long, env = "HUSHNET_JWT_ALGORITHM", value_name = "ALGORITHM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_algorithm: Option<JwtAlgorithm>,

    /// The key that tokens are checked with: for HS256 a secret of 32 bytes or more, else a public key
    /// in PEM
    #[arg(
        long,
        env = "HUSHNET_JWT_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_key: Option<Secret>,

    /// A file with that key
    #[arg(long, env = "HUSHNET_JWT_KEY_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_key_file: Option<PathBuf>,

    /// Where the keys are published as a JSON Web Key Set; each token names its own by `kid`
    #[arg(long, env = "HUSHNET_JWT_JWKS_URL", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_jwks_url: Option<String>,

    /// What a token's `aud` must name; without it, a token that has an `aud` is refused
    #[arg(long, env = "HUSHNET_JWT_AUDIENCE", value_name = "AUDIENCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_audience: Option<String>,

    /// What a token's `iss` must be
    #[arg(long, env = "HUSHNET_JWT_ISSUER", value_name = "ISSUER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_issuer: Option<String>,

    /// By how much the clocks of who signs a token and of this server may differ
    #[arg(long, env = "HUSHNET_JWT_LEEWAY_S", value_name = "SECONDS",
          default_value_t = 30, value_parser = within(0..=600))]
    pub jwt_leeway_s: u32,

    /// Take a token also as ?token=, where proxies may log it
    #[arg(long, env = "HUSHNET_JWT_IN_QUERY", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub jwt_in_query: bool,

    /// Age, either way, at which a device's signed time is refused
    #[arg(long, env = "HUSHNET_DEVICE_SIGNATURE_WINDOW_S", value_name = "SECONDS",
          default_value_t = 30, value_parser = within(1..=600))]
    pub device_signature_window_s: u32,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum AuthMode {
    /// Not at all: whoever knows a user's id is that user.
    #[serde(rename = "none")]
    None,
    /// By a JSON Web Token.
    #[serde(rename = "jwt")]
    Jwt,
    /// By a device's signature of the time, as HushNet's API has it.
    #[serde(rename = "device")]
    Device,
    /// By either.
    #[value(name = "jwt+device")]
    #[serde(rename = "jwt+device")]
    JwtOrDevice,
}

impl AuthMode {
    /// Whether tokens are taken.
    #[must_use]
    pub fn takes_tokens(self) -> bool {
        matches!(self, Self::Jwt | Self::JwtOrDevice)
    }

    /// Whether devices' signatures are taken.
    #[must_use]
    pub fn takes_signatures(self) -> bool {
        matches!(self, Self::Device | Self::JwtOrDevice)
    }
}

/// What signs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: who checks tokens can also make them.
    #[value(name = "HS256")]
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA with SHA-256, PKCS #1 v1.5.
    #[value(name = "RS256")]
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA with SHA-256 on P-256.
    #[value(name = "ES256")]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[value(name = "EdDSA")]
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl IdentitySettings {
    /// `device_signature_window_s` as a duration.
    #[must_use]
    pub fn device_signature_window(&self) -> Duration {
        Duration::from_secs(self.device_signature_window_s.into())
    }
}
