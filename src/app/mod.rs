//! The only wiring: builds every part, owns every task, and ends them in order.

pub mod memory_budget;
mod run;

pub use self::memory_budget::MemoryBudget;
pub(crate) use self::run::signatures_max;
pub use self::run::{RunError, check, run};
