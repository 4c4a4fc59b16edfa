//! Who a client is.
//!
//! It proves that with a JSON Web Token (`token`) or with a device's signature of the time
//! (`signature`); the settings say which are taken. Knows neither HTTP nor WebSocket. What a proof
//! says is true when it is checked: a device that is deleted later is told by an event of its own
//! ([`crate::wire::EventKind::Revocation`]), and a connection checks the device once more after it has
//! subscribed, so that none falls in between. Fails closed: whoever cannot be checked is nobody.

use std::time::{Duration, SystemTime};

use sqlx::PgPool;
use uuid::Uuid;

use self::signature::SignatureBook;
pub use self::signature::SignedTime;
pub use self::token::{Signing, SigningError, Tokens};
use crate::config::{AuthMode, ConfigError, IdentitySettings, Secret};
use crate::log::Log;
use crate::wire::CloseCode;

mod devices;
mod jwks;
mod signature;
mod token;

/// How long a look into `devices` may take, with waiting for a connection.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Who a client has proven to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user_id: Uuid,
    /// The device, if the proof names one.
    pub device_id: Option<Uuid>,
    /// Until when the proof is good; `None` for one that is good as long as the device exists.
    pub expires: Option<SystemTime>,
}

/// What a client offers as a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// A JSON Web Token.
    Token(Secret),
    /// A device's signature of the time.
    Signature(SignedTime),
}

/// Checks what clients offer.
#[derive(Debug)]
pub struct Authenticator {
    mode: AuthMode,
    tokens: Option<Tokens>,
    signatures: SignatureBook,
    log: Log,
}

impl Authenticator {
    /// One that acts on these settings. It remembers the signatures of up to `signatures_max` clients
    /// that came within the last moments.
    ///
    /// # Errors
    /// [`ConfigError`] when tokens are to be taken and there is no key, or none that fits the algorithm.
    pub fn new(
        settings: &IdentitySettings,
        signatures_max: usize,
        log: Log,
    ) -> Result<Self, ConfigError> {
        let takes_tokens = settings.auth.takes_tokens();
        Ok(Self {
            mode: settings.auth,
            tokens: takes_tokens.then(|| Tokens::new(settings)).transpose()?,
            signatures: SignatureBook::new(settings.device_signature_window(), signatures_max),
            log,
        })
    }

