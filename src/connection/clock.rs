//! A coarse clock, and one ring of alarms for all connections instead of a timer for each.
//!
//! A connection leaves its user's id in the slot of its next deadline. When the clock reaches that slot, the hub
//! wakes the user's connections. An alarm for a user who has left wakes no connection. The clock advances before
//! it empties a slot, so a connection that is woken sees the time for which it asked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::moment::Moment;
use super::wall_clock::{Expected, WallClock};
use crate::delivery::Hub;
use crate::protocol::{Signal, UserKey};

/// How coarse the clock is, in milliseconds.
const TICK_MS: u64 = 50;
/// Slots of the ring: 51 seconds. A connection with a later deadline is woken at the end of the ring and leaves its
/// id again. A slot holds a user's id at most once. A connection leaves the id when it begins, after it was woken,
/// and when its identity will expire earlier than before.
const SLOTS: usize = 1024;

/// The first moment of a process, one tick after [`Moment::NEVER_YET`].
const FIRST: Moment = Moment::from_millis(TICK_MS);

/// The last tick that has begun at this moment.
fn ticks(moment: Moment) -> u64 {
    moment.as_millis() / TICK_MS
}

/// The beginning of a tick.
fn of_ticks(ticks: u64) -> Moment {
    Moment::from_millis(ticks.saturating_mul(TICK_MS))
}

/// The time, and the users whose connections are to be woken.
#[derive(Debug)]
pub struct Clock {
    begun: Instant,
    /// Ticks since the clock began.
    ticks: AtomicU64,
    slots: Box<[Mutex<HashSet<UserKey>>]>,
    wall: WallClock,
}

impl Default for Clock {
    fn default() -> Self {
        Self::with_wall(WallClock::default())
    }
}

impl Clock {
    /// A clock beside this wall clock.
    #[must_use]
    pub fn with_wall(wall: WallClock) -> Self {
        Self {
            begun: Instant::now(),
            // So that no moment is `NEVER_YET`.
            ticks: AtomicU64::new(1),
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            wall,
        }
    }

    /// The time, up to one tick late. One atomic load.
    #[must_use]
    pub fn now(&self) -> Moment {
        of_ticks(self.ticks.load(Ordering::Acquire))
    }

    /// The time, to the millisecond.
    #[must_use]
    pub fn exactly_now(&self) -> Moment {
        FIRST + self.begun.elapsed()
    }

    /// The time of the wall clock.
    #[must_use]
    pub fn wall_now(&self) -> SystemTime {
        self.wall.now()
    }

    /// The moment as an instant of tokio's, for a timer.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        let at = self.begun.checked_add(moment.since(FIRST));
        // Too far away for an instant: a year is as good as never.
        at.unwrap_or_else(|| Instant::now() + Duration::from_hours(8_760))
    }

    /// Has the user's connections woken at this moment, or at the end of the ring if the moment is later. Returns
    /// the moment at which they will be woken.
    pub fn wake_at(&self, user: UserKey, moment: Moment) -> Moment {
        let mut tick = ticks(moment) + 1;
        loop {
            let now = self.ticks.load(Ordering::Acquire);
            tick = tick.clamp(now + 1, now + SLOTS as u64 - 1);
            let mut slot = self.slot(tick);
            // The clock advances before it empties a slot: if it has reached this slot, that is seen here.
            if self.ticks.load(Ordering::Acquire) < tick {
                slot.insert(user);
                return of_ticks(tick);
            }
        }
    }

    /// Advances with the time, for ever, and has every connection see when the wall clock was changed.
    pub async fn run(self: Arc<Self>, hub: Hub) {
        let mut tick = interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wake = Arc::new(Signal::Wake);
        let mut expected = Expected::new(self.wall_now(), self.begun.elapsed());
        loop {
            tick.tick().await;
            if expected.has_changed(self.wall_now(), self.begun.elapsed()) {
                tracing::info!(event = "wall_clock_changed");
                hub.publish_to_all(&Arc::new(Signal::ClockChanged));
            }
            for user in self.advance(self.exactly_now()) {
                hub.publish(user, || Arc::clone(&wake));
            }
        }
    }

    /// Advances to this moment. Returns the users whose connections are to be woken.
    fn advance(&self, to: Moment) -> Vec<UserKey> {
        let mut due = Vec::new();
        for tick in self.ticks.load(Ordering::Acquire) + 1..=ticks(to) {
            self.ticks.store(tick, Ordering::Release);
            due.extend(std::mem::take(&mut *self.slot(tick)));
        }
        due
    }

    fn slot(&self, tick: u64) -> MutexGuard<'_, HashSet<UserKey>> {
        let index = usize::try_from(tick % SLOTS as u64).unwrap_or_default();
        self.slots[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_is_woken_once_when_its_moment_has_come() {
        let clock = Clock::default();
        let begun = clock.now();
        let users: Vec<UserKey> = (0..5).map(|_| Uuid::new_v4().into()).collect();
        for (user, after) in users.iter().zip([0, 60, 60, 70_000, 120]) {
            clock.wake_at(*user, begun + ms(after));
            clock.wake_at(*user, begun + ms(after));
        }
        let mut woken = Vec::new();
        for after in (0..120_000).step_by(30) {
            for user in clock.advance(begun + ms(after)) {
                assert!(clock.now() >= begun);
                woken.push((user, clock.now().since(begun)));
            }
        }
        woken.sort_by_key(|(_, at)| *at);
        let at = |user: &UserKey| woken.iter().filter(|w| w.0 == *user).collect::<Vec<_>>();
        for (user, after) in [(0, 50), (1, 100), (2, 100), (4, 150)] {
            let woken = at(&users[user]);
            assert_eq!(woken.len(), 1, "{user}");
            assert_eq!(woken[0].1, ms(after));
        }
        // Further away than the round is long: at its end, to ask again.
        assert_eq!(at(&users[3])[0].1, ms(50 * 1_023));
    }

    #[test]
    fn whoever_is_late_is_woken_at_the_next_tick() {
        let clock = Clock::default();
        let user = UserKey::from(Uuid::new_v4());
        assert!(clock.advance(FIRST + ms(10_000)).is_empty());
        clock.wake_at(user, FIRST + ms(100));
        assert!(clock.advance(FIRST + ms(10_049)).is_empty());
        assert_eq!(clock.advance(FIRST + ms(10_050)), [user]);
    }

    #[test]
    fn nobody_is_forgotten_whose_slot_is_being_emptied() {
        let clock = Arc::new(Clock::default());
        let sleepers = 20_000;
        let asking = std::thread::spawn({
            let clock = Arc::clone(&clock);
            move || {
                for n in 0..sleepers {
                    clock.wake_at(Uuid::from_u128(n).into(), clock.now() + ms(TICK_MS));
                }
            }
        });
        let mut woken = 0;
        let mut to = clock.now();
        while !asking.is_finished() {
            to = to + ms(TICK_MS);
            woken += clock.advance(to).len();
        }
        woken += clock.advance(to + ms(TICK_MS * 2)).len();
        assert_eq!(woken as u128, sleepers);
    }

    #[test]
    fn a_moment_is_the_same_for_a_timer() {
        let clock = Clock::default();
        let before = tokio::time::Instant::now();
        let exactly = clock.instant(clock.exactly_now() + ms(500));
        let after = tokio::time::Instant::now();
        // A moment is rounded down to a millisecond.
        assert!(exactly + ms(1) >= before + ms(500) && exactly <= after + ms(500));
    }
}
