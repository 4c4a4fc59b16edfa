//! The real hub under many tasks that connect, disconnect and publish on few users at once.
//!
//! `tests/hub_model.rs` checks the hub's steps; this checks the types that the hub uses. The choices of
//! every task are seeded; their interleaving is the scheduler's.
//!
//! Each publisher numbers its events for each user, and announces a number before it publishes and
//! confirms it after. A connection owes its client, from every publisher, each number that was not
//! announced when it was in, up to the last that was confirmed when it began to leave, without a
//! gap. A channel holds more than a round publishes for a user, so that no connection may lag.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;

use hushnet_realtime::delivery::{Hub, Subscription};
use hushnet_realtime::protocol::{Notification, Signal};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::{JoinSet, yield_now};
use uuid::Uuid;

const ROUNDS: u64 = 40;
const USERS: usize = 3;
const CONNECTORS: u64 = 12;
const PUBLISHERS: usize = 3;
/// What one publisher publishes in one round, for all users together.
const EVENTS_PER_PUBLISHER: usize = 300;
/// Over `PUBLISHERS * EVENTS_PER_PUBLISHER`: no user can get more in a round.
const CAPACITY: usize = 1_024;
/// How often a connection looks for events, at most, before it leaves.
const STAY_MAX: usize = 12;
/// An event's `id` is its publisher times this, plus its number.
const ID_BASE: i64 = 1_000_000;
/// Users of whom the only two connections leave together.
const DEPARTURES: usize = 100_000;

/// How far one publisher is with one user.
#[derive(Default)]
struct Progress {
    announced: AtomicI64,
    confirmed: AtomicI64,
}

impl Progress {
    fn of_all(select: impl Fn(&Self) -> &AtomicI64, all: &[Self; PUBLISHERS]) -> [i64; PUBLISHERS] {
        std::array::from_fn(|publisher| select(&all[publisher]).load(Ordering::SeqCst))
    }
}

struct Round {
    hub: Hub,
    users: [Uuid; USERS],
    progress: [[Progress; PUBLISHERS]; USERS],
    publishers_left: AtomicUsize,
    events_received: AtomicUsize,
    connections: AtomicUsize,
}

