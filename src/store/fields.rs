//! The values of an event, as the log has them: an array of texts, each the JSON of a value, or null.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};

/// What comes before the elements of an array of one dimension: the number of dimensions, whether there are nulls, the
/// elements' type, their number, and the index of the first.
const HEADER_BYTES: usize = 20;

/// The values of an event. In the form in which PostgreSQL sends the elements of an array: each one's length, -1 for
/// null, and its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Box<[u8]>);

impl Fields {
    /// Of the binary form of an array of texts. By hand more dimensions can be written, which no source has.
    pub(super) fn of_array(bytes: &[u8]) -> Self {
        let elements = match bytes.first_chunk() {
            Some([0, 0, 0, 1]) => bytes.get(HEADER_BYTES..),
            _ => None,
        };
        Self(elements.unwrap_or_default().into())
    }

    /// These values, with others in the place of the first ones.
    pub(super) fn beginning_with(&self, first: &Self) -> Self {
        let mut rest = Elements(&self.0);
        for _ in 0..first.count() {
            rest.next();
        }
        Self([&first.0, rest.0].concat().into())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        Elements(&self.0).count()
    }

    /// The memory of all.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The length of all in an event's JSON.
    pub(super) fn json_bytes(&self) -> usize {
        let lengths = Elements(&self.0).map(|element| element.map_or("null".len(), <[u8]>::len));
        lengths.sum()
    }

    /// The JSON of the value of this number, from 1 on; `None` for null.
    pub(super) fn get(&self, number: usize) -> Option<&str> {
        let element = Elements(&self.0).nth(number.checked_sub(1)?)?;
        str::from_utf8(element?).ok()
    }
}

/// The elements that are left.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Some(None);
        };
        let (text, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(text))
    }
}

impl Type<Postgres> for Fields {
    fn type_info() -> PgTypeInfo {
        <String as PgHasArrayType>::array_type_info()
    }
}

impl Decode<'_, Postgres> for Fields {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        value.as_bytes().map(Self::of_array)
    }
}

#[cfg(test)]
impl<'a> FromIterator<Option<&'a str>> for Fields {
    fn from_iter<T: IntoIterator<Item = Option<&'a str>>>(values: T) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            let length = value.map_or(-1, |text| i32::try_from(text.len()).unwrap());
            bytes.extend(length.to_be_bytes());
            bytes.extend(value.unwrap_or_default().as_bytes());
        }
        Self(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_number() {
        let fields: Fields = [Some("7"), None, Some("\"é\""), Some("")]
            .into_iter()
            .collect();
        assert_eq!(fields.count(), 4);
        assert_eq!(fields.json_bytes(), r#"7null"é""#.len());
        let all: Vec<_> = (0..6).map(|number| fields.get(number)).collect();
        assert_eq!(all, [None, Some("7"), None, Some("\"é\""), Some(""), None]);
        let own: Fields = [Some("8")].into_iter().collect();
        let others: Fields = [Some("8"), None, Some("\"é\""), Some("")]
            .into_iter()
            .collect();
        assert_eq!(fields.beginning_with(&own), others);
        assert_eq!(fields.beginning_with(&Fields::default()), fields);
        assert_eq!(
            (Fields::default().count(), Fields::default().get(1)),
            (0, None)
        );
    }
}
