//! Enums whose values have a text.

use enum_map::Enum;

/// An enum of which each value has a text: for a client to read, and as a label's value in the metrics.
///
/// An enum gets this by deriving `Enum`, which numbers its values, and `IntoStaticStr`, which makes the text
/// from the variant's name. Both take a variant that holds another such enum as that enum's values. So a new
/// variant is counted and documented without a second list of them.
pub trait Label: Enum + Copy + Into<&'static str> {
    /// Every value, in the order of declaration.
    fn all() -> impl Iterator<Item = Self> {
        (0..Self::LENGTH).map(Self::from_usize)
    }

    /// The text.
    fn as_str(self) -> &'static str {
        self.into()
    }
}

impl<E: Enum + Copy + Into<&'static str>> Label for E {}
