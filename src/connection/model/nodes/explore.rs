//! Every schedule of a small world, or random ones of a large world.
//!
//! The parts of the service cannot be copied, so a schedule is run from the beginning whenever another choice is tried.
//! A state that has been reached before is not gone on from: its future is the same.

use std::collections::HashSet;

use rand::RngExt;
use rand::rngs::StdRng;

use super::scenario::{Action, Scenario};
use super::world::World;

/// States of one scenario. A search that needs more is no search of all schedules, and fails.
const STATES_MAX: usize = 2_000_000;
/// Choices of one random schedule.
const CHOICES_MAX: usize = 2_000;

/// What a search has seen.
#[derive(Debug, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    /// The schedules that came to their end.
    pub(super) ends: usize,
}

/// Tries every schedule of the scenario.
pub(super) fn every_schedule(scenario: &Scenario) -> Explored {
    let mut explored = Explored::default();
    let mut known = HashSet::new();
    // At each choice the actions that are left to try, of which the last one is tried now.
    let mut path: Vec<Vec<Action>> = Vec::new();
    loop {
        let mut world = World::new(scenario);
        for choices in &path {
            if let Some(action) = choices.last() {
                world.act(*action);
            }
        }
        while known.insert(world.digest()) {
            assert!(known.len() <= STATES_MAX, "{scenario:?} is too large");
            let actions = world.actions();
            let Some(last) = actions.last().copied() else {
                explored.ends += 1;
                world.settle();
                break;
            };
            path.push(actions);
            world.act(last);
        }
        loop {
            let Some(choices) = path.last_mut() else {
                explored.states = known.len();
                return explored;
            };
            choices.pop();
            if !choices.is_empty() {
                break;
            }
            path.pop();
        }
    }
}

/// Tries one schedule.
pub(super) fn random_schedule(scenario: &Scenario, rng: &mut StdRng) {
    let mut world = World::new(scenario);
    for _ in 0..CHOICES_MAX {
        let actions = world.actions();
        if actions.is_empty() {
            break;
        }
        world.act(actions[rng.random_range(0..actions.len())]);
    }
    world.settle();
}
