//! The tables: the folders with what each may use, the pure files, and what does not hold yet.

/// A folder of `src/` or of `crates/`, and the folders that it may use besides itself. From the ground up: each
/// uses only folders that stand above it here.
pub struct Folder {
    pub name: &'static str,
    pub may_use: &'static [&'static str],
}

const fn folder(name: &'static str, may_use: &'static [&'static str]) -> Folder {
    Folder { name, may_use }
}

pub const FOLDERS: &[Folder] = &[
    // The crates know nothing of the service.
    folder("websocket", &[]),
    folder("devdb", &[]),
    folder("replication", &[]),
    folder("devbus", &[]),
    folder("bus", &[]),
    // Programs are started by their path, so the service is not needed to build it.
    folder("testkit", &["websocket", "devdb"]),
    // Knows nothing of the service, so that all of it may use it.
    folder("output", &[]),
    // Pure types that everything speaks of. Of `websocket` only the frame.
    folder("protocol", &["websocket"]),
    folder("config", &["bus", "replication", "protocol"]),
    folder("metrics", &["bus", "output", "protocol", "config"]),
    folder("limits", &["protocol", "config", "metrics"]),
    folder("store", &["replication", "protocol", "config", "metrics"]),
    // Not `limits`: a proof is checked the same however many are.
    folder("identity", &["protocol", "config", "metrics", "store"]),
    // Not `identity`: events are routed to users, whoever proved to be one.
    folder(
        "delivery",
        &["websocket", "protocol", "config", "metrics", "store"],
    ),
    // Not `ingest`, which asks it what to do with what the bus brings.
    folder(
        "nodes",
        &["bus", "protocol", "config", "metrics", "store", "delivery"],
    ),
    folder(
        "ingest",
        &[
            "replication",
            "output",
            "protocol",
            "config",
            "metrics",
            "store",
            "delivery",
            "nodes",
        ],
    ),
    // Not `ingest`: what a connection needs to know of the stream, `delivery` gives it.
    folder(
        "connection",
        &[
            "websocket",
            "protocol",
            "config",
            "metrics",
            "limits",
            "store",
            "identity",
            "delivery",
        ],
    ),
    // Neither events nor identities: bytes, addresses and limits. Of `websocket` only the stream's trait.
    folder(
        "edge",
        &["websocket", "protocol", "config", "metrics", "limits"],
    ),
    // Not `ingest`: the health of the stream travels with the feed.
    folder(
        "http",
        &[
            "websocket",
            "protocol",
            "config",
            "metrics",
            "limits",
            "store",
            "identity",
            "delivery",
            "connection",
            "edge",
        ],
    ),
    // Everything that the service is made of, for it is put together here.
    folder(
        "app",
        &[
            "bus",
            "websocket",
            "output",
            "protocol",
            "config",
            "metrics",
            "limits",
            "store",
            "identity",
            "delivery",
            "nodes",
            "ingest",
            "connection",
            "edge",
            "http",
        ],
    ),
    // Not the parts of the service: `app` puts them together.
    folder(
        "cli",
        &[
            "devdb", "output", "protocol", "config", "store", "identity", "edge", "app",
        ],
    ),
];

/// Files that may contain SQL.
pub const WITH_SQL: &[&str] = &["src/store/", "crates/devdb/", "crates/testkit/"];

/// Files, or folders of them, that are pure: no socket, no clock, no runtime.
pub const PURE: &[&str] = &[
    "crates/websocket/src/decoder",
    "crates/websocket/src/frame.rs",
    "crates/websocket/src/growth.rs",
    "crates/websocket/src/handshake.rs",
    "crates/websocket/src/write_buffer.rs",
    "crates/replication/src/pgoutput.rs",
    "crates/bus/src/backoff.rs",
    "crates/bus/src/servers.rs",
    "crates/bus/src/subject.rs",
    "crates/bus/src/url.rs",
    "crates/bus/src/wire/",
    "src/protocol/",
    "src/limits/allowance.rs",
    "src/limits/rate.rs",
    "src/delivery/health.rs",
    "src/delivery/routed_set.rs",
    "src/delivery/replay_buffer/",
    "src/nodes/follower.rs",
    "src/nodes/message.rs",
    "src/nodes/publisher.rs",
    "src/ingest/failures.rs",
    "src/ingest/shard_times.rs",
    "src/connection/deadlines.rs",
    "src/connection/revocation.rs",
    "src/connection/moment.rs",
    "src/connection/outbox.rs",
    "src/connection/position.rs",
];

/// The most lines of a file.
pub const LINES_MAX: usize = 500;

/// What does not hold yet: the area that mends it, and the message of the rule. An exception that no longer
/// applies fails the test.
pub const EXCEPTIONS: &[(&str, &str)] = &[];
