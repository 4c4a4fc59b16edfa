//! When a connection has to act, or end: silence, a blocked write, an identity that expires, a server that
//! drains. Pure: the caller says what the time is.

use std::time::Duration;

use super::moment::Moment;
use crate::limits::write_timeouts;
use crate::protocol::CloseCode;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Silence after which the client is pinged. A v1 client is pinged and sent its cursor as often, silent or not.
    pub ping_interval: Duration,
    /// Time to answer a ping.
    pub pong_timeout: Duration,
    /// Time that a write may be blocked.
    pub write_timeout: Duration,
}

impl Timeouts {
    /// How long a write of so many bytes may take.
    #[must_use]
    pub fn write_of(&self, bytes: usize) -> Duration {
        self.write_timeout * write_timeouts(bytes)
    }
}

/// The times of one connection.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// When the clock wakes the connection to look at its deadlines.
    look_at: Moment,
    /// When the client was last seen to live.
    last_seen: Moment,
    /// When a v1 client was last sent its heartbeat; `None` for other clients.
    heartbeat: Option<Moment>,
    /// When the ping was sent that has not been answered.
    pinged: Option<Moment>,
    /// When the write began that has not been flushed.
    writing_since: Option<Moment>,
    /// How often the write timeout may pass until this write has ended.
    write_timeouts: u32,
    /// When the client's proof of identity expires.
    expires: Option<Moment>,
    /// When the identity is looked up again; only in a database without a log, where nothing tells of a
    /// revocation.
    confirm_at: Option<Moment>,
    /// When the client has to go, while the server drains.
    leave_at: Option<Moment>,
}

/// What has to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// The identity has to be looked up again.
    pub(super) confirm: bool,
    /// The client has to be pinged: it has been silent, or its heartbeat is due.
    pub(super) ping: bool,
}

impl Deadlines {
    /// The times of a connection that begins now. `beats`: the client gets heartbeats, however often it speaks.
    pub(super) fn new(now: Moment, expires: Option<Moment>, beats: bool) -> Self {
        Self {
            look_at: Moment::NEVER_YET,
            last_seen: now,
            heartbeat: beats.then_some(now),
            pinged: None,
            writing_since: None,
            write_timeouts: 1,
            expires,
            confirm_at: None,
            leave_at: None,
        }
    }

    /// Whether the deadlines have to be looked at.
    #[inline]
    pub(super) fn has_to_look(&self, now: Moment) -> bool {
        now >= self.look_at
    }

    /// The clock wakes the connection at this moment.
    pub(super) fn look_at(&mut self, moment: Moment) {
        self.look_at = moment;
    }

    /// The deadlines have to be looked at, whatever they were.
    pub(super) fn look_now(&mut self) {
        self.look_at = Moment::NEVER_YET;
    }

    /// The client has sent something.
    pub(super) fn see(&mut self, now: Moment) {
        self.last_seen = now;
        self.pinged = None;
    }

    /// A write is under way. The write timeout runs from the first call until [`Deadlines::flushed`].
    pub(super) fn writing(&mut self, now: impl FnOnce() -> Moment) {
        self.writing_since.get_or_insert_with(now);
    }

    /// So many bytes are written next, and more than once the write timeout may pass until they are.
    pub(super) fn writing_bytes(&mut self, bytes: usize) {
        self.write_timeouts = write_timeouts(bytes);
    }

    /// Everything is with the kernel.
    pub(super) fn flushed(&mut self) {
        self.writing_since = None;
        self.write_timeouts = 1;
    }

    /// Whether a write is under way.
    #[inline]
    pub(super) fn is_writing(&self) -> bool {
        self.writing_since.is_some()
    }

    /// The client's proof expires then. An earlier alarm than before is set; a later one is not needed, so a
    /// client that renews often leaves few.
    pub(super) fn expire_at(&mut self, expires: Option<Moment>) {
        self.expires = expires;
        if expires.is_some_and(|at| at < self.look_at) {
            self.look_now();
        }
    }

    /// The identity has to be looked up again then, or never.
    pub(super) fn confirm_at(&mut self, moment: Option<Moment>) {
        self.confirm_at = moment;
        self.look_now();
    }

    /// The client has to go then.
    pub(super) fn leave_at(&mut self, moment: Moment) {
        self.leave_at = Some(moment);
        self.look_now();
    }

    /// Whether the client's proof expires at all.
    pub(super) fn has_expiry(&self) -> bool {
        self.expires.is_some()
    }

