//! Who a client is: every route and every way to prove it, right and wrong; what ends a proof.

use std::time::SystemTime;

use hushnet_realtime::config::{AuthMode, Config};
use serde_json::json;

use self::proofs::{Device, Proof};
pub use self::proofs::{Key, token};
use crate::support::{Server, User, add_device, add_user, insert_message};

mod life;
mod proofs;
mod published;
mod table;

const AUDIENCE: &str = "realtime";
const ISSUER: &str = "https://issuer.example";

/// The settings of a server that takes tokens of this key.
pub fn takes_tokens(config: &mut Config, key: &Key) {
    config.identity.auth = AuthMode::Jwt;
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

/// The claims of a good token for this user.
pub fn claims(user: &User) -> serde_json::Value {
    json!({ "sub": user.id, "aud": AUDIENCE, "iss": ISSUER, "exp": unix_seconds() + 60 })
}
