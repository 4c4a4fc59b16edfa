//! Which event is for whom, and which deliveries have come.
//!
//! An event's number is its chat's id, so a frame tells which event it is. The ledger knows for each
//! event the connections that are yet to get it, one bit each: a delivery to one device is never taken
//! for that to another. It never looks at anything else in a frame, so any server's framing will do.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::report::{Report, histogram, micros};

/// Connections of a user whose bits are one word.
const WORD: usize = u64::BITS as usize;
const UUID_LENGTH: usize = 36;

/// The chat's id that stands for an event.
pub(crate) fn chat_id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// Where numbers begin: larger ones than in any earlier run, as long as no run sends more than a
/// million events a second from its start on.
pub(crate) fn first_number() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, micros)
}

/// What became of the deliveries that were due.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) duplicated: u64,
    /// At a connection of another user, or with another user's id in it.
    pub(crate) wrong_user: u64,
    /// Messages that this run has not sent.
    pub(crate) unknown_events: u64,
    /// Frames that are no messages.
    pub(crate) other_frames: u64,
}

/// An event that was sent.
#[derive(Debug)]
struct Flight {
    user: u32,
    /// Connections of the user that have not got it.
    missing: u32,
    due: Instant,
    /// The last arrival.
    arrived: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    /// Number of the first flight.
    first: u64,
    flights: Vec<Flight>,
    /// For each flight a bit for each connection that has got it, in so many words.
    got: Vec<u64>,
    words: usize,
    devices: usize,
    users: Vec<Uuid>,
    chat_key: Key,
    user_key: Key,
    unfinished: u64,
    outstanding: u64,
    last_arrival: Option<Instant>,
    pub(crate) counts: Counts,
    /// From when an event was due to its arrival at each connection, in microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// Of users with two devices: how much later the second got an event, in microseconds; 0 where it was the first.
    pub(crate) later_us: Histogram<u64>,
}

impl Ledger {
    /// Client `i` is taken for a connection of user `i / devices`.
    pub(crate) fn new(first: u64, users: Vec<Uuid>, devices: usize) -> Self {
        Self {
            first,
            flights: Vec::new(),
            got: Vec::new(),
            words: devices.div_ceil(WORD),
            devices,
            users,
            chat_key: Key::new("\"chat_id\""),
            user_key: Key::new("\"user_id\""),
            unfinished: 0,
            outstanding: 0,
            last_arrival: None,
            counts: Counts::default(),
            latency_us: histogram(),
            later_us: histogram(),
        }
    }

    /// Counts from here on; what was sent before still belongs to this run.
    pub(crate) fn reset(&mut self) {
        self.counts = Counts::default();
        self.latency_us.reset();
        self.later_us.reset();
        self.last_arrival = None;
    }

    /// The next event, which is for this user; returns its number.
    pub(crate) fn sent(&mut self, user: usize, due: Instant) -> u64 {
        let number = self.first + self.flights.len() as u64;
        self.flights.push(Flight {
            // There are fewer users than descriptors.
            user: u32::try_from(user).unwrap_or(u32::MAX),
            missing: u32::try_from(self.devices).unwrap_or(u32::MAX),
            due,
            arrived: None,
        });
        self.got.resize(self.flights.len() * self.words, 0);
        self.unfinished += 1;
        self.outstanding += self.devices as u64;
        number
    }

    /// Number of the event that `sent` will return next.
    pub(crate) fn next_number(&self) -> u64 {
        self.first + self.flights.len() as u64
    }

