//! What happens to single messages: decided by a seeded generator, without a socket and without a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Messages that are held back at once; more pass.
const HELD_MAX: usize = 1024;
/// A message waits so long for the next one, to change places with it.
const SWAP_WAIT: Duration = Duration::from_millis(200);

/// How often each fault happens to a message, from 0 to 1; together at most 1. Never to confirmations, answers and pings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// The message does not come.
    pub drop: f64,
    /// It comes twice, the second time at once.
    pub repeat: f64,
    /// It comes after up to `delay_max`; others pass it.
    pub delay: f64,
    /// It comes after the next message, or alone if none comes soon.
    pub swap: f64,
    /// The longest delay.
    pub delay_max: Duration,
}

/// What happens to a message.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Drop,
    Repeat,
    Delay,
    Swap,
}

impl Faults {
    /// `dice` is from 0 to 1.
    fn choose(&self, mut dice: f64) -> Option<Fault> {
        let rates = [
            (Fault::Drop, self.drop),
            (Fault::Repeat, self.repeat),
            (Fault::Delay, self.delay),
            (Fault::Swap, self.swap),
        ];
        for (fault, rate) in rates {
            if dice < rate {
                return Some(fault);
            }
            dice -= rate;
        }
        None
    }
}

/// How many messages each fault has happened to, since the proxy was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Messages that came once, in their order.
    pub passed: u64,
    /// Messages that did not come.
    pub dropped: u64,
    /// Messages that came twice.
    pub repeated: u64,
    /// Messages that were held back for a time.
    pub delayed: u64,
    /// Messages that changed places with the next one.
    pub swapped: u64,
}

/// The same while they are counted, by all connections.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    passed: AtomicU64,
    dropped: AtomicU64,
    repeated: AtomicU64,
    delayed: AtomicU64,
    swapped: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> FaultCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultCounts {
            passed: read(&self.passed),
            dropped: read(&self.dropped),
            repeated: read(&self.repeated),
            delayed: read(&self.delayed),
            swapped: read(&self.swapped),
        }
    }
}

/// The faults of one connection.
#[derive(Debug)]
pub(crate) struct Injector {
    generator: StdRng,
    /// Each with the time when it comes.
    delayed: Vec<(Instant, Bytes)>,
    /// Waits for the next message, until then.
    swapping: Option<(Instant, Bytes)>,
}

impl Injector {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            generator: StdRng::seed_from_u64(seed),
            delayed: Vec::new(),
            swapping: None,
        }
    }

    /// Decides about a message; `out` gets what comes now.
    pub(crate) fn message(
        &mut self,
        faults: &Faults,
        counters: &Counters,
        now: Instant,
        message: Bytes,
        out: &mut Vec<u8>,
    ) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        // Two numbers for each message, whatever the rates: the same seed decides the same.
        let fault = faults.choose(self.generator.random());
        let part: f64 = self.generator.random();
        match fault {
            Some(Fault::Drop) => {
                count(&counters.dropped);
                return;
            }
            Some(Fault::Delay) if self.delayed.len() < HELD_MAX => {
                count(&counters.delayed);
                let at = now + faults.delay_max.mul_f64(part);
                self.delayed.push((at, message));
                return;
            }
            Some(Fault::Swap) if self.swapping.is_none() => {
                self.swapping = Some((now + SWAP_WAIT, message));
                return;
            }
            Some(Fault::Repeat) => {
                count(&counters.repeated);
                out.extend_from_slice(&message);
                out.extend_from_slice(&message);
            }
            Some(Fault::Delay | Fault::Swap) | None => {
                count(&counters.passed);
                out.extend_from_slice(&message);
            }
        }
        if let Some((_, earlier)) = self.swapping.take() {
            count(&counters.swapped);
            out.extend_from_slice(&earlier);
        }
    }

    /// When the next message that is held back comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let held = self.delayed.iter().chain(&self.swapping);
        held.map(|(at, _)| *at).min()
    }

    /// `out` gets what was held back until now.
    pub(crate) fn due(&mut self, counters: &Counters, now: Instant, out: &mut Vec<u8>) {
        self.delayed.sort_by_key(|(at, _)| *at);
        let end = self.delayed.partition_point(|(at, _)| *at <= now);
        for (_, message) in self.delayed.drain(..end) {
            out.extend_from_slice(&message);
        }
        if let Some((_, message)) = self.swapping.take_if(|(until, _)| *until <= now) {
            counters.passed.fetch_add(1, Ordering::Relaxed);
            out.extend_from_slice(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: usize = 10_000;

    /// The numbers of the messages as they come.
    fn run(faults: &Faults, seed: u64) -> (Vec<usize>, FaultCounts) {
        let counters = Counters::default();
        let mut injector = Injector::new(seed);
        let mut out = Vec::new();
        let start = Instant::now();
        let at = |number: usize| start + Duration::from_millis(number.try_into().unwrap());
        for number in 0..MESSAGES {
            let message = Bytes::from(number.to_be_bytes().to_vec());
            injector.message(faults, &counters, at(number), message, &mut out);
            injector.due(&counters, at(number), &mut out);
        }
        let end = at(MESSAGES) + faults.delay_max + SWAP_WAIT;
        injector.due(&counters, end, &mut out);
        assert_eq!(injector.deadline(), None);
        let numbers = out.chunks(8);
        let numbers = numbers.map(|bytes| usize::from_be_bytes(bytes.try_into().unwrap()));
        (numbers.collect(), counters.read())
    }

    #[test]
    fn without_faults_all_messages_pass_in_their_order() {
        let (came, counts) = run(&Faults::default(), 1);
        assert!(came.iter().copied().eq(0..MESSAGES));
        assert_eq!(counts.passed, MESSAGES as u64);
    }

    #[test]
    fn each_fault_alone_does_what_it_says() {
        let none = Faults::default();
        let half = 0.5;
        let (came, counts) = run(&Faults { drop: half, ..none }, 2);
        assert_eq!(came.len() as u64, counts.passed);
        assert!(came.is_sorted() && counts.dropped > 4000);
        let (came, counts) = run(
            &Faults {
                repeat: half,
                ..none
            },
            3,
        );
        assert_eq!(came.len() as u64, counts.passed + 2 * counts.repeated);
        assert!(came.is_sorted() && counts.repeated > 4000);
        let delay_max = Duration::from_millis(20);
        let delay = Faults {
            delay: half,
            delay_max,
            ..none
        };
        for (faults, is_delay) in [(delay, true), (Faults { swap: half, ..none }, false)] {
            let (mut came, counts) = run(&faults, 4);
            assert!(!came.is_sorted());
            let late = if is_delay {
                counts.delayed
            } else {
                counts.swapped
            };
            assert!(late > 2000, "{counts:?}");
            came.sort_unstable();
            assert!(came.iter().copied().eq(0..MESSAGES), "nothing is lost");
        }
    }

    #[test]
    fn a_seed_decides_the_same_again() {
        let faults = Faults {
            drop: 0.1,
            repeat: 0.1,
            delay: 0.1,
            swap: 0.1,
            delay_max: Duration::from_millis(30),
        };
        assert_eq!(run(&faults, 5), run(&faults, 5));
        assert_ne!(run(&faults, 5), run(&faults, 6));
    }
}
