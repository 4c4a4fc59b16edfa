//! Many nodes of one database over a real broker: whatever happens to nodes, to the broker, to the links and to PostgreSQL,
//! each client gets each event once and in order, and afterwards one node leads and the others follow.
//!
//! `make chaos BUS=redis`, `BUS=nats` and `BUS=nats-cluster` run these tests, which take minutes each.

mod bus;
mod fault;
mod operator;
mod team;
mod timeline;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use self::bus::Over;
use self::fault::Fault;
use self::team::Team;
use self::timeline::Timeline;
use crate::clients::Habit;
use crate::ledger::{Outcome, Record};
use crate::scene::{Outcomes, Plan};
use crate::settings;

mod over_redis {
    use super::Over::Redis;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=redis"]
    async fn faults() {
        super::faults("redis_faults", Redis).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=redis"]
    async fn rolled_to_the_bus_and_back() {
        super::rolled("redis_rolled", Redis).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=redis"]
    async fn a_standby_is_promoted() {
        super::promoted("redis_promoted", Redis).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=redis"]
    async fn the_primary_crashes_under_load_and_its_standby_is_promoted() {
        super::crashed_over("redis_crashed_over", Redis).await;
    }
}

mod over_nats {
    use super::Over::Nats;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=nats"]
    async fn faults() {
        super::faults("nats_faults", Nats).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=nats"]
    async fn rolled_to_the_bus_and_back() {
        super::rolled("nats_rolled", Nats).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=nats"]
    async fn a_standby_is_promoted() {
        super::promoted("nats_promoted", Nats).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=nats"]
    async fn the_primary_crashes_under_load_and_its_standby_is_promoted() {
        super::crashed_over("nats_crashed_over", Nats).await;
    }
}

/// The other scenarios are of nodes and databases, and the same over one server.
mod over_nats_cluster {
    use super::Over::NatsCluster;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "make chaos BUS=nats-cluster"]
    async fn faults() {
        super::faults("nats_cluster_faults", NatsCluster).await;
    }
}

/// The specification's clients lose the events of the time without their node.
fn plan(name: &'static str) -> Plan {
    let mut plan = Plan::named(name);
    plan.habits.retain(|habit| *habit != Habit::Plain);
    plan
}

/// Every fault, in an order of the seed. Some begin before the nodes have recovered from the one before.
async fn faults(name: &'static str, over: Over) {
    let mut team = Team::start(plan(name), over, true).await;
    let mut rng = StdRng::seed_from_u64(settings::seed());
    let mut timeline = Timeline::begin();
    team.settled().await;
    let mut rounds = 0;
    while rounds < settings::rounds() || team.scene.written() < settings::events_min() {
        let mut faults = Fault::of(over);
        faults.shuffle(&mut rng);
        for fault in faults {
            timeline.mark(fault.name());
            fault.happen(&mut team, &mut rng).await;
            if rng.random_bool(0.6) {
                timeline.mark("recovery");
                team.settled().await;
            }
        }
        rounds += 1;
    }
    timeline.mark("recovery");
    team.settled().await;
    timeline.mark("the end");
    judge(team, &timeline, false).await;
}

/// Nodes without a bus are replaced by nodes with one, one after another, and back.
async fn rolled(name: &'static str, over: Over) {
    let mut team = Team::start(plan(name), over, false).await;
    let mut timeline = Timeline::begin();
    for with_bus in [true, false] {
        for node in 0..settings::nodes() {
            timeline.mark(if with_bus { "to the bus" } else { "back" });
            team.scene.load(settings::fault_time()).await;
            team.replace(node, with_bus).await;
        }
        if with_bus {
            team.settled().await;
        }
        team.scene.load(settings::fault_time()).await;
    }
    timeline.mark("the end");
    judge(team, &timeline, false).await;
}

/// The bus is the same for both databases, and no event of one is taken for one of the other.
async fn promoted(name: &'static str, over: Over) {
    let mut team = Team::start(plan(name), over, true).await;
    team.settled().await;
    let standby = team.scene.lab.standby().await;
    team.scene.load(settings::fault_time()).await;
    team.scene.silence().await;
    let timeline = Timeline::begin();
    team.scene.lab.fail_over_to(standby).await;
    team.settled().await;
    let outcomes = judge(team, &timeline, true).await;
    for client in &outcomes.clients {
        let resets = &client.library.resets;
        assert!(resets.contains_key("history"), "no reset: {resets:?}");
    }
}

/// What counts is the log that survives: events that the standby did not have may have been handed out, and each client
/// is reset.
async fn crashed_over(name: &'static str, over: Over) {
    let mut team = Team::start(plan(name), over, true).await;
    team.settled().await;
    let standby = team.scene.lab.standby().await;
    let mut timeline = Timeline::begin();
    team.scene.load(settings::fault_time()).await;
    team.scene.lab.cut_off(&standby).await;
    team.scene.load(settings::fault_time()).await;
    timeline.mark("the crash");
    team.scene.crash_over_to(standby).await;
    team.settled().await;
    timeline.mark("load");
    team.scene.load(settings::fault_time()).await;
    timeline.mark("the end");
    let outcomes = judge(team, &timeline, true).await;
    let left_behind = |record: &&Record| record.outcome == Outcome::LeftBehind;
    let gone = outcomes.records.iter().filter(left_behind).count();
    assert!(gone > 0, "the standby had everything");
    eprintln!("  the standby did not have {gone} events");
    for client in &outcomes.clients {
        let resets = &client.library.resets;
        assert!(resets.contains_key("history"), "no reset: {resets:?}");
    }
}

async fn judge(team: Team, timeline: &Timeline, resets: bool) -> Outcomes {
    let Team { scene, bus, .. } = team;
    let outcomes = scene.judge().await;
    drop(bus);
    eprintln!("{}", timeline.report(&outcomes));
    outcomes.verdict.assert_flawless(resets, false);
    outcomes
}
