//! The environment variables that change a run.

use std::env;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

/// Scenarios of one run, of which two go at a time.
const SCENARIOS: u64 = 24;
/// The seconds of a scenario beside its load: a cluster, a database, a service and their end.
const OVERHEAD_S: u64 = 3;
/// Less load shows nothing.
const LOAD_MIN_S: u64 = 4;

fn variable<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// `CHAOS_SEED`: the seed of every random choice of writers and clients.
pub fn seed() -> u64 {
    variable("CHAOS_SEED", 20_260_726)
}

/// `CHAOS_SECONDS`: how long the whole run takes, roughly; here a scenario's share of load.
pub fn load_time() -> Duration {
    let whole = variable("CHAOS_SECONDS", 60_u64);
    Duration::from_secs(
        (2 * whole / SCENARIOS)
            .saturating_sub(OVERHEAD_S)
            .max(LOAD_MIN_S),
    )
}

/// `CHAOS_EVENTS`: how many events the scenario without a fault writes at least.
pub fn events_min() -> usize {
    variable("CHAOS_EVENTS", 0)
}

/// `CHAOS_PACE_MS`: the longest pause of a writer between two transactions.
pub fn pace() -> Duration {
    Duration::from_millis(variable("CHAOS_PACE_MS", 40))
}

/// `CHAOS_WRITERS`: how many transactions are under way at a time, in most scenarios.
pub fn writers() -> usize {
    variable("CHAOS_WRITERS", 5)
}

/// `CHAOS_INGEST`: how events reach the service.
pub fn ingest() -> String {
    variable("CHAOS_INGEST", "notify".to_owned())
}

/// `CHAOS_NODES`: how many nodes there are over a bus.
pub fn nodes() -> usize {
    variable("CHAOS_NODES", 3)
}

/// `CHAOS_ROUNDS`: how often each fault of the bus and of the nodes happens at least.
pub fn rounds() -> usize {
    variable("CHAOS_ROUNDS", 1)
}

/// `CHAOS_FAULT_MS`: how long such a fault lasts.
pub fn fault_time() -> Duration {
    Duration::from_millis(variable("CHAOS_FAULT_MS", 2_500))
}

/// `CHAOS_SLACK`: the factor by which a recovery may take longer than the service promises. Without it the
/// time of a recovery is printed and not judged.
pub fn slack() -> Option<u32> {
    env::var("CHAOS_SLACK")
        .ok()
        .map(|text| text.parse().unwrap())
}