    /// Whether clients have to prove who they are.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.mode != AuthMode::None
    }

    /// Keeps the keys that are published somewhere fresh, for ever.
    pub async fn run(&self) {
        match &self.tokens {
            Some(tokens) => tokens.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// Who the client is; `None` where nobody has to prove it. `user_id` is whom it says it is, if it
    /// does; `device_id` tells devices apart that have the same key.
    ///
    /// # Errors
    /// [`AuthError`], also when the proof is somebody else's.
    pub async fn identify(
        &self,
        credentials: &Credentials,
        user_id: Option<Uuid>,
        device_id: Option<Uuid>,
    ) -> Result<Option<Identity>, AuthError> {
        let identity = match (credentials, &self.tokens) {
            _ if !self.is_required() => return Ok(None),
            (Credentials::Token(token), Some(tokens)) => tokens.check(token.expose()).await?,
            (Credentials::Signature(signed), _) if self.mode.takes_signatures() => {
                self.check_signature(signed, user_id, device_id).await?
            }
            _ => return Err(AuthError::CredentialsMissing),
        };
        match user_id {
            Some(user_id) if user_id != identity.user_id => Err(AuthError::OtherUser),
            _ => Ok(Some(identity)),
        }
    }

    async fn check_signature(
        &self,
        signed: &SignedTime,
        user_id: Option<Uuid>,
        device_id: Option<Uuid>,
    ) -> Result<Identity, AuthError> {
        let proven = self.signatures.verify(signed, SystemTime::now())?;
        let (pool, keys) = (self.pool(), &proven.key_texts);
        let found = lookup(devices::with_key(&pool, keys, user_id, device_id)).await?;
        let (device_id, user_id) = match *found {
            [] => return Err(AuthError::DeviceUnknown),
            [_, _, ..] if user_id.is_none() && device_id.is_none() => {
                return Err(AuthError::DeviceAmbiguous);
            }
            [found, ..] => found,
        };
        // Last, so that only a device that exists takes up memory.
        self.signatures.accept(&proven)?;
        Ok(Identity {
            user_id,
            device_id: Some(device_id),
            expires: None,
        })
    }

    /// A newer proof for who this is already.
    ///
    /// # Errors
    /// [`AuthError`], also when it is for someone else.
    pub async fn renew(&self, identity: &Identity, token: Secret) -> Result<Identity, AuthError> {
        let token = Credentials::Token(token);
        let renewed = self.identify(&token, Some(identity.user_id), None).await?;
        match renewed {
            Some(renewed) if renewed.device_id == identity.device_id => Ok(renewed),
            Some(_) => Err(AuthError::OtherDevice),
            None => Ok(*identity),
        }
    }

    /// Whether the device that the proof names is still there, or the user if it names none.
    ///
    /// # Errors
    /// [`AuthError::DeviceUnknown`] or [`AuthError::UserUnknown`] if it is not.
    pub async fn confirm(&self, identity: &Identity) -> Result<(), AuthError> {
        match identity.device_id {
            Some(device_id) => self.find_device(device_id, identity.user_id).await,
            None if lookup(devices::user_exists(&self.pool(), identity.user_id)).await? => Ok(()),
            None => Err(AuthError::UserUnknown),
        }
    }

    /// Whether this is the client's own device: the one of its proof, or one of the user's if the proof
    /// names none.
    ///
    /// # Errors
    /// [`AuthError::OtherDevice`] if it is not.
    pub async fn may_read(&self, identity: &Identity, device_id: Uuid) -> Result<(), AuthError> {
        if identity.device_id.is_some_and(|own| own != device_id) {
            return Err(AuthError::OtherDevice);
        }
        let found = self.find_device(device_id, identity.user_id).await;
        match (found, identity.device_id) {
            (Err(AuthError::DeviceUnknown), None) => Err(AuthError::OtherDevice),
            (found, _) => found,
        }
    }

    async fn find_device(&self, device_id: Uuid, user_id: Uuid) -> Result<(), AuthError> {
        if lookup(devices::exists(&self.pool(), device_id, user_id)).await? {
            Ok(())
        } else {
            Err(AuthError::DeviceUnknown)
        }
    }

    fn pool(&self) -> PgPool {
        self.log.requests()
    }
}

async fn lookup<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, AuthError> {
    match tokio::time::timeout(LOOKUP_TIMEOUT, read).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(event = "identity_lookup_failed", %error);
            Err(AuthError::Unavailable)
        }
        Err(_) => Err(AuthError::Unavailable),
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// No proof, or none of a kind that is taken.
    CredentialsMissing,
    /// No token at all, or one without the claims that are needed.
    TokenMalformed,
    /// Signed with another algorithm than the configured one, or with none.
    TokenAlgorithm,
    /// Signed with a key that is not published.
    TokenKeyUnknown,
    /// Not signed with the key.
    TokenSignature,
    /// `exp` is past.
    TokenExpired,
    /// `nbf` is to come.
    TokenNotYetValid,
    /// `aud` is for another service.
    TokenAudience,
    /// `iss` is someone else.
    TokenIssuer,
    /// Not a key, a signature and a time.
    SignatureMalformed,
    /// The time was not signed with the key.
    SignatureInvalid,
    /// The time is too far from ours.
    SignatureStale,
    /// The signature has been used.
    SignatureReplayed,
    /// There is no such device.
    DeviceUnknown,
    /// There is no such user.
    UserUnknown,
    /// Several users' devices have this key.
    DeviceAmbiguous,
    /// The proof is of another user than the one asked for.
    OtherUser,
    /// The proof is of another device than the one asked for.
    OtherDevice,
    /// Who it is cannot be found out now.
    Unavailable,
}

