//! The scenarios.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::explore::{every_schedule, random_schedule};
use super::scenario::Node::{First, Follower, Second};
use super::scenario::Step::{
    self, All, Barrier, Begin, Commit, Event, Flush, Forget, Lead, Marks, Name, Open, Promote,
    Publish, Stop, Truncate, Write,
};
use super::scenario::{Broken, Budget, Scenario};

const NOTHING: Budget = Budget::NOTHING;
/// Random schedules, unless `NODES_MODEL_SCHEDULES` says how many.
const SCHEDULES: u64 = 500;

/// A gap at the end of what was published, which only a mark or a barrier shows, while transactions commit out of order.
fn gap_at_the_tail() -> Scenario {
    let steps = [
        Open(0),
        Open(0),
        Commit(1),
        Marks(First),
        Commit(0),
        Barrier(First),
        Barrier(First),
    ];
    let budget = Budget {
        losses: 2,
        failures: 1,
        ..NOTHING
    };
    Scenario::new(&steps, budget)
}

/// Batches come while the log is read, and some of them are missing, too.
fn second_repair() -> Scenario {
    let steps = [Event(0), Open(0), Event(0), Commit(1), Marks(First)];
    let budget = Budget {
        losses: 2,
        repeats: 1,
        ..NOTHING
    };
    Scenario::new(&steps, budget)
}

/// Barriers come late and out of order, and the client comes back with their cursors.
fn late_barriers() -> Scenario {
    let steps = [Barrier(First), Commit(0), Barrier(First), Barrier(First)];
    let budget = Budget {
        overtakings: 1,
        departures: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0), Barrier(First)],
        ..Scenario::new(&steps, budget)
    }
}

/// Another leader begins, and batches of the old run come late.
fn another_leader() -> Scenario {
    let steps = [
        Event(0),
        Publish(Second),
        Commit(0),
        All(&[Name(Second), Stop(First)]),
        All(&[Event(0), Marks(Second)]),
    ];
    let budget = Budget {
        losses: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0)],
        ..Scenario::new(&steps, budget)
    }
}

/// The barrier of the new leader was sent before an event that the old one has published.
fn barriers_of_two_leaders() -> Scenario {
    let steps = [
        Commit(0),
        Barrier(First),
        All(&[Lead(Second), Barrier(Second)]),
    ];
    let budget = Budget {
        departures: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0), Barrier(First), Barrier(Second)],
        ..Scenario::new(&steps, budget)
    }
}

/// A user comes while batches of their shard come, goes, and comes again.
fn late_shard() -> Scenario {
    let steps = [Event(0), Barrier(First), Barrier(First)];
    let budget = Budget {
        departures: 1,
        let_gos: 1,
        ..NOTHING
    };
    Scenario::new(&steps, budget)
}

/// The bus falls silent, and the follower reads the log itself.
fn degraded() -> Scenario {
    let steps = [Commit(0), Barrier(First), Event(0)];
    let budget = Budget {
        degradations: 1,
        own_barriers: 2,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0)],
        ..Scenario::new(&steps, budget)
    }
}

/// It follows again. The leader's barrier was sent before an event that the node has routed itself.
fn back_from_degraded() -> Scenario {
    let steps = [Commit(0), Barrier(First)];
    let budget = Budget {
        own_barriers: 1,
        departures: 1,
        ..NOTHING
    };
    Scenario {
        begins_degraded: true,
        before: vec![Open(0), Barrier(Follower), Barrier(First), Barrier(First)],
        ..Scenario::new(&steps, budget)
    }
}

/// A client moves between the leader and the follower.
fn client_that_moves() -> Scenario {
    let steps = [Barrier(First), Commit(0), Barrier(First)];
    let budget = Budget {
        departures: 1,
        looks: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0)],
        homes: vec![Follower, First],
        ..Scenario::new(&steps, budget)
    }
}

