//! The parser of numbers with bounds.

use std::ops::RangeInclusive;

use clap::builder::RangedI64ValueParser;

/// A number within these bounds.
pub(super) fn within(bounds: RangeInclusive<i64>) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(bounds)
}
