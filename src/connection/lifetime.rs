//! What ends a connection, or may: silence, a blocked write, an identity that is no longer good, and a
//! server that drains.

use std::sync::Arc;
use std::time::SystemTime;

use super::client::Connection;
use crate::connection::{Clock, Moment};
use crate::frame::Frame;
use crate::identity::Identity;
use crate::protocol::{AuthError, CloseCode, Closed, Event, Notice, Secret};

/// When the proof is no longer good; `None` for never.
pub(super) fn expiry(clock: &Clock, identity: &Identity) -> Option<Moment> {
    let left = identity.expires?.duration_since(SystemTime::now());
    Some(clock.exactly_now() + left.unwrap_or_default())
}

impl Connection {
    /// When one of its times is up.
    pub(super) fn deadline(&self) -> Moment {
        let silence = match self.pinged {
            Some(pinged) => pinged + self.shared.pong_timeout,
            None => self.heard + self.shared.ping_interval,
        };
        let blocked = self
            .writing_since
            .map(|since| since + self.shared.write_timeout);
        [blocked, self.expires, self.confirm_at, self.leave_at]
            .into_iter()
            .flatten()
            .fold(silence, Moment::min)
    }

    /// Does what is due and has the clock wake it for what comes next.
    pub(super) fn look_at_deadlines(&mut self) -> Result<(), Closed> {
        self.take_tick(self.shared.clock.now())?;
        self.look_at = self.deadline();
        let user_id = self.subscription.user_id();
        self.look_at = self.shared.clock.wake_at(user_id, self.look_at);
        Ok(())
    }

    pub(super) fn take_tick(&mut self, now: Moment) -> Result<(), Closed> {
        let over = |deadline: Option<Moment>| deadline.is_some_and(|deadline| now >= deadline);
        let blocked = self
            .writing_since
            .map(|since| since + self.shared.write_timeout);
        let unanswered = self.pinged.map(|pinged| pinged + self.shared.pong_timeout);
        for (deadline, code) in [
            (self.leave_at, CloseCode::Restart),
            (self.expires, CloseCode::TokenExpired),
            (blocked, CloseCode::SlowConsumer),
            (unanswered, CloseCode::IdleTimeout),
        ] {
            if over(deadline) {
                return Err(Closed::ByServer(code));
            }
        }
        if over(self.confirm_at) {
            self.in_doubt = true;
            self.watch_identity();
        }
        if self.pinged.is_none() && now >= self.heard + self.shared.ping_interval {
            self.socket.queue(Frame::ping());
            self.pinged = Some(now);
            self.tell_cursor();
        }
        Ok(())
    }

    /// The server is ending: the client has its own time to go, and a v1 client is told when to come
    /// back. Until then it gets its events.
    pub(super) fn prepare_to_leave(&mut self) {
        let delay = self.shared.drain.next_delay();
        self.leave_at = Some(self.shared.clock.exactly_now() + delay);
        self.look_at = Moment::NEVER_YET;
        self.tell_to_go();
    }

    /// Tells a v1 client that has been greeted when to come back, if it has to go.
    pub(super) fn tell_to_go(&mut self) {
        let (Some(leave_at), true) = (self.leave_at, self.greeted) else {
            return;
        };
        let left = leave_at.since(self.shared.clock.exactly_now());
        let retry_after_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.notify(&Notice::Goaway { retry_after_ms });
    }

    /// A device or the user was deleted: whose connection this is, has to go.
    pub(super) fn take_revocation(&self, event: &Event) -> Result<(), Closed> {
        let device_id = self.identity.as_ref().and_then(|own| own.device_id);
        if event.revokes(device_id) {
            return Err(Closed::ByServer(CloseCode::Revoked));
        }
        Ok(())
    }

    /// After a gap a revocation may have been missed.
    pub(super) fn doubt_after(&mut self, event: &Event) {
        self.in_doubt |= self.identity.is_some() && event.is_reset();
    }

    /// Sets the time of the next look-up, where only looking tells.
    pub(super) fn watch_identity(&mut self) {
        let untold = self.identity.is_some() && self.passed.is_none();
        let now = self.shared.clock.now();
        self.confirm_at = untold.then(|| now + self.shared.ping_interval);
        self.look_at = Moment::NEVER_YET;
    }

    /// Whether there is a doubt, or a newer proof.
    pub(super) fn has_to_settle_identity(&self) -> bool {
        self.in_doubt || self.offered.is_some()
    }

    /// Looks the identity up again if there is a doubt, and checks a newer proof if there is one.
    pub(super) async fn settle_identity(&mut self) -> Result<(), Closed> {
        if std::mem::take(&mut self.in_doubt) {
            self.confirm().await?;
            self.watch_identity();
        }
        match self.offered.take() {
            Some(token) => self.renew(token).await,
            None => Ok(()),
        }
    }

    async fn confirm(&mut self) -> Result<(), Closed> {
        let Some(identity) = self.identity.as_deref().copied() else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        self.meanwhile(shared.auth.confirm(&identity))
            .await?
            .map_err(|error| Closed::ByServer(error.close_code()))
    }

    async fn renew(&mut self, token: Secret) -> Result<(), Closed> {
        // The answers of a client that asks without reading must not pile up.
        self.flush().await?;
        let shared = Arc::clone(&self.shared);
        let renewed = match self.identity.as_deref().copied() {
            Some(identity) => self.meanwhile(shared.auth.renew(&identity, token)).await?,
            None => Err(AuthError::CredentialsMissing),
        };
        match renewed {
            Ok(renewed) => {
                let clock = &self.shared.clock;
                self.expires = expiry(clock, &renewed);
                let left = self.expires.map(|at| at.since(clock.exactly_now()));
                self.identity = Some(Box::new(renewed));
                // An alarm that comes first is enough: who renews often does not leave many.
                if self.expires.is_some_and(|at| at < self.look_at) {
                    self.look_at = Moment::NEVER_YET;
                }
                let expires_in_ms =
                    left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                self.notify(&Notice::Authenticated { expires_in_ms });
            }
            // The proof of before stands for as long as it is good.
            Err(error) => {
                self.shared.metrics.identity_refused(error);
                self.notify(&Notice::Error {
                    code: error.code(),
                    message: error.message(),
                });
            }
        }
        Ok(())
    }
}