/// The follower is elected, and the node that has led follows it.
fn follower_that_leads() -> Scenario {
    let steps = [
        Event(0),
        Publish(Follower),
        Commit(0),
        Name(Follower),
        Stop(First),
        All(&[Event(0), Barrier(Follower), Marks(Follower)]),
    ];
    let budget = Budget {
        losses: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0), Barrier(Follower)],
        homes: vec![First],
        ..Scenario::new(&steps, budget)
    }
}

/// A client of a follower that comes to lead.
fn client_of_the_elected() -> Scenario {
    Scenario {
        homes: vec![Follower],
        ..follower_that_leads()
    }
}

/// A table is emptied between two events, and the batch that says so may be lost.
fn truncated() -> Scenario {
    let steps = [Commit(0), Truncate, Event(0), Barrier(First), Marks(First)];
    let budget = Budget {
        losses: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Open(0), Barrier(First)],
        ..Scenario::new(&steps, budget)
    }
}

/// A batch is lost, and the log retains its event no longer when it is read.
fn forgotten() -> Scenario {
    let steps = [Event(0), Forget, Event(0), Marks(First), Barrier(First)];
    let budget = Budget {
        losses: 1,
        ..NOTHING
    };
    Scenario::new(&steps, budget)
}

/// A standby is promoted that has not got the last event, and the numbers of its transaction are given out again.
fn promoted() -> Scenario {
    let steps = [Event(0), Promote(1), Lead(First), Event(0), Barrier(First)];
    let budget = Budget {
        departures: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Barrier(First)],
        ..Scenario::new(&steps, budget)
    }
}

/// The follower is elected by the promoted standby, while the node that has led still routes what the standby has not got.
fn promoted_and_elected() -> Scenario {
    let steps = [
        Event(0),
        Promote(1),
        All(&[Lead(Follower), Stop(First)]),
        All(&[Event(0), Barrier(Follower)]),
    ];
    let budget = Budget {
        departures: 1,
        ..NOTHING
    };
    Scenario {
        before: vec![Barrier(First)],
        homes: vec![Follower, First],
        ..Scenario::new(&steps, budget)
    }
}

macro_rules! every {
    ($($scenario:ident),+ $(,)?) => {$(
        #[test]
        fn $scenario() {
            let explored = every_schedule(&super::$scenario());
            assert!(explored.states > explored.ends && explored.ends > 1, "{explored:?}");
        }
    )+};
}

mod every_schedule_of {
    use super::every_schedule;

    every! {
        gap_at_the_tail,
        second_repair,
        late_barriers,
        another_leader,
        barriers_of_two_leaders,
        late_shard,
        degraded,
        back_from_degraded,
        client_that_moves,
        follower_that_leads,
        client_of_the_elected,
        truncated,
        forgotten,
        promoted,
        promoted_and_elected,
    }
}

/// The same in larger worlds.
#[test]
#[ignore = "takes minutes: make model"]
fn every_schedule_of_larger_worlds() {
    let mut second_repair = second_repair();
    second_repair.steps.extend([Event(0), Barrier(First)]);
    second_repair.budget.failures = 1;
    let mut late_barriers = late_barriers();
    late_barriers.budget.losses = 1;
    let mut another_leader = another_leader();
    another_leader.steps.push(Barrier(Second));
    another_leader.budget.failures = 1;
    let mut barriers_of_two_leaders = barriers_of_two_leaders();
    barriers_of_two_leaders.before.clear();
    let before = [Open(0), Barrier(First), Barrier(Second)];
    barriers_of_two_leaders.steps.splice(..0, before);
    let mut late_shard = late_shard();
    late_shard.steps = vec![Event(0), Barrier(First), Event(0), Barrier(First)];
    late_shard.budget.losses = 1;
    let mut degraded = degraded();
    degraded.budget.losses = 1;
    let mut back_from_degraded = back_from_degraded();
    back_from_degraded.before = vec![Open(0)];
    back_from_degraded.steps.insert(0, Barrier(First));
    back_from_degraded.budget.own_barriers = 2;
    let mut client_that_moves = client_that_moves();
    client_that_moves.steps.push(Barrier(First));
    let mut follower_that_leads = follower_that_leads();
    follower_that_leads.homes.push(Follower);
    follower_that_leads.budget.departures = 1;
    let mut truncated = truncated();
    truncated.budget.departures = 1;
    let mut forgotten = forgotten();
    forgotten.budget.departures = 1;
    forgotten.steps.extend([Event(0), Barrier(First)]);
    let mut promoted = promoted();
    promoted.before.push(Event(0));
    promoted.steps.insert(2, Event(0));
    promoted.budget.losses = 1;
    let mut promoted_and_elected = promoted_and_elected();
    promoted_and_elected.before.push(Event(0));
    for scenario in [
        second_repair,
        late_barriers,
        another_leader,
        barriers_of_two_leaders,
        late_shard,
        degraded,
        back_from_degraded,
        client_that_moves,
        follower_that_leads,
        truncated,
        forgotten,
        promoted,
        promoted_and_elected,
    ] {
        let explored = every_schedule(&scenario);
        assert!(explored.states > 5_000, "{explored:?}");
    }
}

