//! The settings of identity: how clients prove which user they are.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::KeysUrl;
use super::bounds::within;
use crate::protocol::Secret;

/// How clients prove which user they are; `identity/` acts on it.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Identity")]
pub struct IdentitySettings {
    /// How clients prove who they are. With `jwt+device` either proof will do
    #[arg(long, env = "HUSHNET_AUTH", value_name = "WAY", default_value = "none")]
    pub auth: AuthMode,

    /// Serve on an address that others can reach although `auth` is `none`: anyone who knows a user's id
    /// may listen
    #[arg(long, env = "HUSHNET_INSECURE_NO_AUTH", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub insecure_no_auth: bool,

    /// The one algorithm that tokens may be signed with
    #[arg(long, env = "HUSHNET_JWT_ALGORITHM", value_name = "ALGORITHM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_algorithm: Option<JwtAlgorithm>,

    /// The key that tokens are checked with: for HS256 a secret of 32 bytes or more, else a public key in
    /// PEM
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

    /// Where the keys are published as a JSON Web Key Set. Each token names its key by `kid`
    #[arg(
        long,
        env = "HUSHNET_JWT_JWKS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_jwks_url: Option<KeysUrl>,

    /// What a token's `aud` must name. Without this setting a token that has an `aud` is refused
    #[arg(long, env = "HUSHNET_JWT_AUDIENCE", value_name = "AUDIENCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_audience: Option<String>,

    /// What a token's `iss` must be
    #[arg(long, env = "HUSHNET_JWT_ISSUER", value_name = "ISSUER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_issuer: Option<String>,

    /// By how many seconds the token issuer's clock and this server's may differ
    #[arg(long, env = "HUSHNET_JWT_LEEWAY_S", value_name = "SECONDS",
          default_value_t = 30, value_parser = within(0..=600))]
    pub jwt_leeway_s: u32,

    /// Accept a token also as `?token=`, where proxies may log it
    #[arg(long, env = "HUSHNET_JWT_IN_QUERY", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub jwt_in_query: bool,

    /// How many seconds a device's signed time may be off, either way
    #[arg(long, env = "HUSHNET_DEVICE_SIGNATURE_WINDOW_S", value_name = "SECONDS",
          default_value_t = 30, value_parser = within(1..=600))]
    pub device_signature_window_s: u32,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum AuthMode {
    /// Not at all: a client that knows a user's id is that user.
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

/// The algorithm that signs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: the key that checks tokens can also make them.
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
