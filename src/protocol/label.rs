//! Enums whose values have a text.

use enum_map::Enum;

/// An enum whose values each have a text: the code that a client reads, and the value of a label in the metrics.
///
/// Derive `Enum`, which numbers the values, and `IntoStaticStr`, which makes the text from the variant's name. A
/// variant may hold another such enum, marked `#[strum(transparent)]`: it stands for all values of that enum. No
/// list of the values is kept by hand.
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
