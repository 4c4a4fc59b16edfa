//! Everything that is asked of PostgreSQL: every SQL statement of the service stands here or in `sql/`.

pub mod demo;
pub(crate) mod devices;
mod log;
pub mod migrate;
mod pools;
pub mod state;

pub use self::log::{
    CHUNKS_AHEAD, Chunk, Log, PAGE_BYTES_MAX, PAGE_EVENTS, Page, Reading, State,
    is_undefined_table, lock_doorbell, told,
};