/// A rule that is broken on purpose.
mod broken {
    use super::*;

    #[test]
    #[should_panic(expected = "is lost")]
    fn an_event_that_is_routed_before_it_is_visible_is_lost() {
        let budget = Budget {
            losses: 1,
            ..NOTHING
        };
        let steps = [Open(0), Flush(0), Marks(First), Commit(0)];
        every_schedule(&Scenario {
            broken: Broken::RoutedBeforeVisible,
            ..Scenario::new(&steps, budget)
        });
    }

    #[test]
    #[should_panic(expected = "overtakes")]
    fn a_run_that_is_named_before_its_leader_publishes_loses_events() {
        every_schedule(&Scenario {
            broken: Broken::NamedBeforePublishing,
            ..another_leader()
        });
    }
}

/// A large world, in which everything may happen.
fn large(rng: &mut StdRng) -> Scenario {
    let users = rng.random_range(1..=3);
    let (mut steps, mut open, mut begun) = (Vec::new(), Vec::new(), 0);
    let mut leader = First;
    for _ in 0..rng.random_range(10..50) {
        let user = rng.random_range(0..users);
        let step: Step = match rng.random_range(0..20) {
            0..4 => {
                open.push(begun);
                begun += 1;
                if rng.random_bool(0.3) {
                    Begin
                } else {
                    Open(user)
                }
            }
            4..7 if !open.is_empty() => Write(open[rng.random_range(0..open.len())], user),
            7..11 if !open.is_empty() => Commit(open.swap_remove(rng.random_range(0..open.len()))),
            11..13 => {
                begun += 1;
                Event(user)
            }
            13..17 => Barrier([leader, First, Second][rng.random_range(0..3)]),
            17..19 => Marks(leader),
            19 => match rng.random_range(0..16) {
                0..8 => {
                    leader = [First, Second, Follower][rng.random_range(0..3)];
                    Lead(leader)
                }
                8..10 => Stop([First, Second, Follower][rng.random_range(0..3)]),
                10 => Truncate,
                11 => Forget,
                12 => Promote(rng.random_range(0..3)),
                _ => continue,
            },
            _ => continue,
        };
        steps.push(step);
    }
    let present = rng.random_range(0..=users);
    let begins_degraded = rng.random_bool(0.2);
    let mut few = || rng.random_range(0..4);
    let budget = Budget {
        losses: few(),
        repeats: few(),
        overtakings: few(),
        failures: few(),
        degradations: few(),
        own_barriers: 2 * few(),
        looks: few(),
        departures: few(),
        let_gos: few(),
    };
    Scenario {
        steps: steps
            .into_iter()
            .chain(open.into_iter().map(Commit))
            .collect(),
        users,
        present,
        homes: vec![[Follower, First, Second][few().min(2)], Follower],
        begins_degraded,
        ..Scenario::new(&[], budget)
    }
}

#[test]
fn no_random_schedule_loses_repeats_or_reorders_an_event() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NODES_MODEL_SCHEDULES").unwrap_or(SCHEDULES),
    };
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let scenario = large(&mut rng);
        random_schedule(&scenario, &mut rng);
    }
}
