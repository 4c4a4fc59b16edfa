//! Faults of PostgreSQL, of the link to it and of the service, each under load.

use std::time::{Duration, Instant};

use hushnet_testkit::wait::{deadline, until};
use sqlx::{Connection, PgConnection};

use crate::clients::Habit;
use crate::lab::{Lab, Shutdown, execute, listening_backend, signal};
use crate::scene::{Outcomes, Plan, Scene};
use crate::service::Service;
use crate::settings;
use crate::verdict::recovered_after;

/// The service promises to notice and replace a dead connection within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

const RECONNECTS: &str = "hushnet_listener_reconnects_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_s_backend_is_terminated_every_second() {
    let scene = Scene::set(Plan::named("listener_terminated"), |_| {}).await;
    let begun = Instant::now();
    let mut database = scene.lab.database().await;
    while begun.elapsed() < settings::load_time() {
        scene.load(Duration::from_secs(1)).await;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .execute(&mut database)
        .await
        .unwrap();
    }
    database.close().await.unwrap();
    scene.judge().await.verdict.assert_flawless(false, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_restarted_fast() {
    restart("postgresql_restarted_fast", Shutdown::Fast, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_restarted_as_after_a_crash() {
    restart("postgresql_crashed", Shutdown::Immediate, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_down_for_a_while() {
    let down = settings::load_time() / 2;
    restart(
        "postgresql_down",
        Shutdown::Fast,
        down.max(Duration::from_secs(3)),
    )
    .await;
}

/// What survives reaches everyone, and what the crash takes back reaches nobody: its numbers and ids are given out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_crashes_while_writers_commit_asynchronously() {
    let mut plan = Plan::named("crashed_asynchronous");
    plan.asynchronous = true;
    let mut scene = Scene::set(plan, |_| {}).await;
    for _ in 0..4 {
        scene.load(settings::load_time() / 5).await;
        scene.lab.stop(Shutdown::Immediate).await;
        scene.lab.start().await;
    }
    scene.load(settings::load_time() / 5).await;
    scene.judge().await.verdict.assert_flawless(false, true);
}

async fn restart(name: &'static str, how: Shutdown, down: Duration) {
    let mut scene = Scene::set(Plan::named(name), |_| {}).await;
    for _ in 0..2 {
        scene.load(settings::load_time() / 3).await;
        scene.lab.stop(how).await;
        tokio::time::sleep(down).await;
        scene.lab.start().await;
    }
    scene.load(settings::load_time() / 3).await;
    scene.judge().await.verdict.assert_flawless(false, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_s_backend_freezes() {
    let scene = Scene::set(Plan::named("listener_frozen"), |_| {}).await;
    scene.load(settings::load_time() / 3).await;
    let mut database = scene.lab.database().await;
    let reconnects = scene.counter(RECONNECTS).await;
    let mut patience = Duration::from_secs(1);
    let (frozen, at) = loop {
        let backend = listening_backend(&mut database).await;
        signal("STOP", backend);
        let at = Instant::now();
        // A backend that is frozen while it holds one of PostgreSQL's internal locks stops every writer. That
        // is another fault: try again.
        if scene.progress(10, patience).await {
            break (backend, at);
        }
        signal("CONT", backend);
        patience *= 2;
    };
    // The service has to notice it by itself: the backend stays frozen until it has.
    scene
        .until("another listener", async |scene| {
            scene.counter(RECONNECTS).await > reconnects && scene.is_ready().await
        })
        .await;
    scene.load(settings::load_time()).await;
    signal("CONT", frozen);
    database.close().await.unwrap();
    let outcomes = scene.judge().await;
    outcomes.verdict.assert_flawless(false, false);
    assert_recovery(&outcomes, at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_is_cut_without_a_sound() {
    cut("link_cut", Duration::from_secs(3)).await;
}

/// As when a firewall between forgets its connections: new ones work all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_die_without_a_sound() {
    cut("connections_forgotten", Duration::ZERO).await;
}

async fn cut(name: &'static str, outage: Duration) {
    // Replays come from the log, and heartbeats fall due during those that hang. With so small a replay
    // buffer every lag is a query, so that more writers would overload the machine.
    let plan = Plan {
        writers: settings::writers().min(8),
        ..Plan::named(name)
    };
    let scene = Scene::set(plan, |config| {
        config.recent_bytes_max = 65_536;
        config.ping_interval_ms = 200;
    })
    .await;
    scene.load(settings::load_time() / 3).await;
    scene.lab.proxy.cut();
    scene.load(outage).await;
    scene.lab.proxy.mend();
    let at = Instant::now();
    scene
        .until("a working connection", async |scene| scene.is_ready().await)
        .await;
    scene.load(settings::load_time()).await;
    let outcomes = scene.judge().await;
    // The service closes a client whose replay cannot be read; the client comes back.
    outcomes.verdict.assert_flawless(false, true);
    assert_recovery(&outcomes, at);
}

fn assert_recovery(outcomes: &Outcomes, from: Instant) {
    let took = recovered_after(from, &outcomes.records, &outcomes.clients);
    eprintln!("  recovered after {took:?}");
    if let Some(slack) = settings::slack() {
        assert!(
            took <= RECOVERY_MAX * slack,
            "recovery took {took:?}: {}",
            outcomes.verdict
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_is_killed_and_started_again() {
    let lab = Lab::open().await;
    let url = lab.url();
    let service = Service::start_binary(&url, "127.0.0.1:0".parse().unwrap()).await;
    let address = service.address;
    let mut plan = Plan::named("service_killed");
    // The specification's clients lose the events of the time without a service.
    plan.habits.retain(|habit| *habit != Habit::Plain);
    let mut scene = Scene::set_with(plan, lab, vec![service]).await;
    for _ in 0..3 {
        scene.load(settings::load_time() / 4).await;
        scene.services.remove(0).kill().await;
        scene.load(Duration::from_millis(200)).await;
        scene
            .services
            .insert(0, Service::start_binary(&url, address).await);
    }
    scene.load(settings::load_time() / 4).await;
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// Two servers of one database wake and sleep with its load, and one is killed while it is awake or sleeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_servers_is_killed() {
    let lab = Lab::open().await;
    let url = lab.url();
    let any = "127.0.0.1:0".parse().unwrap();
    let killed = Service::start_binary(&url, any).await;
    let address = killed.address;
    let services = vec![killed, Service::start_binary(&url, any).await];
    let mut scene = Scene::set_with(Plan::named("one_of_two_killed"), lab, services).await;
    let mut database = scene.lab.database().await;
    let adaptive = settings::ingest() == "adaptive";
    for _ in 0..2 {
        for quiet in [false, true] {
            scene.set_quiet(quiet);
            if adaptive {
                let what = if quiet { "both sleep" } else { "one is awake" };
                until(what, async || is_awake(&mut database).await != quiet).await;
            }
            scene.load(settings::load_time() / 8).await;
            scene.services.remove(0).kill().await;
            scene.load(settings::load_time() / 8).await;
            let started = Service::start_binary(&url, address).await;
            scene.services.insert(0, started);
        }
    }
    database.close().await.unwrap();
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// Whether a server is awake, so that events need not notify.
async fn is_awake(database: &mut PgConnection) -> bool {
    let silent = sqlx::query_scalar("SELECT realtime.silent()");
    silent.fetch_one(database).await.unwrap()
}

/// From each way of ingest to each other one, while transactions run that go by the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_ingest_changes() {
    let scene = Scene::set(Plan::named("ingest_changed"), |_| {}).await;
    let mut database = scene.lab.database().await;
    let mut ways = vec!["tail", "adaptive", "notify", "adaptive", "tail", "notify"];
    if settings::ingest() == "wal" {
        ways.extend(["wal", "tail", "wal", "adaptive", "wal", "notify", "wal"]);
    }
    // For longer than it takes until no transaction goes by the way before, and for less.
    for pause in [Duration::from_secs(3), settings::load_time() / 12] {
        for way in &ways {
            let set = format!("SELECT realtime.set_ingest('{way}')");
            execute(&mut database, &set).await;
            scene.load(pause).await;
        }
    }
    database.close().await.unwrap();
    scene.judge().await.verdict.assert_flawless(false, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_partition_of_the_log_is_free() {
    let scene = Scene::set(Plan::named("no_partition_free"), |_| {}).await;
    let mut database = scene.lab.database().await;
    // The open partition changes while transactions write to the one before.
    let mut rotations = 0;
    loop {
        scene.load(settings::load_time() / 32).await;
        let said: String = sqlx::query_scalar("SELECT realtime.rotate('0 s')")
            .fetch_one(&mut database)
            .await
            .unwrap();
        match said.as_str() {
            "rotated" => rotations += 1,
            "full" => break,
            _ => {}
        }
    }
    assert_eq!(rotations, 15);
    assert!(scene.progress(10, deadline()).await, "inserts do not go on");
    scene.load(settings::load_time() / 2).await;
    database.close().await.unwrap();
    scene.judge().await.verdict.assert_flawless(false, false);
}

/// Another session listens and does not read its notifications, so that PostgreSQL has to keep them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_notification_queue_is_held() {
    let scene = Scene::set(Plan::named("notification_queue_held"), |_| {}).await;
    let mut holder = scene.lab.database().await;
    let channels = "LISTEN messages_channel; LISTEN realtime_control; BEGIN; SELECT 1";
    execute(&mut holder, channels).await;
    scene.load(settings::load_time()).await;
    scene.judge().await.verdict.assert_flawless(false, false);
    drop(holder);
}

/// The promoted standby's transaction numbers are another history than the cursors'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_promoted() {
    let mut plan = Plan::named("standby_promoted");
    plan.habits.retain(|habit| *habit != Habit::Plain);
    let devices = plan.users * plan.habits.len();
    let mut scene = Scene::set(plan, |_| {}).await;
    let standby = scene.lab.standby().await;
    scene.load(settings::load_time()).await;
    scene.silence().await;
    scene.lab.fail_over_to(standby).await;
    let outcomes = scene.judge().await;
    outcomes.verdict.assert_flawless(true, false);
    for client in &outcomes.clients {
        let resets = &client.library.resets;
        assert!(resets.contains_key("history"), "no reset: {resets:?}");
    }
    assert_eq!(outcomes.clients.len(), devices);
}
