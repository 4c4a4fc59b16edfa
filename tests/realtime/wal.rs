//! The log's rows from the write-ahead log: what comes, what is polled instead, and why.

mod faults;
mod link;
mod scene;
mod servers;
mod stream;
mod visibility;
mod ways;
