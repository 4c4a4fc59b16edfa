//! Who a client is.
//!
//! It proves that with a JSON Web Token (`token`) or with a device's signature of the time
//! (`signature`); the settings say which are taken. Knows neither HTTP nor WebSocket. What a proof
//! says is true when it is checked: a device that is deleted later is told by an event of its own
//! ([`crate::protocol::Revocation`]), and a connection checks the device once more after it has
//! subscribed, so that none falls in between. Fails closed: whoever cannot be checked is nobody.

use std::time::SystemTime;

use uuid::Uuid;

use super::proof::{Credentials, Identity};
use super::signature::{LOOKUP_TIMEOUT, SignatureBook, SignedTime};
use super::token::Tokens;
use crate::config::{AuthMode, ConfigError, IdentitySettings};
use crate::protocol::{AuthError, Secret};
use crate::store::Devices;

/// Checks what clients offer.
#[derive(Debug)]
pub struct Authenticator {
    mode: AuthMode,
    tokens: Option<Tokens>,
    signatures: SignatureBook,
    devices: Devices,
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
        devices: Devices,
    ) -> Result<Self, ConfigError> {
        let takes_tokens = settings.auth.takes_tokens();
        Ok(Self {
            mode: settings.auth,
            tokens: takes_tokens.then(|| Tokens::new(settings)).transpose()?,
            signatures: SignatureBook::new(settings.device_signature_window(), signatures_max),
            devices,
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
        let keys = &proven.key_texts;
        let found = lookup(self.devices.with_key(keys, user_id, device_id)).await?;
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
            None if lookup(self.devices.user_exists(identity.user_id)).await? => Ok(()),
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
        if lookup(self.devices.exists(device_id, user_id)).await? {
            Ok(())
        } else {
            Err(AuthError::DeviceUnknown)
        }
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