impl Round {
    fn new(rng: &mut StdRng) -> Self {
        Self {
            hub: Hub::new(CAPACITY),
            users: std::array::from_fn(|_| Uuid::from_u128(rng.random())),
            progress: Default::default(),
            publishers_left: AtomicUsize::new(PUBLISHERS),
            events_received: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    async fn publish(&self, publisher: usize, mut rng: StdRng) {
        for _ in 0..EVENTS_PER_PUBLISHER {
            let user = rng.random_range(0..USERS);
            let progress = &self.progress[user][publisher];
            let number = progress.announced.fetch_add(1, Ordering::SeqCst) + 1;
            let id = i64::try_from(publisher).unwrap() * ID_BASE + number;
            let user_id = self.users[user];
            self.hub.publish(user_id, || event(user_id, id));
            progress.confirmed.store(number, Ordering::SeqCst);
            if rng.random_bool(0.3) {
                yield_now().await;
            }
        }
        self.publishers_left.fetch_sub(1, Ordering::SeqCst);
    }

    async fn connect_until_all_is_published(&self, mut rng: StdRng) {
        while self.publishers_left.load(Ordering::SeqCst) > 0 {
            let user = rng.random_range(0..USERS);
            self.connect_once(user, rng.random_range(0..=STAY_MAX))
                .await;
            if rng.random_bool(0.5) {
                yield_now().await;
            }
        }
    }

    async fn connect_once(&self, user: usize, stay: usize) {
        let mut subscription = self.hub.subscribe(self.users[user]);
        let progress = &self.progress[user];
        let owed_after = Progress::of_all(|of| &of.announced, progress);
        let mut ids = Vec::new();
        for _ in 0..stay {
            tokio::select! {
                biased;
                signal = subscription.receiver().recv() => ids.push(id_of(&signal.unwrap())),
                () = yield_now() => {}
            }
        }
        let owed_until = Progress::of_all(|of| &of.confirmed, progress);
        drain(&mut subscription, &mut ids);
        drop(subscription);

        for publisher in 0..PUBLISHERS {
            check_numbers(
                &ids,
                publisher,
                owed_after[publisher],
                owed_until[publisher],
            );
        }
        self.events_received.fetch_add(ids.len(), Ordering::SeqCst);
        self.connections.fetch_add(1, Ordering::SeqCst);
    }
}

fn event(user_id: Uuid, id: i64) -> Arc<Signal> {
    let payload = format!(r#"{{"type":"device","user_id":"{user_id}","id":{id}}}"#);
    let notification = Notification::parse(&payload).unwrap();
    Arc::new(Signal::new(notification, None, None))
}

fn id_of(signal: &Signal) -> i64 {
    match signal {
        Signal::Event(event) => event.id.unwrap(),
        other => panic!("only events are published: {other:?}"),
    }
}

fn drain(subscription: &mut Subscription, ids: &mut Vec<i64>) {
    loop {
        match subscription.receiver().try_recv() {
            Ok(signal) => ids.push(id_of(&signal)),
            Err(TryRecvError::Empty) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The numbers of `publisher` have no gap, and hold all of `owed_after + 1 ..= owed_until`.
fn check_numbers(ids: &[i64], publisher: usize, owed_after: i64, owed_until: i64) {
    let base = i64::try_from(publisher).unwrap() * ID_BASE;
    let numbers: Vec<i64> = ids
        .iter()
        .map(|id| id - base)
        .filter(|number| (1..ID_BASE).contains(number))
        .collect();
    let first = numbers.first().copied().unwrap_or(owed_until + 1);
    let last = numbers.last().copied().unwrap_or(owed_after);
    assert!(
        first <= owed_after + 1 && last >= owed_until,
        "owed {owed_after}+1 ..= {owed_until}, got {first} ..= {last}"
    );
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "a gap: {numbers:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_lost_and_nothing_stays_behind() {
    let (mut events_received, mut connections) = (0, 0);
    for seed in 0..ROUNDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let round = Arc::new(Round::new(&mut rng));
        let mut tasks = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let (round, rng) = (Arc::clone(&round), StdRng::from_rng(&mut rng));
            tasks.spawn(async move { round.publish(publisher, rng).await });
        }
        for _ in 0..CONNECTORS {
            let (round, rng) = (Arc::clone(&round), StdRng::from_rng(&mut rng));
            tasks.spawn(async move { round.connect_until_all_is_published(rng).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| panic!("round {seed}: {error}"));
        }
        assert_eq!(round.hub.users_connected(), 0, "round {seed}");
        events_received += round.events_received.load(Ordering::SeqCst);
        connections += round.connections.load(Ordering::SeqCst);
    }
    // A run in which the connections received few events would show nothing.
    println!("{connections} connections received {events_received} events");
    assert!(connections > 1_000 && events_received > 1_000);
}

/// In the rounds above, the user's next connection would remove an entry that stayed. Here the only two
/// connections of each user leave at the same moment, and no other one follows.
#[test]
fn no_entry_stays_when_two_leave_at_once() {
    let hub = Hub::new(1);
    let users: Vec<Uuid> = (0..DEPARTURES).map(|_| Uuid::new_v4()).collect();
    let arrived = AtomicUsize::new(0);
    let leave_all = || {
        let subscriptions = users.iter().map(|user| hub.subscribe(*user));
        let subscriptions: Vec<Subscription> = subscriptions.collect();
        for (before, subscription) in subscriptions.into_iter().enumerate() {
            arrived.fetch_add(1, Ordering::SeqCst);
            // Spins, since a thread that is woken comes too late. Yields, in case there is one core.
            for spins in 1_u32.. {
                if arrived.load(Ordering::SeqCst) >= 2 * (before + 1) {
                    break;
                }
                if spins.is_multiple_of(10_000) {
                    thread::yield_now();
                }
                hint::spin_loop();
            }
            drop(subscription);
        }
    };
    thread::scope(|scope| {
        scope.spawn(leave_all);
        scope.spawn(leave_all);
    });
    assert_eq!(hub.users_connected(), 0);
}
