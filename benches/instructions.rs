//! How many instructions an event takes from its notification to its frame, counted and not timed.
//!
//! Counts hardly differ between runs, so they may be held to a bound: the count that is written here, and
//! 5 % beyond it. Who makes the way of an event longer than that is told, and writes down the new count
//! with the reason. It is one of this compiler and this architecture. Run by `make bench-instructions`, and without
//! optimization, with a count of its own, by `make bench-smoke`.

#![allow(missing_docs, reason = "of what the macros make")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use hushnet_realtime::delivery::{Bounds, Hub, ReplayBuffer, Router, Subscription};
use hushnet_realtime::metrics::Metrics;
use hushnet_realtime::protocol::{Encoding, Notification};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u128 = 1_000;
const USERS: u128 = 100;
/// Of all events together. Some of each event's are its transaction's: it is read from the end of the text, and kept with
/// the event and in the replay buffer.
const INSTRUCTIONS: u64 = if cfg!(debug_assertions) {
    61_722_720
} else {
    2_381_490
};
const INSTRUCTIONS_MAX: u64 = INSTRUCTIONS / 100 * 105;

/// Everything that an event meets, and the notifications of all events.
struct Scene {
    router: Router,
    connections: Vec<Subscription>,
    notifications: Vec<String>,
}

fn scene() -> Scene {
    const CHAT: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    let hub = Hub::new(16);
    let bounds = Bounds {
        bytes_max: 64 << 20,
        age_max: Duration::from_mins(1),
    };
    let now = Instant::now();
    let user = |n: u128| Uuid::from_u128(n % USERS);
    let connections = (0..USERS).map(|n| hub.subscribe(user(n))).collect();
    let notification = |n| {
        let user = user(n);
        let xid = 1_000_000 + n;
        format!(
            r#"{{"type" : "message", "chat_id" : "{CHAT}", "user_id" : "{user}", "id" : {n}, "xid" : {xid}}}"#
        )
    };
    Scene {
        router: Router::new(
            hub,
            ReplayBuffer::new(bounds, now),
            Arc::new(Metrics::new()),
            now,
        )
        .0,
        connections,
        notifications: (0..EVENTS).map(notification).collect(),
    }
}

#[library_benchmark]
#[bench::each_to_one_connection(scene())]
fn parse_route_encode(mut scene: Scene) -> Scene {
    for (payload, n) in scene.notifications.iter().zip(0..) {
        if let Ok(notification) = Notification::parse(payload) {
            scene.router.route(notification);
        }
        let receiver = scene.connections[n % USERS as usize].receiver();
        if let Ok(signal) = receiver.try_recv() {
            black_box(signal.frame(Encoding::Plain));
        }
    }
    scene
}

library_benchmark_group!(name = event; benchmarks = parse_route_encode);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, INSTRUCTIONS_MAX)]));
    library_benchmark_groups = event
);