impl AuthError {
    /// Every reason, in the order of its discriminants.
    pub const ALL: [Self; 19] = [
        Self::CredentialsMissing,
        Self::TokenMalformed,
        Self::TokenAlgorithm,
        Self::TokenKeyUnknown,
        Self::TokenSignature,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenAudience,
        Self::TokenIssuer,
        Self::SignatureMalformed,
        Self::SignatureInvalid,
        Self::SignatureStale,
        Self::SignatureReplayed,
        Self::DeviceUnknown,
        Self::UserUnknown,
        Self::DeviceAmbiguous,
        Self::OtherUser,
        Self::OtherDevice,
        Self::Unavailable,
    ];

    /// The `code` of the answer, and the value of the label `reason` in the metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::CredentialsMissing => "credentials_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenKeyUnknown => "token_key_unknown",
            Self::TokenSignature => "token_signature",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenAudience => "token_audience",
            Self::TokenIssuer => "token_issuer",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureInvalid => "signature_invalid",
            Self::SignatureStale => "signature_stale",
            Self::SignatureReplayed => "signature_replayed",
            Self::DeviceUnknown => "device_unknown",
            Self::UserUnknown => "user_unknown",
            Self::DeviceAmbiguous => "device_ambiguous",
            Self::OtherUser => "other_user",
            Self::OtherDevice => "other_device",
            Self::Unavailable => "identity_unavailable",
        }
    }

    /// What the client's developer needs to know.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::CredentialsMissing => {
                "prove who you are, in a way that this server takes: a token as Authorization: \
                 Bearer, or X-Identity-Key, X-Signature and X-Timestamp"
            }
            Self::TokenMalformed => {
                "the token must be a JSON Web Token with exp and, as sub, the user's UUID; a \
                 device_id must be a UUID"
            }
            Self::TokenAlgorithm => "the token is signed with an algorithm that is not accepted",
            Self::TokenKeyUnknown => "the token's kid names no published key",
            Self::TokenSignature => "the token's signature is not of the key that is accepted",
            Self::TokenExpired => "the token has expired",
            Self::TokenNotYetValid => "the token is not valid yet",
            Self::TokenAudience => "the token's aud does not name this service",
            Self::TokenIssuer => "the token's iss is not the one that is accepted",
            Self::SignatureMalformed => {
                "identity key and signature must be 32 and 64 bytes in base64, the timestamp Unix \
                 seconds in digits"
            }
            Self::SignatureInvalid => "the signature is not the identity key's over the timestamp",
            Self::SignatureStale => "the timestamp is too far from this server's time",
            Self::SignatureReplayed => "this signature has been used; sign another second",
            Self::DeviceUnknown => "there is no such device",
            Self::UserUnknown => "there is no such user",
            Self::DeviceAmbiguous => "several users have a device with this key: give user_id",
            Self::OtherUser => "what was proven is the identity of another user",
            Self::OtherDevice => "what was proven is the identity of another device",
            Self::Unavailable => "who you are cannot be found out now; ask again",
        }
    }

    /// What a WebSocket is closed with whose client can be told in no other way.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::TokenExpired => CloseCode::TokenExpired,
            Self::DeviceUnknown | Self::UserUnknown => CloseCode::Revoked,
            Self::Unavailable => CloseCode::TryAgainLater,
            _ => CloseCode::Unauthenticated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_lists_every_code() {
        let protocol = include_str!("../docs/protocol.md");
        for error in AuthError::ALL {
            let code = format!("`{}`", error.code());
            assert!(protocol.contains(&code), "docs/protocol.md lacks {code}");
        }
    }

    #[test]
    fn the_reasons_stand_in_the_order_of_their_counters() {
        for (place, error) in AuthError::ALL.into_iter().enumerate() {
            assert_eq!(error as usize, place);
        }
    }
}
