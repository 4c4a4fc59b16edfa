//! How much a client may.

mod admission;
mod cells;

pub(crate) use self::admission::RATES_PER_CONNECTION;
pub use self::admission::{Admitted, Allowance, Limits, Neighbourhood};
pub(crate) use self::cells::SPARE as SPARE_RATES;
