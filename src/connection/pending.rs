//! A connection that has subscribed and is not answered yet.

use std::sync::Arc;

use super::shared::Shared;
use crate::delivery::Subscription;
use crate::identity::Identity;
use crate::protocol::{Cursor, Encoding, NotACursor, Recipient, Sequence, UserType, WantedKinds};

/// What a client sent as its cursor. Shared: a connection's task has no room for a cursor of its own.
pub type Since = Result<Arc<Cursor>, NotACursor>;

/// A connection that has subscribed before its client is answered: what is committed after the client sees the
/// connection open reaches it.
#[derive(Debug)]
pub struct PendingConnection {
    pub(super) subscription: Subscription,
    /// The kinds of events that the client asks for; `None` if it names none.
    pub(super) kinds: Option<Arc<WantedKinds>>,
    /// The last signal that was routed before.
    pub(super) subscribed_after: Option<Sequence>,
    pub(super) encoding: Encoding,
    /// The type of users before the subscription.
    pub(super) user_type: UserType,
    /// The cursor that the client came with, or that it is none.
    pub(super) since: Option<Since>,
    /// Who the client has proven to be; `None` where no proof is asked for.
    pub(super) identity: Option<Identity>,
    /// Whether the feed was live at the subscription.
    pub(super) feed_was_live: bool,
}

impl PendingConnection {
    /// Subscribes a connection of this user, for these kinds of events.
    #[must_use]
    pub fn subscribe(
        shared: &Shared,
        recipient: impl Into<Recipient>,
        encoding: Encoding,
        since: Option<Since>,
        identity: Option<Identity>,
    ) -> Self {
        let Recipient { user, kinds } = recipient.into();
        let user_type = shared.user_type();
        // Read before the subscription begins: nothing that the subscription does not bring is skipped.
        let subscribed_after = shared.replay_buffer.last_sequence();
        let subscription = shared.hub.subscribe(user);
        let feed_was_live = shared.feed.borrow().serves(user);
        Self {
            subscription,
            kinds,
            subscribed_after,
            encoding,
            user_type,
            since,
            identity,
            feed_was_live,
        }
    }
}
