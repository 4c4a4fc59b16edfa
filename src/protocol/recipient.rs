//! Who is sent events.

use std::sync::Arc;

use uuid::Uuid;

use super::WantedKinds;

/// Whose events are wanted, and which of them.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The user.
    pub user_id: Uuid,
    /// The kinds of events; `None` for all.
    pub kinds: Option<Arc<WantedKinds>>,
}

impl From<Uuid> for Recipient {
    /// All of the user's events.
    fn from(user_id: Uuid) -> Self {
        Self {
            user_id,
            kinds: None,
        }
    }
}