    /// For `Clients::turn`: notes all that comes.
    pub(crate) fn listener(
        &mut self,
    ) -> impl FnMut(usize, &[u8], Instant) -> anyhow::Result<()> + use<'_> {
        |client, payload, at| {
            self.arrived(client, payload, at);
            Ok(())
        }
    }

    /// A data frame has come to a client.
    fn arrived(&mut self, client: usize, payload: &[u8], at: Instant) {
        let Some(number) = self.chat_key.uuid(payload) else {
            self.counts.other_frames += 1;
            return;
        };
        let index = number.as_u128().checked_sub(u128::from(self.first));
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some((index, flight)) = index.and_then(|i| Some((i, self.flights.get_mut(i)?))) else {
            self.counts.unknown_events += 1;
            return;
        };
        let (user, device) = (client / self.devices, client % self.devices);
        // A server need not name the user at all.
        let named = self.user_key.uuid(payload);
        let misnamed = named.is_some_and(|named| self.users.get(user) != Some(&named));
        if flight.user as usize != user || misnamed {
            self.counts.wrong_user += 1;
            return;
        }
        let word = &mut self.got[index * self.words + device / WORD];
        let bit = 1 << (device % WORD);
        if *word & bit != 0 {
            self.counts.duplicated += 1;
            return;
        }
        *word |= bit;
        flight.missing -= 1;
        self.unfinished -= u64::from(flight.missing == 0);
        self.outstanding -= 1;
        self.counts.delivered += 1;
        self.last_arrival = Some(at);
        self.latency_us
            .saturating_record(micros(at.saturating_duration_since(flight.due)));
        if let Some(other) = flight.arrived.replace(at) {
            let later = at.saturating_duration_since(other);
            let later = if device == 1 { micros(later) } else { 0 };
            self.later_us.saturating_record(later);
        }
    }

    /// Events of which deliveries are missing.
    pub(crate) fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// Deliveries that are missing.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    pub(crate) fn last_arrival(&self) -> Option<Instant> {
        self.last_arrival
    }

    /// What came and what did not. Something lost or misled makes the report one of failure.
    pub(crate) fn report(&self, report: &mut Report) {
        let counts = &self.counts;
        report.count("lost", self.outstanding);
        report.count("duplicated", counts.duplicated);
        report.count("wrong_user", counts.wrong_user);
        report.count("other_frames", counts.other_frames);
        if counts.unknown_events > 0 {
            report.count("unknown_events", counts.unknown_events);
        }
        report.fail_if(self.outstanding > 0 || counts.wrong_user > 0);
    }
}

/// Finds a UUID in JSON by its key, without parsing what is around it.
#[derive(Debug)]
struct Key {
    quoted: &'static str,
    /// Where it was the last time: a server's frames are all alike.
    hint: usize,
}

impl Key {
    fn new(quoted: &'static str) -> Self {
        Self { quoted, hint: 0 }
    }

    fn uuid(&mut self, payload: &[u8]) -> Option<Uuid> {
        let key = self.quoted.as_bytes();
        let is_here = payload
            .get(self.hint..)
            .is_some_and(|rest| rest.starts_with(key));
        if !is_here {
            self.hint = payload
                .windows(key.len())
                .position(|window| window == key)?;
        }
        let value = payload.get(self.hint + key.len()..)?.trim_ascii_start();
        let value = value.strip_prefix(b":")?.trim_ascii_start();
        let uuid = value.strip_prefix(b"\"")?.get(..UUID_LENGTH)?;
        Uuid::try_parse_ascii(uuid).ok()
    }
}

/// Chooses users for events.
#[derive(Debug)]
pub(crate) struct Picker {
    random: StdRng,
    users: usize,
    /// For each user the share of all events that goes to it and to those before it.
    cumulative: Option<Vec<f64>>,
}

