//! The memory that the process needs at most, when every limit is reached at once.
//!
//! `serve --print-config` shows it, so that an operator can choose a machine before a flood does. It is a sum of
//! bounds; each bound is declared in the part that keeps it. Events are counted as long as the triggers of
//! `migrate up` make them at most. Not in it: what the kernel holds for sockets.

use std::fmt;

use hushnet_bus::{INBOUND_BYTES_MAX, PUBLISH_BYTES_MAX};
use hushnet_websocket::SocketLimits;

use crate::config::{AuthMode, Config};
use crate::delivery::{
    FORGOTTEN_BYTES_MAX, HELD_EVENTS_BYTES_MAX, ROUTED_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_MIN,
};
use crate::edge::{REQUEST_CONNECTIONS_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::http::RESPONSE_PERMITS_MAX;
use crate::ingest::{
    AWAITING_DISK_BYTES_MAX, HELD_BYTES_MAX, JOINING_BYTES_MAX, STREAM_BYTES_MAX,
    WITHOUT_ID_BYTES_MAX,
};
use crate::limits::{LARGE_EVENTS_BYTES_MAX, RATES_PER_CONNECTION, SPARE_RATES};
use crate::nodes::{HELD_BATCHES_BYTES_MAX, OPEN_BATCHES_BYTES_MAX};
use crate::output::BUFFER_BYTES_MAX;
use crate::protocol::{
    Event, INLINE_BYTES_MAX, LARGE_BYTES_MAX, Signal, Snapshot, UserKey, WantedKinds,
};
use crate::store::state::PENDING_BYTES_MAX;
use crate::store::{PAGE_BYTES_MAX, PAGE_EVENTS, RECENT_BYTES_MAX};

/// The program without clients and without its log: its code, its threads, its connections to the database.
const PROGRAM_BYTES: usize = 48 << 20;
/// An idle connection with its user: the task, the socket, the entry in the hub.
const CONNECTION_BYTES: usize = 4 << 10;
/// A connection under TLS: rustls's buffers and state.
const TLS_BYTES: usize = 64 << 10;
/// An entry of a hash table without its contents, in a table that has just doubled its size.
const ENTRY_BYTES: usize = 64;
/// What the allocator takes beyond what was asked for, in hundredths.
const ALLOCATOR_PERCENT: usize = 25;
/// A client that reconnects signs for its connection and for the reads of its state.
const SIGNATURES_PER_CONNECTION: usize = 4;
/// Signatures that are remembered beyond those.
const SIGNATURES_SPARE: usize = 65_536;

/// How many used signatures are remembered.
pub(super) fn signatures_max(config: &Config) -> usize {
    SIGNATURES_PER_CONNECTION * config.limits.connections_max as usize + SIGNATURES_SPARE
}

/// The parts of the sum, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBudget {
    program: usize,
    recent: usize,
    segments: usize,
    routed: usize,
    notifications: usize,
    events: usize,
    tables: usize,
    database: usize,
    connections: usize,
    connections_max: usize,
    answers: usize,
}

impl MemoryBudget {
    /// The budget under these settings.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let limits = &config.limits;
        let connections_max = limits.connections_max as usize;
        // A page, as the database's rows and as events, or the row of a large event as the database sends it.
        let page =
            2 * (PAGE_BYTES_MAX + LARGE_BYTES_MAX) + PAGE_EVENTS * (size_of::<Event>() + 256);
        let tracked = connections_max + SPARE_RATES;
        let rates = RATES_PER_CONNECTION * tracked * (ENTRY_BYTES + size_of::<UserKey>());
        let signatures = match config.identity.auth {
            AuthMode::Device | AuthMode::JwtOrDevice => signatures_max(config) * ENTRY_BYTES * 2,
            AuthMode::None | AuthMode::Jwt => 0,
        };
        Self {
            program: PROGRAM_BYTES + BUFFER_BYTES_MAX,
            recent: config.recent_bytes_max as usize,
            segments: segments_max(config) * SEGMENT_BYTES_MAX + FORGOTTEN_BYTES_MAX,
            routed: ROUTED_BYTES_MAX,
            notifications: HELD_BYTES_MAX
                + AWAITING_DISK_BYTES_MAX
                + WITHOUT_ID_BYTES_MAX
                + stream_bytes(config)
                + bus_bytes(config),
            events: HELD_EVENTS_BYTES_MAX + LARGE_EVENTS_BYTES_MAX + RECENT_BYTES_MAX,
            tables: rates + signatures,
            database: config.database_pool_size as usize * (page + 2 * PENDING_BYTES_MAX as usize)
                + 2 * page,
            connections: connections_max * connection_bytes(config)
                + REQUEST_CONNECTIONS_MAX * request_bytes(config),
            answers: RESPONSE_PERMITS_MAX * PENDING_BYTES_MAX as usize,
            connections_max,
        }
    }

    /// The sum.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let parts = [
            self.program,
            self.recent,
            self.segments,
            self.routed,
            self.notifications,
            self.events,
            self.tables,
            self.database,
            self.connections,
            self.answers,
        ];
        let sum = parts.into_iter().fold(0, usize::saturating_add);
        sum.saturating_add(sum / 100 * ALLOCATOR_PERCENT)
    }
}