    /// When the client has to go, if the server drains.
    #[inline]
    pub(super) fn leaves_at(&self) -> Option<Moment> {
        self.leave_at
    }

    /// The first of the deadlines.
    pub(super) fn next(&self, timeouts: &Timeouts) -> Moment {
        let silence = match self.pinged {
            Some(pinged) => pinged + timeouts.pong_timeout,
            None => self.next_ping(timeouts),
        };
        [
            self.blocked_until(timeouts),
            self.expires,
            self.confirm_at,
            self.leave_at,
        ]
        .into_iter()
        .flatten()
        .fold(silence, Moment::min)
    }

    /// What is due at this moment. A ping that is due counts as sent.
    ///
    /// # Errors
    /// The close code, when the connection has to end.
    pub(super) fn take_due(&mut self, now: Moment, timeouts: &Timeouts) -> Result<Due, CloseCode> {
        let is_over = |deadline: Option<Moment>| deadline.is_some_and(|deadline| now >= deadline);
        let unanswered = self.pinged.map(|pinged| pinged + timeouts.pong_timeout);
        for (deadline, code) in [
            (self.leave_at, CloseCode::Restart),
            (self.expires, CloseCode::TokenExpired),
            (self.blocked_until(timeouts), CloseCode::SlowConsumer),
            (unanswered, CloseCode::IdleTimeout),
        ] {
            if is_over(deadline) {
                return Err(code);
            }
        }
        let ping = self.pinged.is_none() && now >= self.next_ping(timeouts);
        if ping {
            self.pinged = Some(now);
            self.heartbeat = self.heartbeat.map(|_| now);
        }
        Ok(Due {
            confirm: is_over(self.confirm_at),
            ping,
        })
    }

    fn next_ping(&self, timeouts: &Timeouts) -> Moment {
        self.heartbeat.unwrap_or(self.last_seen) + timeouts.ping_interval
    }

    fn blocked_until(&self, timeouts: &Timeouts) -> Option<Moment> {
        self.writing_since
            .map(|since| since + timeouts.write_timeout * self.write_timeouts)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(5),
    };

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    fn begun() -> Deadlines {
        Deadlines::new(at(100), None, false)
    }

    fn due(deadlines: &mut Deadlines, seconds: u64) -> Result<(bool, bool), CloseCode> {
        let due = deadlines.take_due(at(seconds), &TIMEOUTS)?;
        Ok((due.confirm, due.ping))
    }

