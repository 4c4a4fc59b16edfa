//! Checks which user, and which device, a client is.
//!
//! A client proves it with a JSON Web Token (`token`) or with a device's signature of the time
//! (`signed_time`); the settings say which proofs are accepted. Knows neither HTTP nor WebSocket.
//!
//! A proof is true when it is checked. A device that is deleted later is revoked by an event
//! ([`crate::protocol::Revocation`]). A connection checks its device once more after it has
//! subscribed, so that no deletion falls between the two. Fails closed: a client that cannot be checked
//! is refused.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use super::confirmations::Confirmations;
use super::lookup::lookup;
use super::proof::{Credentials, Identity};
use super::signed_time::SignedTime;
use super::token::{Bearer, Tokens};
use super::used_signatures::UsedSignatures;
use crate::config::{AuthMode, ConfigError, IdentitySettings};
use crate::protocol::{AuthError, Kinds, Secret, UserKey, UserType};
use crate::store::Devices;

/// Checks what clients offer.
#[derive(Debug)]
pub struct Authenticator {
    mode: AuthMode,
    tokens: Option<Tokens>,
    signature_window: Duration,
    used_signatures: Mutex<UsedSignatures>,
    confirmations: Confirmations,
    devices: Devices,
    /// They know the type of the users.
    kinds: Arc<Kinds>,
    /// Whether it was said that signatures prove no user of this database.
    has_warned: AtomicBool,
}

impl Authenticator {
    /// An authenticator with these settings. It remembers up to `signatures_max` signatures that were
    /// used lately.
    ///
    /// # Errors
    /// [`ConfigError`] when tokens are to be taken and there is no key, or none that fits the algorithm.
    pub fn new(
        settings: &IdentitySettings,
        signatures_max: usize,
        devices: Devices,
        kinds: Arc<Kinds>,
    ) -> Result<Self, ConfigError> {
        let takes_tokens = settings.auth.takes_tokens();
        let window = Duration::from_secs(settings.device_signature_window_s.into());
        let used = UsedSignatures::new(window, signatures_max, Instant::now());
        Ok(Self {
            mode: settings.auth,
            tokens: takes_tokens.then(|| Tokens::new(settings)).transpose()?,
            signature_window: window,
            used_signatures: Mutex::new(used),
            confirmations: Confirmations::new(devices.clone()),
            devices,
            kinds,
            has_warned: AtomicBool::new(false),
        })
    }

