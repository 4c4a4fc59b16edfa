//! What one event costs the process, by how many users are connected.
//!
//! `route/hub/N` and `route/predecessor/N` measure the same thing. N users are connected once each;
//! every connection is a task that waits for its receiver, as in the server, and takes the text of
//! the frame that it would send. The clock runs from the sending of one event for a random user
//! until no task has work left from it. In the hub that is the user's own task; in the predecessor
//! all N wake, clone the event, look at it, and all but one drop it. All tasks share one thread,
//! so on an otherwise idle machine the time is also the CPU time of all of them together.
//!
//! Left out on both sides: parsing the notification (`parse` is the hub's), the socket, and polling
//! for I/O, which tokio does once in 61 tasks and so would cost the predecessor more. Events are
//! made in batches while the clock stands. Both use the server's allocator.

mod predecessor;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main,
    measurement::WallTime,
};
use hushnet_realtime::delivery::{Hub, Subscription};
use hushnet_realtime::protocol::{Encoding, Notification, Signal};
use predecessor::RealtimeEvent;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USER_COUNTS: [usize; 4] = [100, 1_000, 10_000, 100_000];
const DEVICE_COUNTS: [usize; 3] = [1, 10, 100];
/// Users whose connections stay while one other user comes and goes.
const CHURN_USER_COUNTS: [usize; 2] = [100, 100_000];
/// `user_channel_capacity` as it is configured by default.
const CAPACITY: usize = 16;
/// Inputs made at a time: few enough to be still in the cache when they are used, as an event is
/// that has just been parsed.
const BATCH: u64 = 64;
const SEED: u64 = 1;

/// Runs the connections of one benchmark and knows when they are idle again.
struct Crowd {
    runtime: Runtime,
    idle: Arc<Idle>,
}

/// Counts down the events that connections have still to handle.
struct Idle {
    pending: AtomicUsize,
    reached: Notify,
}

impl Idle {
    fn handled(&self) {
        if self.pending.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.reached.notify_one();
        }
    }
}

impl Crowd {
    fn new() -> Self {
        let runtime = runtime::Builder::new_current_thread().build();
        Self {
            runtime: runtime.unwrap_or_else(|error| panic!("tokio's runtime: {error}")),
            idle: Arc::new(Idle {
                pending: AtomicUsize::new(0),
                reached: Notify::new(),
            }),
        }
    }

    fn connect_to_hub(&self, mut subscription: Subscription) {
        let idle = Arc::clone(&self.idle);
        self.runtime.spawn(async move {
            while let Ok(signal) = subscription.receiver().recv().await {
                black_box(signal.frame(Encoding::Plain));
                idle.handled();
            }
        });
    }

    fn connect_to_predecessor(
        &self,
        user_id: Uuid,
        mut receiver: broadcast::Receiver<RealtimeEvent>,
    ) {
        let (idle, user_id) = (Arc::clone(&self.idle), user_id.to_string());
        self.runtime.spawn(async move {
            while let Ok(event) = receiver.recv().await {
                black_box(event.frame_for(&user_id));
                idle.handled();
            }
        });
    }

    /// Sends `events` events one after another, each when the one before has been handled by
    /// `receivers` connections, and returns how long that took without the making of them.
    fn route<E>(
        &self,
        events: u64,
        receivers: usize,
        mut make: impl FnMut() -> E,
        send: impl Fn(E),
    ) -> Duration {
        self.runtime.block_on(async {
            let (mut elapsed, mut left) = (Duration::ZERO, events);
            while left > 0 {
                let batch: Vec<E> = (0..left.min(BATCH)).map(|_| make()).collect();
                left -= batch.len() as u64;
                let start = Instant::now();
                for event in batch {
                    self.idle.pending.store(receivers, Ordering::Relaxed);
                    send(event);
                    self.idle.reached.notified().await;
                }
                elapsed += start.elapsed();
            }
            elapsed
        })
    }
}

/// Users in the same order at every run.
fn users(count: usize) -> (Vec<Uuid>, StdRng) {
    let mut rng = StdRng::seed_from_u64(SEED);
    let users = (0..count).map(|_| random_user(&mut rng)).collect();
    (users, rng)
}

fn random_user(rng: &mut StdRng) -> Uuid {
    Uuid::from_u128(rng.random())
}

