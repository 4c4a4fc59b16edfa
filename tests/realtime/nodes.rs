//! Many nodes over one bus, as clients and operators see them: one reads the log and publishes, the others take events from
//! the bus, and the log repairs what the bus loses. Each test runs over both brokers.

mod command;
mod delivery;
mod election;
mod faults;
mod leadership;
mod naming;
mod presence;
mod team;
mod versions;
