//! Who is sent events.

use std::sync::Arc;

use uuid::Uuid;

use super::{UserKey, WantedKinds};

/// Whose events are wanted, and which of them.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The user.
    pub user: UserKey,
    /// The kinds of events; `None` for all.
    pub kinds: Option<Arc<WantedKinds>>,
}

impl From<UserKey> for Recipient {
    /// All of the user's events.
    fn from(user: UserKey) -> Self {
        Self { user, kinds: None }
    }
}

impl From<Uuid> for Recipient {
    /// All events of the user with this id.
    fn from(id: Uuid) -> Self {
        UserKey::from(id).into()
    }
}