    #[test]
    fn a_silent_client_is_pinged_once_and_closed_when_it_does_not_answer() {
        let mut deadlines = begun();
        assert_eq!(deadlines.next(&TIMEOUTS), at(130));
        assert_eq!(due(&mut deadlines, 129), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 130), Ok((false, true)));
        assert_eq!(due(&mut deadlines, 131), Ok((false, false)), "pinged once");
        assert_eq!(deadlines.next(&TIMEOUTS), at(140));
        assert_eq!(due(&mut deadlines, 139), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 140), Err(CloseCode::IdleTimeout));
    }

    #[test]
    fn a_client_that_answers_has_its_time_again() {
        let mut deadlines = begun();
        assert_eq!(due(&mut deadlines, 130), Ok((false, true)));
        deadlines.see(at(139));
        assert_eq!(deadlines.next(&TIMEOUTS), at(169));
        assert_eq!(due(&mut deadlines, 168), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 169), Ok((false, true)));
    }

    #[test]
    fn a_client_with_heartbeats_gets_them_however_often_it_speaks() {
        let mut deadlines = Deadlines::new(at(100), None, true);
        let mut other = begun();
        for second in 101..200 {
            let is_due = [130, 160, 190].contains(&second);
            assert_eq!(due(&mut deadlines, second), Ok((false, is_due)), "{second}");
            assert_eq!(due(&mut other, second), Ok((false, false)), "{second}");
            deadlines.see(at(second));
            other.see(at(second));
        }
        assert_eq!(deadlines.next(&TIMEOUTS), at(220));
        assert_eq!(due(&mut deadlines, 220), Ok((false, true)));
        assert_eq!(due(&mut deadlines, 230), Err(CloseCode::IdleTimeout));
    }

    #[test]
    fn the_write_timeout_runs_from_the_first_call_until_the_flush() {
        let mut deadlines = begun();
        assert!(!deadlines.is_writing());
        deadlines.writing(|| at(110));
        deadlines.writing(|| at(114));
        assert!(deadlines.is_writing());
        assert_eq!(deadlines.next(&TIMEOUTS), at(115));
        assert_eq!(due(&mut deadlines, 114), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 115), Err(CloseCode::SlowConsumer));
        deadlines.flushed();
        assert!(!deadlines.is_writing());
        assert_eq!(due(&mut deadlines, 115), Ok((false, false)));
    }

    #[test]
    fn a_large_event_has_more_time() {
        let mut deadlines = begun();
        deadlines.writing(|| at(110));
        deadlines.writing_bytes(256 << 10);
        assert_eq!(deadlines.next(&TIMEOUTS), at(120));
        assert_eq!(due(&mut deadlines, 119), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 120), Err(CloseCode::SlowConsumer));
        deadlines.flushed();
        deadlines.writing(|| at(120));
        assert_eq!(due(&mut deadlines, 125), Err(CloseCode::SlowConsumer));
    }

    #[test]
    fn a_proof_ends_the_connection_when_it_expires() {
        let mut deadlines = Deadlines::new(at(100), Some(at(120)), false);
        assert_eq!(deadlines.next(&TIMEOUTS), at(120));
        assert_eq!(due(&mut deadlines, 119), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 120), Err(CloseCode::TokenExpired));
        deadlines.expire_at(Some(at(500)));
        assert_eq!(due(&mut deadlines, 120), Ok((false, false)));
        deadlines.expire_at(None);
        assert_eq!(due(&mut deadlines, 129), Ok((false, false)));
    }

    #[test]
    fn an_earlier_expiry_is_looked_at_and_a_later_one_waits_for_the_alarm() {
        let mut deadlines = begun();
        deadlines.look_at(at(130));
        deadlines.expire_at(Some(at(140)));
        assert!(!deadlines.has_to_look(at(129)));
        deadlines.expire_at(Some(at(130)));
        assert!(!deadlines.has_to_look(at(129)));
        deadlines.expire_at(Some(at(125)));
        assert!(deadlines.has_to_look(at(101)));
    }

    #[test]
    fn the_identity_is_confirmed_when_it_is_time() {
        let mut deadlines = begun();
        deadlines.look_at(at(130));
        deadlines.confirm_at(Some(at(110)));
        assert!(deadlines.has_to_look(at(101)), "the alarm has to be set");
        assert_eq!(deadlines.next(&TIMEOUTS), at(110));
        assert_eq!(due(&mut deadlines, 109), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 110), Ok((true, false)));
        deadlines.confirm_at(None);
        assert_eq!(due(&mut deadlines, 110), Ok((false, false)));
    }

    #[test]
    fn a_client_leaves_at_its_own_time() {
        let mut deadlines = begun();
        deadlines.look_at(at(130));
        deadlines.leave_at(at(104));
        assert!(deadlines.has_to_look(at(101)));
        assert_eq!(deadlines.leaves_at(), Some(at(104)));
        assert_eq!(deadlines.next(&TIMEOUTS), at(104));
        assert_eq!(due(&mut deadlines, 103), Ok((false, false)));
        assert_eq!(due(&mut deadlines, 104), Err(CloseCode::Restart));
    }

    /// In any order of calls: nothing is due before `next`, and something is due at `next`.
    #[test]
    fn something_is_due_at_the_next_deadline_and_nothing_before() {
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut now = 100;
            let mut deadlines = Deadlines::new(at(100), None, rng.random_bool(0.5));
            for _ in 0..rng.random_range(1..20) {
                now += rng.random_range(0..4);
                let later = at(now + rng.random_range(1..60));
                match rng.random_range(0..7) {
                    0 => deadlines.see(at(now)),
                    1 => deadlines.writing(|| at(now)),
                    2 => deadlines.flushed(),
                    3 => deadlines.expire_at(rng.random_bool(0.5).then_some(later)),
                    4 => deadlines.confirm_at(rng.random_bool(0.5).then_some(later)),
                    5 => deadlines.leave_at(later),
                    _ => drop(deadlines.take_due(at(now), &TIMEOUTS)),
                }
            }
            let next = deadlines.next(&TIMEOUTS);
            let before = Moment::from_millis(next.as_millis().saturating_sub(1));
            let nothing = deadlines.take_due(before, &TIMEOUTS);
            assert_eq!(nothing, Ok(Due::default()), "seed {seed}");
            let something = deadlines.take_due(next, &TIMEOUTS);
            assert_ne!(something, Ok(Due::default()), "seed {seed}");
        }
    }
}
