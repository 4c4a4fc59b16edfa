//! Identity: every route with every proof, valid and invalid, and what ends a proof's validity.

use std::time::SystemTime;

use hushnet_realtime::config::{AuthMode, Config};
use serde_json::json;

use self::proofs::{Device, Proof};
pub use self::proofs::{Key, token};
use crate::support::{Server, User, add_device, add_user, insert_message};

mod doubts;
mod life;
mod logins;
mod proofs;
mod published;
mod table;

const AUDIENCE: &str = "realtime";
const ISSUER: &str = "https://issuer.example";

/// The settings of a server that takes tokens of this key.
pub fn takes_tokens(config: &mut Config, key: &Key) {
    config.identity.auth = AuthMode::Jwt;
    config.edge.metrics = Some(true);
    config.identity.jwt_algorithm = Some(key.algorithm);
    config.identity.jwt_key = Some(key.public.as_str().into());
    config.identity.jwt_audience = Some(AUDIENCE.to_owned());
    config.identity.jwt_issuer = Some(ISSUER.to_owned());
    config.identity.jwt_leeway_s = 0;
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Longer than any test takes.
const LIFETIME_S: u64 = 3_600;
/// The longest that the settings admit. A signature made at a test's start must still be valid at its end.
const SIGNATURE_WINDOW_S: u32 = 600;

/// The settings of a server that takes signatures of devices.
fn takes_signatures(config: &mut Config, auth: AuthMode) {
    config.identity.auth = auth;
    config.edge.metrics = Some(true);
    config.identity.device_signature_window_s = SIGNATURE_WINDOW_S;
}

/// The header lines with which a new device of this user proves its identity now.
pub async fn signed_by_a_device_of(server: &Server, user: &User) -> String {
    let device = Device::of(&server.db().await, user).await;
    device.signs(unix_seconds()).headers
}

/// The claims of a valid token for this user.
pub fn claims(user: &User) -> serde_json::Value {
    claims_of(&json!(user.id))
}

/// The same for the user with this id.
pub fn claims_of(user_id: &serde_json::Value) -> serde_json::Value {
    json!({ "sub": user_id, "aud": AUDIENCE, "iss": ISSUER, "exp": unix_seconds() + LIFETIME_S })
}
