//! Looks up again the identities of connections, many in one statement.
//!
//! After a reset every connection has to be looked up again. One task sends these look-ups: while one statement runs,
//! the next identities gather. So they take one of the connections for look-ups, however many they are, and
//! the others are left to clients that come.
//!
//! An identity is only answered by a statement that was sent after the identity was asked for, so that the statement
//! sees each revocation of before. Fails closed: every identity of a statement that fails is refused.

use std::collections::HashSet;

use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use super::lookup::{LOOKUP_TIMEOUT, lookup};
use super::proof::Identity;
use crate::protocol::AuthError;
use crate::store::Devices;

/// Identities in one statement.
const BATCH_MAX: usize = 1_000;
/// Identities that wait for the next statement. Further connections wait until there is room.
const WAITING_MAX: usize = 1_000;

/// An identity that a connection waits for.
#[derive(Debug)]
struct Doubt {
    identity: Identity,
    answer: oneshot::Sender<Result<(), AuthError>>,
}

/// The identities to be looked up again.
#[derive(Debug)]
pub(super) struct Confirmations {
    devices: Devices,
    waiting: mpsc::Sender<Doubt>,
    next: Mutex<mpsc::Receiver<Doubt>>,
}

impl Confirmations {
    pub(super) fn new(devices: Devices) -> Self {
        let (waiting, next) = mpsc::channel(WAITING_MAX);
        Self {
            devices,
            waiting,
            next: Mutex::new(next),
        }
    }

    /// Answers for ever. Only one caller at a time.
    pub(super) async fn run(&self) {
        let mut next = self.next.lock().await;
        let mut doubts = Vec::with_capacity(BATCH_MAX);
        loop {
            next.recv_many(&mut doubts, BATCH_MAX).await;
            // Connections that have ended or given up.
            doubts.retain(|doubt| !doubt.answer.is_closed());
            let found = Found::of(&self.devices, &doubts).await;
            for doubt in doubts.drain(..) {
                let confirmed = match &found {
                    Ok(found) => found.confirm(&doubt.identity),
                    Err(error) => Err(*error),
                };
                // The connection may have ended meanwhile.
                let _ = doubt.answer.send(confirmed);
            }
        }
    }

    /// Checks that the device of the proof still exists, or the user if the proof names no device.
    pub(super) async fn confirm(&self, identity: Identity) -> Result<(), AuthError> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            let doubt = Doubt { identity, answer };
            self.waiting.send(doubt).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(LOOKUP_TIMEOUT, asking).await {
            Ok(Some(confirmed)) => confirmed,
            Ok(None) | Err(_) => Err(AuthError::Unavailable),
        }
    }
}

/// Those of a batch's devices and users that exist.
#[derive(Debug)]
struct Found {
    /// (device, user)
    devices: HashSet<(Uuid, Uuid)>,
    users: HashSet<Uuid>,
}

impl Found {
    async fn of(devices: &Devices, doubts: &[Doubt]) -> Result<Self, AuthError> {
        let (mut device_ids, mut user_ids) = (Vec::new(), Vec::new());
        for Doubt { identity, .. } in doubts {
            match identity.device_id {
                Some(device_id) => device_ids.push(device_id),
                None => user_ids.push(identity.user.uuid()),
            }
        }
        let mut found = Self {
            devices: HashSet::new(),
            users: HashSet::new(),
        };
        if !device_ids.is_empty() {
            let existing = lookup(devices.existing(&device_ids)).await?;
            found.devices.extend(existing);
        }
        if !user_ids.is_empty() {
            let existing = lookup(devices.existing_users(user_ids)).await?;
            found.users.extend(existing);
        }
        Ok(found)
    }

    fn confirm(&self, identity: &Identity) -> Result<(), AuthError> {
        match identity.device_id {
            Some(device_id) if self.devices.contains(&(device_id, identity.user.uuid())) => Ok(()),
            Some(_) => Err(AuthError::DeviceUnknown),
            None if self.users.contains(&identity.user.uuid()) => Ok(()),
            None => Err(AuthError::UserUnknown),
        }
    }
}
