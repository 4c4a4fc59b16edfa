use super::explore::every_schedule;
use super::scenario::Node::{First, Follower, Second};
use super::scenario::Step::{Barrier, Begin, Commit, Marks, Name, Publish, Write};
use super::scenario::{Budget, Scenario};

const NOTHING: Budget = Budget::NOTHING;

fn explore(scenario: &Scenario) {
    let explored = every_schedule(scenario);
    assert!(explored.ends > 1 && explored.states > 10, "{explored:?}");
}

/// An event goes missing at the end of what was published: only a mark shows it.
#[test]
fn a_gap_at_the_tail() {
    let steps = [
        Begin,
        Begin,
        Write(0, 0),
        Write(1, 0),
        Commit(1),
        Marks(First),
        Commit(0),
        Marks(First),
    ];
    let budget = Budget {
        losses: 2,
        failures: 1,
        ..NOTHING
    };
    explore(&Scenario::new(&steps, budget));
}

/// Batches come while the log is read, and some of them are missing, too.
#[test]
fn a_repair_races_batches_and_a_second_repair() {
    let steps = [
        Begin,
        Begin,
        Write(0, 0),
        Write(1, 0),
        Commit(0),
        Begin,
        Write(2, 0),
        Commit(2),
        Commit(1),
    ];
    let budget = Budget {
        losses: 2,
        repeats: 1,
        ..NOTHING
    };
    explore(&Scenario::new(&steps, budget));
}

/// Barriers come late, in another order and where batches are missing, and the client comes back with their cursors.
#[test]
fn barriers_come_late_and_out_of_order() {
    let steps = [
        Begin,
        Write(0, 0),
        Barrier(First),
        Commit(0),
        Barrier(First),
        Barrier(First),
    ];
    let budget = Budget {
        losses: 1,
        overtakings: 1,
        departures: 1,
        ..NOTHING
    };
    explore(&Scenario::new(&steps, budget));
}

/// Another leader begins, and batches of the old run come late.
#[test]
fn another_node_leads() {
    let steps = [
        Begin,
        Write(0, 0),
        Publish(Second),
        Commit(0),
        Name(Second),
        Begin,
        Write(1, 0),
        Commit(1),
        Marks(Second),
    ];
    let budget = Budget {
        losses: 1,
        ..NOTHING
    };
    explore(&Scenario::new(&steps, budget));
}

/// The barrier of the new leader was sent before an event that the old one has published.
#[test]
fn the_barriers_of_two_leaders() {
    let steps = [
        Begin,
        Write(0, 0),
        Barrier(First),
        Barrier(Second),
        Commit(0),
        Barrier(First),
        Publish(Second),
        Name(Second),
        Barrier(Second),
    ];
    let budget = Budget {
        departures: 1,
        ..NOTHING
    };
    explore(&Scenario::new(&steps, budget));
}

/// A user comes while batches of their shard come, and goes, and comes again.
#[test]
#[ignore = "minutes: make model"]
fn a_shard_is_taken_late_let_go_of_and_taken_again() {
    let steps = [
        Begin,
        Write(0, 0),
        Commit(0),
        Barrier(First),
        Begin,
        Write(1, 0),
        Commit(1),
        Barrier(First),
    ];
    let budget = Budget {
        losses: 1,
        departures: 1,
        let_gos: 1,
        ..NOTHING
    };
    let scenario = Scenario {
        ..Scenario::new(&steps, budget)
    };
    explore(&scenario);
}

/// The follower reads the log itself, and follows again.
#[test]
#[ignore = "minutes: make model"]
fn the_follower_reads_the_log_itself_and_follows_again() {
    let steps = [
        Begin,
        Write(0, 0),
        Barrier(First),
        Commit(0),
        Barrier(First),
    ];
    let budget = Budget {
        degradations: 1,
        own_barriers: 2,
        departures: 1,
        ..NOTHING
    };
    explore(&Scenario::new(&steps, budget));
}

/// A client moves between the leader and the follower.
#[test]
#[ignore = "minutes: make model"]
fn a_client_moves_between_nodes() {
    let steps = [
        Begin,
        Write(0, 0),
        Barrier(First),
        Commit(0),
        Barrier(First),
        Barrier(First),
    ];
    let budget = Budget {
        departures: 2,
        looks: 1,
        ..NOTHING
    };
    let scenario = Scenario {
        homes: vec![Follower, First],
        ..Scenario::new(&steps, budget)
    };
    explore(&scenario);
}
