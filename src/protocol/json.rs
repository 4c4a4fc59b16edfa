//! Reading JSON.

use serde::Deserialize;

/// Reads a JSON object. serde would take an array of its values as well.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        Err(serde::de::Error::custom("it is no JSON object"))
    }
}
