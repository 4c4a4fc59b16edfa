//! Proofs of identity, valid and invalid, as clients send them.

use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use hushnet_realtime::config::JwtAlgorithm;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::User;

/// The headers of a request that carry a proof.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// Header lines, each with its line's end.
    pub headers: String,
}

impl Proof {
    pub fn bearer(token: &str) -> Self {
        Self {
            headers: format!("Authorization: Bearer {token}\r\n"),
        }
    }
}

/// A key that signs tokens, and what the server checks them with.
#[derive(Debug)]
pub struct Key {
    pub algorithm: JwtAlgorithm,
    pub public: String,
    private: String,
}

impl Key {
    fn pair(algorithm: JwtAlgorithm, pair: &KeyPair) -> Self {
        Self {
            algorithm,
            public: pair.public_key_pem(),
            private: pair.serialize_pem(),
        }
    }

    /// Made once: an RSA key takes seconds.
    pub fn rsa() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(Self::another_rsa)
    }

    pub fn another_rsa() -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        Self::pair(JwtAlgorithm::Rs256, &pair)
    }

    pub fn p256() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self::pair(JwtAlgorithm::Es256, &pair)
    }

    pub fn ed25519() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        Self::pair(JwtAlgorithm::EdDsa, &pair)
    }

    pub fn secret() -> Self {
        let secret = Uuid::new_v4().to_string();
        Self {
            algorithm: JwtAlgorithm::Hs256,
            public: secret.clone(),
            private: secret,
        }
    }

    pub fn signs(&self) -> EncodingKey {
        let pem = self.private.as_bytes();
        match self.algorithm {
            JwtAlgorithm::Hs256 => EncodingKey::from_secret(pem),
            JwtAlgorithm::Rs256 => EncodingKey::from_rsa_pem(pem).unwrap(),
            JwtAlgorithm::Es256 => EncodingKey::from_ec_pem(pem).unwrap(),
            JwtAlgorithm::EdDsa => EncodingKey::from_ed_pem(pem).unwrap(),
        }
    }

    pub fn header(&self) -> Header {
        Header::new(match self.algorithm {
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Es256 => Algorithm::ES256,
            JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        })
    }
}

/// A token with these claims.
pub fn token(key: &Key, claims: &Value) -> String {
    encode(&key.header(), claims, &key.signs()).unwrap()
}

/// A token that says it is signed with `algorithm`, with whatever signature.
pub fn forged(algorithm: &str, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = serde_json::json!({ "alg": algorithm, "typ": "JWT" });
    format!("{}.{}.{signature}", part(&header), part(claims))
}

/// A device with a key of its own.
#[derive(Debug, Clone)]
pub struct Device {
    key: SigningKey,
    pub id: Uuid,
}

impl Device {
    /// A device of this user, as it stands in the application's table.
    pub async fn of(pool: &PgPool, user: &User) -> Self {
        let key = SigningKey::from_bytes(&rand::random());
        let id = sqlx::query_scalar(
            "INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, \
             signed_prekey_sig, one_time_prekeys) VALUES ($1, $2, '', '', '', '[]') RETURNING id",
        )
        .bind(user.id)
        .bind(BASE64_STANDARD.encode(key.verifying_key().as_bytes()))
        .fetch_one(pool)
        .await
        .unwrap();
        Self { key, id }
    }

    fn signature(&self, seconds: u64) -> [u8; 64] {
        self.key.sign(seconds.to_string().as_bytes()).to_bytes()
    }

    /// The headers of HushNet's API.
    pub fn signs(&self, seconds: u64) -> Proof {
        Proof {
            headers: format!(
                "X-Identity-Key: {}\r\nX-Signature: {}\r\nX-Timestamp: {seconds}\r\n",
                BASE64_STANDARD.encode(self.key.verifying_key().as_bytes()),
                BASE64_STANDARD.encode(self.signature(seconds)),
            ),
        }
    }

    /// The same as a browser has to send it.
    pub fn subprotocol(&self, seconds: u64) -> String {
        format!(
            "hushnet.device.{}.{}.{seconds}",
            BASE64_URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes()),
            BASE64_URL_SAFE_NO_PAD.encode(self.signature(seconds)),
        )
    }

    /// And as a query.
    pub fn query(&self, seconds: u64) -> String {
        format!(
            "identity_key={}&signature={}&timestamp={seconds}",
            BASE64_URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes()),
            BASE64_URL_SAFE_NO_PAD.encode(self.signature(seconds)),
        )
    }
}