impl Picker {
    /// Of `users` users, each as often as any other, or the k-th in proportion to `1/k^zipf`.
    pub(crate) fn new(seed: u64, users: usize, zipf: Option<f64>) -> Self {
        let cumulative = zipf.map(|exponent| {
            let weights = (1..=users).map(|rank| (rank as f64).powf(-exponent));
            let mut sums: Vec<f64> = weights
                .scan(0.0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                })
                .collect();
            let total = sums.last().copied().unwrap_or(1.0);
            for sum in &mut sums {
                *sum /= total;
            }
            sums
        });
        Self {
            // Not the numbers that the users' ids are made of.
            random: StdRng::seed_from_u64(seed ^ 0x7069_636b),
            users,
            cumulative,
        }
    }

    pub(crate) fn user(&mut self) -> usize {
        let Some(cumulative) = &self.cumulative else {
            return self.random.random_range(0..self.users);
        };
        let point: f64 = self.random.random();
        cumulative
            .partition_point(|sum| *sum <= point)
            .min(self.users - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FIRST: u64 = 1_700_000_000_000_000;

    fn frame(number: u64, user: Uuid) -> Vec<u8> {
        let chat = chat_id(number);
        format!(r#"{{"type" : "message", "chat_id" : "{chat}", "user_id" : "{user}", "id" : 3}}"#)
            .into_bytes()
    }

    fn ledger(devices: usize) -> (Ledger, [Uuid; 2]) {
        let users = [Uuid::from_u128(1 << 90), Uuid::from_u128(2 << 90)];
        (Ledger::new(FIRST, users.to_vec(), devices), users)
    }

    #[test]
    fn each_device_is_due_its_own_delivery() {
        let (mut ledger, users) = ledger(2);
        let now = Instant::now();
        let number = ledger.sent(1, now);
        assert_eq!((ledger.unfinished(), ledger.outstanding()), (1, 2));
        ledger.arrived(3, &frame(number, users[1]), now);
        ledger.arrived(3, &frame(number, users[1]), now);
        assert_eq!((ledger.unfinished(), ledger.outstanding()), (1, 1));
        ledger.arrived(2, &frame(number, users[1]), now);
        assert_eq!((ledger.unfinished(), ledger.outstanding()), (0, 0));
        assert_eq!((ledger.counts.delivered, ledger.counts.duplicated), (2, 1));
    }

    #[test]
    fn the_second_device_is_later_than_the_first_or_not_at_all() {
        let (mut ledger, users) = ledger(2);
        let now = Instant::now();
        let later = now + Duration::from_micros(700);
        for order in [[0, 1], [1, 0]] {
            let number = ledger.sent(0, now);
            ledger.arrived(order[0], &frame(number, users[0]), now);
            ledger.arrived(order[1], &frame(number, users[0]), later);
        }
        assert_eq!((ledger.later_us.len(), ledger.later_us.max()), (2, 700));
        assert_eq!(ledger.later_us.min(), 0);
    }

    #[test]
    fn each_of_a_hundred_devices_counts_once() {
        let (mut ledger, users) = ledger(100);
        let number = ledger.sent(0, Instant::now());
        for device in (0..100).rev() {
            let missing = ledger.outstanding();
            ledger.arrived(device, &frame(number, users[0]), Instant::now());
            assert_eq!(ledger.outstanding(), missing - 1, "{device}");
        }
        assert_eq!((ledger.unfinished(), ledger.counts.duplicated), (0, 0));
    }

    #[test]
    fn someone_elses_event_is_no_delivery() {
        let (mut ledger, users) = ledger(1);
        let now = Instant::now();
        let number = ledger.sent(0, now);
        ledger.arrived(1, &frame(number, users[0]), now);
        ledger.arrived(0, &frame(number, users[1]), now);
        assert_eq!((ledger.counts.wrong_user, ledger.outstanding()), (2, 1));
    }

    #[test]
    fn what_was_not_sent_and_what_is_no_message_is_told_apart() {
        let (mut ledger, users) = ledger(1);
        let now = Instant::now();
        ledger.sent(0, now);
        ledger.arrived(0, &frame(FIRST + 1, users[0]), now);
        ledger.arrived(0, &frame(FIRST - 1, users[0]), now);
        ledger.arrived(0, br#"{"type":"cursor","cursor":"x"}"#, now);
        assert_eq!(
            (ledger.counts.unknown_events, ledger.counts.other_frames),
            (2, 1)
        );
        let mut report = Report::new("test");
        ledger.report(&mut report);
        assert!(report.failed());
    }

    #[test]
    fn keys_are_found_with_any_spacing_and_in_an_envelope() {
        let (chat, mut key) = (chat_id(FIRST), Key::new("\"chat_id\""));
        for text in [
            format!(r#"{{"chat_id":"{chat}"}}"#),
            format!(r#"{{"event_type":"message","payload":{{"chat_id" :  "{chat}"}}}}"#),
            format!("{{\"type\" : \"message\",\n\"chat_id\"\t:\n\"{chat}\"}}"),
        ] {
            assert_eq!(key.uuid(text.as_bytes()), Some(chat), "{text}");
            // By the hint this time.
            assert_eq!(key.uuid(text.as_bytes()), Some(chat), "{text}");
        }
        for text in [
            r#"{"chat_id""#,
            r#"{"chat_id":"123"#,
            r#"{"chat_id":null}"#,
            "",
        ] {
            assert_eq!(key.uuid(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_first_by_zipf_gets_the_most() {
        let mut picker = Picker::new(1, 100, Some(1.0));
        let mut counts = [0_u32; 100];
        (0..10_000).for_each(|_| counts[picker.user()] += 1);
        // 1/H(100) of all is 19 %, half of it 10 %.
        assert!((1_800..2_060).contains(&counts[0]), "{}", counts[0]);
        assert!((860..1_080).contains(&counts[1]), "{}", counts[1]);
    }

    #[test]
    fn without_zipf_all_are_alike() {
        let mut picker = Picker::new(1, 10, None);
        let mut counts = [0_u32; 10];
        (0..10_000).for_each(|_| counts[picker.user()] += 1);
        assert!(
            counts.iter().all(|count| (880..1_120).contains(count)),
            "{counts:?}"
        );
    }
}