/// What a stream of the write-ahead log holds.
fn stream_bytes(config: &Config) -> usize {
    match config.replication_url {
        Some(_) => STREAM_BYTES_MAX + JOINING_BYTES_MAX,
        None => 0,
    }
}

/// What is on its way to the bus and from it, and what waits for a repair.
fn bus_bytes(config: &Config) -> usize {
    match config.nodes.bus.url() {
        Some(_) => {
            PUBLISH_BYTES_MAX + INBOUND_BYTES_MAX + OPEN_BATCHES_BYTES_MAX + HELD_BATCHES_BYTES_MAX
        }
        None => 0,
    }
}

/// A connection that holds as much as it may: its client sends half of the largest frame twice, reads nothing, and
/// has missed a full page of events. A connection for requests holds less: responses are counted separately.
fn connection_bytes(config: &Config) -> usize {
    let limits = &config.limits;
    let frame_bytes_max = limits.frame_bytes_max as usize;
    let socket = SocketLimits {
        frame_bytes_max,
        write_buffer_bytes_max: limits.write_buffer_bytes_max as usize,
    };
    let ring = (config.user_channel_capacity as usize).next_power_of_two() * Signal::HELD_BYTES_MAX;
    let page = PAGE_BYTES_MAX + INLINE_BYTES_MAX + PAGE_EVENTS * size_of::<Event>();
    // The snapshot of a replay that no barrier covers yet.
    let replayed = Snapshot::NOTIFIED_BYTES_MAX;
    // A token that waits to be checked.
    let offered = frame_bytes_max;
    let websocket = CONNECTION_BYTES
        + socket.held_bytes_max(INLINE_BYTES_MAX)
        + offered
        + ring
        + page
        + replayed
        + WantedKinds::BYTES_MAX
        + tls_bytes(config);
    websocket.max(request_bytes(config))
}

/// The segments of the replay buffer: those that are young enough, the one before them, and the open one.
fn segments_max(config: &Config) -> usize {
    let young = config.recent_age_max().as_millis() / SEGMENT_MIN.as_millis();
    usize::try_from(young).unwrap_or(usize::MAX - 2) + 2
}

fn request_bytes(config: &Config) -> usize {
    CONNECTION_BYTES + REQUEST_HEAD_BYTES_MAX + tls_bytes(config)
}

fn tls_bytes(config: &Config) -> usize {
    if config.edge.tls_certificate_file.is_some() {
        TLS_BYTES
    } else {
        0
    }
}

impl fmt::Display for MemoryBudget {
    /// As comments, to stand below the settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.connections / self.connections_max.max(1);
        writeln!(f, "# Memory with every limit reached at once, in bytes:")?;
        writeln!(f, "#   the program            {:>15}", self.program)?;
        writeln!(f, "#   recent_bytes_max       {:>15}", self.recent)?;
        writeln!(f, "#   recent_age_max_ms      {:>15}", self.segments)?;
        writeln!(f, "#   events routed before   {:>15}", self.routed)?;
        writeln!(f, "#   notifications held     {:>15}", self.notifications)?;
        writeln!(f, "#   long and large events  {:>15}", self.events)?;
        writeln!(f, "#   rates and signatures   {:>15}", self.tables)?;
        writeln!(f, "#   reads of the database  {:>15}", self.database)?;
        writeln!(
            f,
            "#   connections            {:>15}  ({} of {each} each)",
            self.connections, self.connections_max
        )?;
        writeln!(f, "#   answers with state     {:>15}", self.answers)?;
        writeln!(f, "# memory_ceiling_bytes = {}", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_holds_memory_counts() {
        let default = MemoryBudget::of(&Config::default()).bytes();
        let changes: [fn(&mut Config); 7] = [
            |config| config.limits.connections_max *= 2,
            |config| config.limits.frame_bytes_max *= 2,
            |config| config.limits.write_buffer_bytes_max *= 2,
            |config| config.user_channel_capacity *= 2,
            |config| config.recent_bytes_max *= 2,
            |config| config.recent_age_max_ms *= 2,
            |config| config.database_pool_size *= 2,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut config = Config::default();
            change(&mut config);
            assert!(MemoryBudget::of(&config).bytes() > default, "{index}");
        }
    }

    /// Every part is printed, and the printed total is the sum of the printed parts.
    #[test]
    fn the_printed_total_is_the_sum_of_the_printed_parts() {
        let mut config = Config::default();
        config.identity.auth = AuthMode::Device;
        let text = MemoryBudget::of(&config).to_string();
        assert!(text.lines().all(|line| line.starts_with('#')));
        let number = |line: &str| {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.parse::<usize>().ok()).unwrap()
        };
        let parts = text.lines().filter(|line| line.starts_with("#   "));
        let sum: usize = parts.map(number).sum();
        assert_eq!(
            number(text.lines().last().unwrap()),
            sum + sum / 100 * ALLOCATOR_PERCENT,
            "{text}"
        );
    }
}
