//! Bounds of numbers.

use std::ops::RangeInclusive;

use clap::builder::RangedI64ValueParser;

/// A number with bounds.
pub(super) fn within(bounds: RangeInclusive<i64>) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(bounds)
}
