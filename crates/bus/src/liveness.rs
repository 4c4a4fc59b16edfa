//! Pings, and when a broker is silent.

use std::time::Duration;

use tokio::time::Instant;

/// A ping is sent as long after the last answer.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A broker that has sent nothing for as long after a ping is silent.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A broker that has sent messages and has not answered a ping for as long does not receive.
pub(crate) const PONG_MAX: Duration = Duration::from_secs(10);

/// What is known of the broker's life on one connection.
#[derive(Debug)]
pub(crate) struct Liveness {
    ping_due: Instant,
    /// When the ping was sent that is not answered.
    asked: Option<Instant>,
    /// When something came last.
    received: Instant,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    /// The broker is silent.
    Silent,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            ping_due: now + PING_INTERVAL,
            asked: None,
            received: now,
        }
    }

    pub(crate) fn received(&mut self, now: Instant) {
        self.received = now;
    }

    pub(crate) fn pong(&mut self, now: Instant) {
        self.asked = None;
        self.ping_due = now + PING_INTERVAL;
    }

    /// When to call [`Liveness::due`].
    pub(crate) fn deadline(&self) -> Instant {
        match self.asked {
            None => self.ping_due,
            Some(asked) => (asked.max(self.received) + SILENCE_MAX).min(asked + PONG_MAX),
        }
    }

    /// What is to be done now. A ping counts as sent.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if now < self.deadline() {
            return Due::Nothing;
        }
        if self.asked.is_some() {
            return Due::Silent;
        }
        self.asked = Some(now);
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_broker_that_answers_is_asked_again_and_one_that_does_not_is_silent() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.due(start), Due::Nothing);
        assert_eq!(liveness.due(start + seconds(1)), Due::Ping);
        liveness.pong(start + seconds(2));
        assert_eq!(liveness.deadline(), start + seconds(3));
        assert_eq!(liveness.due(start + seconds(3)), Due::Ping);
        assert_eq!(liveness.due(start + seconds(4)), Due::Nothing);
        assert_eq!(liveness.due(start + seconds(5)), Due::Silent);
    }

    #[test]
    fn messages_are_life_but_not_for_ever() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.due(start + seconds(1)), Due::Ping);
        for second in 2..11 {
            liveness.received(start + seconds(second));
            assert_eq!(liveness.due(start + seconds(second)), Due::Nothing);
        }
        liveness.received(start + seconds(11));
        assert_eq!(liveness.due(start + seconds(11)), Due::Silent);
    }
}
