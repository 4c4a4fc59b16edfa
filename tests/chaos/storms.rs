//! Clients and transactions of every kind, and no fault of PostgreSQL or the network.

use std::time::{Duration, Instant};

use crate::clients::Habit;
use crate::scene::{Plan, Scene};
use crate::settings;

/// A scenario that takes longer than this has failed.
const GIVE_UP: Duration = Duration::from_hours(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_and_go() {
    let scene = Scene::set(Plan::named("clients_come_and_go"), |_| {}).await;
    let begun = Instant::now();
    while begun.elapsed() < settings::load_time() || scene.written() < settings::events_min() {
        assert!(begun.elapsed() < GIVE_UP, "{} events", scene.written());
        scene.load(Duration::from_millis(100)).await;
    }
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// With a tiny replay buffer, missed events are in the log only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_come_back_to_the_log() {
    let restless = Habit::Restless {
        away_max: Duration::from_millis(1_500),
        stall_max: Duration::from_millis(100),
        read_pause: Duration::ZERO,
    };
    let plan = Plan {
        users: 4,
        habits: vec![restless; 4],
        ..Plan::named("clients_come_back_to_the_log")
    };
    let scene = Scene::set(plan, |config| config.recent_bytes_max = 65_536).await;
    scene.load(settings::load_time()).await;
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// Replays come from the log and take many pages, while transactions commit between them and the
/// heartbeat sends cursors to the clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_are_long() {
    let restless = Habit::Restless {
        away_max: Duration::from_secs(3),
        stall_max: Duration::from_millis(700),
        read_pause: Duration::from_millis(10),
    };
    let plan = Plan {
        users: 1,
        habits: vec![restless; 8],
        writers: 8,
        pace: settings::pace() / 2,
        rows_max: 40,
        by_reference: 10,
        ..Plan::named("replays_are_long")
    };
    let scene = Scene::set(plan, |config| {
        config.recent_bytes_max = 65_536;
        config.ping_interval_ms = 100;
    })
    .await;
    scene.load(settings::load_time()).await;
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// The service closes these clients with 4008, and they come back with their cursor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stop_reading() {
    let stalling = Habit::Restless {
        away_max: Duration::from_millis(100),
        stall_max: Duration::from_secs(3),
        read_pause: Duration::ZERO,
    };
    let plan = Plan {
        users: 3,
        habits: vec![stalling, stalling, Habit::Faithful],
        by_reference: 60,
        ..Plan::named("clients_stop_reading")
    };
    let scene = Scene::set(plan, |config| config.write_timeout_ms = 500).await;
    scene.load(settings::load_time()).await;
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// An open transaction delays neither the cursor nor other transactions' events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_stays_open() {
    let scene = Scene::set(Plan::named("a_transaction_stays_open"), |_| {}).await;
    let mut database = scene.lab.database().await;
    crate::lab::execute(
        &mut database,
        "BEGIN; INSERT INTO messages (logical_msg_id, header, ciphertext) VALUES ('m', '{}', '')",
    )
    .await;
    scene.load(settings::load_time()).await;
    // The transaction is still open when the clients are judged.
    scene.judge().await.verdict.assert_flawless(false, false);
    drop(database);
}
