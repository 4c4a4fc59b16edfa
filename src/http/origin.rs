//! Web pages: which may open a WebSocket, and which may read an answer.
//!
//! A browser says in `Origin` which page asks. A WebSocket of a page that is not allowed is refused,
//! since the browser itself would not keep it from reading. An answer of any other route says who may
//! read it, and the browser keeps the others from it.

use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use crate::config::Origins;

/// What a page may send and read beyond what every page may.
const ALLOWED_HEADERS: &str = "authorization, x-identity-key, x-signature, x-timestamp";
const EXPOSED_HEADERS: &str = "realtime-cursor, realtime-more, retry-after";
/// For how long a browser may remember the answer to its question, in seconds.
const PREFLIGHT_MAX_AGE: &str = "600";

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the request comes from a page that may connect, or from no page.
pub(super) fn is_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    text(headers, header::ORIGIN)
        .is_some_and(|origin| origins.allow(origin, text(headers, header::HOST)))
}

/// Says in the answer which page may read it.
pub(super) fn mark(origins: &Origins, asked: &HeaderMap, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = asked.get(header::ORIGIN) else {
        return response;
    };
    if is_allowed(origins, asked) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED_HEADERS),
        );
    }
    response
}

/// Whether a browser asks before it sends.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && text(headers, header::ACCESS_CONTROL_REQUEST_METHOD) == Some("GET")
}

/// The answer to that.
pub(super) fn preflight() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
