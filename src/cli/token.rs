//! `token`: makes and checks tokens by the settings of the server, for development.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use hushnet_realtime::config::{Config, ConfigError};
use hushnet_realtime::identity::{Bearer, Signing, Tokens};
use hushnet_realtime::output;
use uuid::Uuid;

use super::user::user_id;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Make a token for the user with this id: a UUID, a bigint or text, as the database has them
    #[arg(long, value_name = "ID", value_parser = user_id, allow_hyphen_values = true,
          required_unless_present = "check")]
    user: Option<String>,
    /// Name this device of the user in it
    #[arg(long, value_name = "UUID", requires = "user")]
    device: Option<Uuid>,
    /// Seconds until it expires
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    expires_in_s: u64,
    /// The private key in PEM; HS256 needs none
    #[arg(long, value_name = "FILE")]
    signing_key_file: Option<PathBuf>,
    /// Check this token instead, and print its user and device
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    check: Option<String>,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = &arguments.config.identity;
    let Some(user_id) = arguments.user else {
        let token = arguments.check.unwrap_or_default();
        return check(&Tokens::new(settings)?, &token).await;
    };
    let private_key = match &arguments.signing_key_file {
        Some(path) => Some(
            std::fs::read(path).map_err(|cause| ConfigError::Unreadable {
                path: path.clone(),
                cause,
            })?,
        ),
        None => None,
    };
    let bearer = Bearer {
        user_id,
        device_id: arguments.device,
        expires: SystemTime::now().checked_add(Duration::from_secs(arguments.expires_in_s)),
    };
    let token = Signing::new(settings, private_key.as_deref())?.sign(&bearer)?;
    Ok(output::print_line(token)?)
}

/// Prints the token's user and device as JSON; fails with the code that the server would answer.
async fn check(tokens: &Tokens, token: &str) -> anyhow::Result<()> {
    let bearer = tokens
        .check(token)
        .await
        .map_err(|error| anyhow::anyhow!("{}: {}", error.code(), error.message()))?;
    let expires = bearer
        .expires
        .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
        .context("the token never expires")?;
    let found = serde_json::json!({
        "user_id": bearer.user_id,
        "device_id": bearer.device_id,
        "accepted_until": expires.as_secs(),
    });
    Ok(output::print_line(found)?)
}
