//! The parts of `limit`.

pub(crate) mod clients;
pub(crate) mod users;
pub(crate) mod wire;
