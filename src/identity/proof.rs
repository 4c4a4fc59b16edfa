//! The proof that a client offers, and the identity that it proves.

use std::time::SystemTime;

use uuid::Uuid;

use super::signed_time::SignedTime;
use crate::protocol::{Secret, UserKey};

/// The identity that a client has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserKey,
    /// The device, if the proof names one.
    pub device_id: Option<Uuid>,
    /// When the proof expires; `None` for a proof that is good as long as the device exists.
    pub expires: Option<SystemTime>,
}

/// The proof that a client offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// A JSON Web Token.
    Token(Secret),
    /// A device's signature of the time.
    Signature(SignedTime),
}
