//! The connected users, and the way of a signal to their connections.
//!
//! One [`broadcast`] channel for each connected user, in a sharded map: a signal costs one lookup and one send,
//! however many other users are connected. Knows no SQL, no HTTP and no WebSocket.
//!
//! Two rules keep it free of races. `tests/hub_model.rs` checks both in every interleaving of two
//! threads and, with up to three preemptions, of three; `tests/hub_stress.rs` checks this code:
//! - a subscriber takes its receiver while it holds the map's entry, so that a sender is never
//!   removed between being found and being subscribed to;
//! - a subscriber that leaves drops its receiver first and then removes the sender if no receiver
//!   is left, decided under the entry's lock. In the opposite order, two subscribers that leave at once
//!   would each see the other's receiver, and the entry would never be removed.
//!
//! Memory: a connected user costs one map entry and one ring of `capacity` slots, rounded up to a
//! power of two and allocated at once (648 bytes at 16). A user without a connection costs nothing.

use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use tokio::sync::broadcast;

use super::interest::Interest;
use crate::protocol::{Shard, Signal, UserKey};

/// The map from a user to the channel that its connections listen to. Cheap to clone: every clone
/// is the same hub.
#[derive(Debug, Clone)]
pub struct Hub {
    users: Arc<DashMap<UserKey, broadcast::Sender<Arc<Signal>>, RandomState>>,
    /// The shards of the connected users.
    interest: Arc<Interest>,
    /// Slots of each user's channel: events that a connection may be behind before it lags.
    capacity: usize,
}

impl Hub {
    /// An empty hub whose channels hold `capacity` events each.
    ///
    /// # Panics
    /// If `capacity` is 0; the configuration does not admit it.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a channel of no slots carries nothing");
        Self {
            users: Arc::default(),
            interest: Arc::default(),
            capacity,
        }
    }

    /// Subscribes one connection to its user's events, from now until it is dropped.
    #[must_use]
    pub fn subscribe(&self, user: impl Into<UserKey>) -> Subscription {
        let user = user.into();
        self.interest.enter(Shard::of(user));
        let receiver = self
            .users
            .entry(user)
            .or_insert_with(|| broadcast::Sender::new(self.capacity))
            .subscribe();
        Subscription {
            hub: self.clone(),
            user,
            receiver: Some(receiver),
        }
    }

    /// Hands a signal to every connection of this user and returns their number: 0 when the user is not
    /// connected here, and then the signal is not made. Never waits; a connection that falls behind by more
    /// than the capacity finds out when it reads.
    pub fn publish(&self, user: impl Into<UserKey>, signal: impl FnOnce() -> Arc<Signal>) -> usize {
        match self.users.get(&user.into()) {
            Some(sender) => sender.send(signal()).unwrap_or(0),
            None => 0,
        }
    }

    /// Hands the signal to every connection of every user. The cost grows with the users: for what concerns
    /// them all and is rare.
    pub fn publish_to_all(&self, signal: &Arc<Signal>) {
        for sender in self.users.iter() {
            // An error says that its last connection is just leaving.
            let _ = sender.send(Arc::clone(signal));
        }
    }

    /// The shards of the connected users.
    #[must_use]
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// How many users have at least one connection.
    #[must_use]
    pub fn users_connected(&self) -> usize {
        self.users.len()
    }
}

/// One connection's subscription. Dropping the last subscription of a user removes the user from the hub.
#[derive(Debug)]
pub struct Subscription {
    hub: Hub,
    user: UserKey,
    /// `None` only inside `drop`.
    receiver: Option<broadcast::Receiver<Arc<Signal>>>,
}

impl Subscription {
    /// The user whose signals it receives.
    #[must_use]
    pub fn user(&self) -> UserKey {
        self.user
    }

    /// The receiving end. Cancel-safe to wait on.
    ///
    /// # Panics
    /// Never: the receiver is there until the subscription is dropped.
    pub fn receiver(&mut self) -> &mut broadcast::Receiver<Arc<Signal>> {
        match &mut self.receiver {
            Some(receiver) => receiver,
            None => unreachable!("only drop takes the receiver"),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        drop(self.receiver.take());
        self.hub
            .users
            .remove_if(&self.user, |_, sender| sender.receiver_count() == 0);
        self.hub.interest.leave(Shard::of(self.user));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;
    use uuid::Uuid;

    use super::*;

    fn signal() -> Arc<Signal> {
        Arc::new(Signal::Wake)
    }

    #[test]
    fn a_signal_reaches_every_connection_of_its_user_and_no_other() {
        let hub = Hub::new(16);
        let (alice, bob) = (Uuid::new_v4(), Uuid::new_v4());
        let (mut phone, mut laptop) = (hub.subscribe(alice), hub.subscribe(alice));
        let mut other = hub.subscribe(bob);

        assert_eq!(hub.publish(alice, signal), 2);

        let on_phone = phone.receiver().try_recv().unwrap();
        let on_laptop = laptop.receiver().try_recv().unwrap();
        assert!(Arc::ptr_eq(&on_phone, &on_laptop));
        assert_eq!(
            other.receiver().try_recv().unwrap_err(),
            TryRecvError::Empty
        );
    }

    #[test]
    fn a_user_is_there_from_the_first_connection_to_the_last() {
        let hub = Hub::new(16);
        let alice = Uuid::new_v4();
        assert_eq!(hub.publish(alice, signal), 0);

        let first = hub.subscribe(alice);
        let second = hub.subscribe(alice);
        assert_eq!(hub.users_connected(), 1);
        drop(first);
        assert_eq!(hub.publish(alice, signal), 1);
        drop(second);
        assert_eq!(hub.users_connected(), 0);
        assert_eq!(hub.publish(alice, signal), 0);
    }

    #[test]
    fn a_connection_that_falls_behind_learns_by_how_much() {
        let hub = Hub::new(4);
        let alice = Uuid::new_v4();
        let mut slow = hub.subscribe(alice);
        for _ in 0..10 {
            hub.publish(alice, signal);
        }
        assert_eq!(
            slow.receiver().try_recv().unwrap_err(),
            TryRecvError::Lagged(6)
        );
        assert!(slow.receiver().try_recv().is_ok());
    }
}
