//! The form of the console's answers.

use serde::Serialize;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::http::error::ApiError;
use crate::http::reply::with_type;

/// `body` as JSON, which nobody may keep.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::json!(body).to_string();
    let mut response = with_type(body, "application/json");
    *response.status_mut() = status;
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// The answer where a query has failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
pub(super) fn unavailable(error: sqlx::Error) -> ApiError {
    tracing::warn!(event = "console_read_failed", %error);
    ApiError::DatabaseUnavailable
}
