//! Many nodes over one bus, as clients and operators see them: one reads the log and publishes, the others take events from
//! the bus, and the log repairs what the bus loses. Each test runs over both brokers, but for those of what one
//! broker alone has: a cluster of NATS servers, a replica and passwords of Redis.

mod command;
mod delivery;
mod election;
mod faults;
mod leadership;
mod naming;
mod nats_cluster;
mod next_version;
mod presence;
mod redis_changes;
mod team;
mod versions;