    /// Whether clients have to prove their identity.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.mode != AuthMode::None
    }

    /// Fetches the published keys again and again, for ever.
    pub async fn run(&self) {
        match &self.tokens {
            Some(tokens) => tokens.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// Answers [`Authenticator::confirm_again`], for ever.
    pub async fn run_confirmations(&self) {
        self.confirmations.run().await;
    }

    /// The client's identity; `None` where clients need not prove it. `user` is the user that the
    /// client claims to be, if it does; `device_id` tells apart devices that have the same key.
    ///
    /// # Errors
    /// [`AuthError`], also when the proof is for another user.
    pub async fn identify(
        &self,
        credentials: &Credentials,
        user: Option<UserKey>,
        device_id: Option<Uuid>,
    ) -> Result<Option<Identity>, AuthError> {
        let identity = match (credentials, &self.tokens) {
            _ if !self.is_required() => return Ok(None),
            (Credentials::Token(token), Some(tokens)) => {
                self.identity_of(&tokens.check(token.expose()).await?)?
            }
            (Credentials::Signature(signed), _) if self.mode.takes_signatures() => {
                self.check_signature(signed, user, device_id).await?
            }
            _ => return Err(AuthError::CredentialsMissing),
        };
        match user {
            Some(user) if user != identity.user => Err(AuthError::OtherUser),
            _ => Ok(Some(identity)),
        }
    }

    /// The identity of a token's bearer.
    fn identity_of(&self, bearer: &Bearer) -> Result<Identity, AuthError> {
        let user = self.kinds.user_type().parse(&bearer.user_id);
        let user = user.map_err(|_| {
            if self.kinds.knows_user_type() {
                AuthError::TokenSubject
            } else {
                AuthError::Unavailable
            }
        })?;
        Ok(Identity {
            user,
            device_id: bearer.device_id,
            expires: bearer.expires,
        })
    }

    /// Whether devices and users are HushNet's, whose ids are uuids. Users of other types have no devices here, and
    /// nothing says which of them exist.
    fn has_devices(&self) -> bool {
        self.kinds.user_type() == UserType::Uuid
    }

    async fn check_signature(
        &self,
        offered: &SignedTime,
        user: Option<UserKey>,
        device_id: Option<Uuid>,
    ) -> Result<Identity, AuthError> {
        if !self.has_devices() {
            if !self.has_warned.swap(true, Relaxed) {
                tracing::error!(
                    event = "signatures_prove_no_user",
                    user_type = self.kinds.user_type().name(),
                    advice = "a device's signature proves a user whose id is a uuid, and this database has others; set \
                              auth = jwt"
                );
            }
            return Err(AuthError::SignatureUsers);
        }
        let user_id = user.map(UserKey::uuid);
        let signer = offered.verify(self.signature_window, SystemTime::now())?;
        let keys = &signer.key_texts;
        let found = lookup(self.devices.with_key(keys, user_id, device_id)).await?;
        let (device_id, user_id) = match *found {
            [] => return Err(AuthError::DeviceUnknown),
            [_, _, ..] if user_id.is_none() && device_id.is_none() => {
                return Err(AuthError::DeviceAmbiguous);
            }
            [found, ..] => found,
        };
        // Last, so that only signatures of devices that exist take memory.
        self.used_signatures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .accept(signer.second, Instant::now())?;
        Ok(Identity {
            user: user_id.into(),
            device_id: Some(device_id),
            expires: None,
        })
    }

    /// Checks a newer proof of the same identity.
    ///
    /// # Errors
    /// [`AuthError`], also when the proof is for another user or device.
    pub async fn renew(&self, identity: &Identity, token: Secret) -> Result<Identity, AuthError> {
        let token = Credentials::Token(token);
        let renewed = self.identify(&token, Some(identity.user), None).await?;
        match renewed {
            Some(renewed) if renewed.device_id == identity.device_id => Ok(renewed),
            Some(_) => Err(AuthError::OtherDevice),
            None => Ok(*identity),
        }
    }

    /// Checks that the device of the proof still exists, or the user if the proof names no device.
    ///
    /// # Errors
    /// [`AuthError::DeviceUnknown`] or [`AuthError::UserUnknown`] if it is not.
    pub async fn confirm(&self, identity: &Identity) -> Result<(), AuthError> {
        match identity.device_id {
            Some(device_id) => self.find_device(device_id, identity.user).await,
            None if !self.has_devices() => Ok(()),
            None if lookup(self.devices.user_exists(identity.user.uuid())).await? => Ok(()),
            None => Err(AuthError::UserUnknown),
        }
    }

    /// The same for a connection that may have missed a revocation. Many connections are looked up in one statement.
    ///
    /// # Errors
    /// As [`Authenticator::confirm`].
    pub async fn confirm_again(&self, identity: Identity) -> Result<(), AuthError> {
        if self.has_devices() {
            self.confirmations.confirm(identity).await
        } else {
            self.confirm(&identity).await
        }
    }

    /// Checks that this is the client's own device: the device of its proof, or any device of its user if
    /// the proof names none.
    ///
    /// # Errors
    /// [`AuthError::OtherDevice`] if it is not.
    pub async fn may_read(&self, identity: &Identity, device_id: Uuid) -> Result<(), AuthError> {
        if identity.device_id.is_some_and(|own| own != device_id) {
            return Err(AuthError::OtherDevice);
        }
        let found = self.find_device(device_id, identity.user).await;
        match (found, identity.device_id) {
            (Err(AuthError::DeviceUnknown), None) => Err(AuthError::OtherDevice),
            (found, _) => found,
        }
    }

    async fn find_device(&self, device_id: Uuid, user: UserKey) -> Result<(), AuthError> {
        if self.has_devices() && lookup(self.devices.exists(device_id, user.uuid())).await? {
            Ok(())
        } else {
            Err(AuthError::DeviceUnknown)
        }
    }
}