/// A message's notification as HushNet's trigger writes it.
fn notification(user_id: Uuid) -> String {
    const CHAT: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    format!(r#"{{"type" : "message", "chat_id" : "{CHAT}", "user_id" : "{user_id}"}}"#)
}

fn hub_event(user_id: Uuid) -> (Uuid, Arc<Signal>) {
    match Notification::parse(&notification(user_id)) {
        Ok(notification) => (user_id, Arc::new(Signal::new(notification, None, None))),
        Err(error) => panic!("{error}"),
    }
}

fn predecessor_event(user_id: Uuid) -> RealtimeEvent {
    match RealtimeEvent::parse(&notification(user_id)) {
        Some(event) => event,
        None => panic!("the notification is an event"),
    }
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in USER_COUNTS {
        route_by_hub(&mut group, BenchmarkId::new("hub", count), count, count);
    }
    for count in USER_COUNTS {
        // One event for 100,000 takes tens of milliseconds: fewer samples say as much.
        group.sample_size(if count < 10_000 { 50 } else { 20 });
        route_by_predecessor(&mut group, count);
    }
    group.finish();
}

/// `receiving` of the `count` connected users get all the events.
fn route_by_hub(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    count: usize,
    receiving: usize,
) {
    let (users, mut rng) = users(count);
    let mut connected = None;
    group.bench_function(id, |b| {
        let (crowd, hub) = connected.get_or_insert_with(|| {
            let (crowd, hub) = (Crowd::new(), Hub::new(CAPACITY));
            for user in &users {
                crowd.connect_to_hub(hub.subscribe(*user));
            }
            (crowd, hub)
        });
        b.iter_custom(|events| {
            // Spread over all users, so that they are no neighbours in memory.
            let apart = count / receiving;
            let make = || hub_event(users[apart * rng.random_range(0..receiving)]);
            crowd.route(events, 1, make, |(user, signal)| {
                hub.publish(user, || signal);
            })
        });
    });
}

fn route_by_predecessor(group: &mut BenchmarkGroup<'_, WallTime>, count: usize) {
    let (users, mut rng) = users(count);
    let mut connected = None;
    group.bench_function(BenchmarkId::new("predecessor", count), |b| {
        let (crowd, sender) = connected.get_or_insert_with(|| {
            let (crowd, sender) = (Crowd::new(), predecessor::channel());
            for user in &users {
                crowd.connect_to_predecessor(*user, sender.subscribe());
            }
            (crowd, sender)
        });
        b.iter_custom(|events| {
            let make = || predecessor_event(users[rng.random_range(0..count)]);
            crowd.route(events, count, make, |event| {
                // As many receivers as connections, or the clock would never stop.
                assert!(sender.send(event).is_ok_and(|reached| reached == count));
            })
        });
    });
}

/// Events for the same number of users, whoever else is connected: what is left of the growth of
/// `route/hub` when the users who get events stay in the processor's cache.
fn others(c: &mut Criterion) {
    let mut group = c.benchmark_group("others");
    for count in USER_COUNTS {
        let id = BenchmarkId::from_parameter(count);
        route_by_hub(&mut group, id, count, USER_COUNTS[0]);
    }
    group.finish();
}

/// An event for a user who is not connected.
fn absent(c: &mut Criterion) {
    let mut group = c.benchmark_group("absent");
    for count in USER_COUNTS {
        let (users, mut rng) = users(count);
        let mut connected = None;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            let (hub, _subscriptions) = connected.get_or_insert_with(|| fill(&users));
            b.iter_batched(
                || hub_event(random_user(&mut rng)),
                |(user, signal)| hub.publish(user, || signal),
                BatchSize::NumIterations(BATCH),
            );
        });
    }
    group.finish();
}

/// An event for the only user, until each of its devices has the frame.
fn devices(c: &mut Criterion) {
    let mut group = c.benchmark_group("devices");
    for count in DEVICE_COUNTS {
        let user = users(1).0[0];
        let mut connected = None;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            let (crowd, hub) = connected.get_or_insert_with(|| {
                let (crowd, hub) = (Crowd::new(), Hub::new(CAPACITY));
                for _ in 0..count {
                    crowd.connect_to_hub(hub.subscribe(user));
                }
                (crowd, hub)
            });
            b.iter_custom(|events| {
                crowd.route(
                    events,
                    count,
                    || hub_event(user),
                    |(user, signal)| {
                        assert_eq!(hub.publish(user, || signal), count);
                    },
                )
            });
        });
    }
    group.finish();
}

/// One more user connects and disconnects.
fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("churn");
    for count in CHURN_USER_COUNTS {
        let (users, mut rng) = users(count);
        let mut connected = None;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            let (hub, _subscriptions) = connected.get_or_insert_with(|| fill(&users));
            b.iter_batched(
                || random_user(&mut rng),
                |user| drop(black_box(hub.subscribe(user))),
                BatchSize::NumIterations(BATCH),
            );
        });
    }
    group.finish();
}

/// A hub to which these users are connected; nobody reads.
fn fill(users: &[Uuid]) -> (Hub, Vec<Subscription>) {
    let hub = Hub::new(CAPACITY);
    let subscriptions = users.iter().map(|user| hub.subscribe(*user)).collect();
    (hub, subscriptions)
}

/// Reading one notification that carries the log's `id`.
fn parse(c: &mut Criterion) {
    let user = users(1).0[0];
    let payload = notification(user).replace('}', r#", "id" : 1234567}"#);
    c.bench_function("parse", |b| {
        b.iter(|| {
            let notification = Notification::parse(black_box(&payload));
            notification.map(|notification| Signal::new(notification, None, None))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        // Resampling and plots would take longer than the measuring.
        .nresamples(5_000)
        .without_plots();
    targets = route, others, absent, devices, churn, parse
}
criterion_main!(benches);
