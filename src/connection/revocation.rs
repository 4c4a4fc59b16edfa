//! Who holds a connection, and whether a revocation closes it. What may have been missed of revocations is looked
//! up again. Pure: the caller asks the database and the clock.

use std::time::{Duration, SystemTime};

use crate::identity::Identity;
use crate::protocol::{Revocation, Secret, Signal};

/// The client that holds a connection.
#[derive(Debug)]
pub(super) struct Holder {
    /// Boxed: a connection without an identity has no room for it.
    identity: Option<Box<Identity>>,
    /// Whether the identity has to be looked up again, since a revocation may have been missed.
    in_doubt: bool,
    /// A newer token that has not been checked.
    offered: Option<Secret>,
}

/// What has to be checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Whether the device or the user is still there.
    Confirm(Identity),
    /// A newer token, for this identity; `None` where no identity is asked for.
    Renew(Option<Identity>, Secret),
}

impl Holder {
    /// The client has proven this. `feed_was_live` says whether revocations were being routed when the
    /// connection subscribed; if not, one may have been missed.
    pub(super) fn new(identity: Option<Identity>, feed_was_live: bool) -> Self {
        Self {
            in_doubt: identity.is_some() && !feed_was_live,
            identity: identity.map(Box::new),
            offered: None,
        }
    }

    /// Whether the client has proven who it is.
    pub(super) fn is_identified(&self) -> bool {
        self.identity.is_some()
    }

    /// How long the proof is still good at this time of the wall clock; `None` if it does not expire.
    pub(super) fn time_left(&self, now: SystemTime) -> Option<Duration> {
        let left = self.identity.as_ref()?.expires?.duration_since(now);
        Some(left.unwrap_or_default())
    }

    /// A revocation may have been missed: the identity is looked up again.
    pub(super) fn doubt(&mut self) {
        self.in_doubt = self.identity.is_some();
    }

    /// This signal is not sent, since the client's cursor claims that it has been. A cursor can be made up, and a device
    /// can be back: of a revocation the look-up decides.
    pub(super) fn skip(&mut self, signal: &Signal) {
        if matches!(signal, Signal::Revocation(revocation) if self.is_revoked_by(revocation)) {
            self.doubt();
        }
    }

    /// The client sent a newer token; only the newest is checked.
    pub(super) fn offer(&mut self, token: Secret) {
        self.offered = Some(token);
    }

    /// The newer token was good.
    pub(super) fn renew(&mut self, identity: Identity) {
        self.identity = Some(Box::new(identity));
    }

    /// Whether this revocation closes the connection.
    pub(super) fn is_revoked_by(&self, revocation: &Revocation) -> bool {
        revocation.concerns(self.identity.as_ref().and_then(|own| own.device_id))
    }

    /// Whether something has to be checked.
    #[inline]
    pub(super) fn has_check(&self) -> bool {
        self.in_doubt || self.offered.is_some()
    }

    /// Takes the next thing to check: first the identity that is in doubt, then the newer token.
    pub(super) fn take_check(&mut self) -> Option<Check> {
        let identity = self.identity.as_deref().copied();
        if std::mem::take(&mut self.in_doubt)
            && let Some(identity) = identity
        {
            return Some(Check::Confirm(identity));
        }
        self.offered
            .take()
            .map(|token| Check::Renew(identity, token))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn identity(device_id: Option<Uuid>) -> Identity {
        Identity {
            user: Uuid::from_u128(1).into(),
            device_id,
            expires: None,
        }
    }

    fn revocation(device_id: Option<Uuid>) -> Revocation {
        Revocation {
            device_id,
            xid: None,
            sequence: None,
            cursor: None,
        }
    }

    #[test]
    fn a_revocation_closes_the_device_that_it_names_and_every_device_of_a_deleted_user() {
        let (own, other) = (Uuid::from_u128(2), Uuid::from_u128(3));
        let known = Holder::new(Some(identity(Some(own))), true);
        assert!(known.is_revoked_by(&revocation(Some(own))));
        assert!(!known.is_revoked_by(&revocation(Some(other))));
        assert!(known.is_revoked_by(&revocation(None)));
        let without_device = Holder::new(Some(identity(None)), true);
        assert!(!without_device.is_revoked_by(&revocation(Some(own))));
        assert!(without_device.is_revoked_by(&revocation(None)));
    }

    #[test]
    fn an_identity_is_in_doubt_where_a_revocation_may_have_been_missed() {
        let proven = identity(None);
        let mut missed = Holder::new(Some(proven), false);
        assert!(missed.has_check());
        assert_eq!(missed.take_check(), Some(Check::Confirm(proven)));
        assert_eq!(missed.take_check(), None);
        assert!(!missed.has_check());
        let mut sure = Holder::new(Some(proven), true);
        assert!(!sure.has_check() && sure.is_identified());
        sure.doubt();
        assert_eq!(sure.take_check(), Some(Check::Confirm(proven)));
    }

    #[test]
    fn a_client_without_an_identity_is_never_in_doubt() {
        let mut holder = Holder::new(None, false);
        holder.doubt();
        assert!(!holder.has_check() && !holder.is_identified());
        assert_eq!(holder.take_check(), None);
    }

    #[test]
    fn a_doubt_is_checked_before_a_newer_token_and_only_the_newest_token_is() {
        let (first, renewed) = (identity(None), identity(Some(Uuid::from_u128(2))));
        let mut holder = Holder::new(Some(first), true);
        holder.offer("older".into());
        holder.offer("newer".into());
        assert!(holder.has_check());
        holder.doubt();
        assert_eq!(holder.take_check(), Some(Check::Confirm(first)));
        let renew = Check::Renew(Some(first), "newer".into());
        assert_eq!(holder.take_check(), Some(renew));
        assert_eq!(holder.take_check(), None);
        holder.renew(renewed);
        holder.doubt();
        assert_eq!(holder.take_check(), Some(Check::Confirm(renewed)));
        let mut nobody = Holder::new(None, true);
        nobody.offer("token".into());
        assert_eq!(
            nobody.take_check(),
            Some(Check::Renew(None, "token".into()))
        );
    }

    #[test]
    fn the_time_left_ends_at_zero() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let left = |expires: Option<u64>| {
            let expires = expires.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
            let identity = Identity {
                expires,
                ..identity(None)
            };
            Holder::new(Some(identity), true).time_left(now)
        };
        assert_eq!(left(None), None);
        assert_eq!(left(Some(1_030)), Some(Duration::from_secs(30)));
        assert_eq!(left(Some(999)), Some(Duration::ZERO));
    }
}
