//! What a client offers as a proof, and who it has proven to be.

use std::time::SystemTime;

use uuid::Uuid;

use super::signature::SignedTime;
use crate::protocol::Secret;

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
