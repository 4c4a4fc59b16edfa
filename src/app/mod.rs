//! Puts the service together, runs it, and drains it.
//!
//! `assemble` builds the parts and starts their tasks, `serve` accepts clients, `drain` sends them away. The
//! supervisor owns the tasks; nothing below this folder starts one that the service needs.

mod assemble;
mod database_connections;
mod descriptors;
mod drain;
mod error;
mod maintenance;
mod memory_budget;
mod nodes;
mod run;
mod serve;
mod supervisor;

pub use self::database_connections::database_connections_max;
pub use self::descriptors::Descriptors;
pub use self::error::RunError;
pub use self::memory_budget::MemoryBudget;
pub use self::run::{check, run};
pub use self::supervisor::{Cause, Task, TaskEnded};
