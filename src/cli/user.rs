//! The id of a user, where a flag takes one.

use hushnet_realtime::protocol::{USER_BYTES_MAX, is_text};

/// What such a flag takes: an id of some type. Of which, the database says and the service checks.
pub(super) fn user_id(text: &str) -> Result<String, String> {
    if is_text(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "a user's id has 1 to {USER_BYTES_MAX} bytes, and none is NUL"
    ))
}
