//! The answers that are not WebSockets: their status, headers and JSON.

use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::error::{Advice, ApiError};

/// The answer of a route, or the refusal as `{"error":{"code","message"}}`.
pub(super) fn reply(result: Result<Response, ApiError>) -> Response {
    let error = match result {
        Ok(response) => return response,
        Err(error) => error,
    };
    let (code, message) = (error.code(), error.to_string());
    let body = serde_json::json!({ "error": { "code": code, "message": message } });
    let mut response = with_type(body.to_string(), "application/json");
    *response.status_mut() = error.status();
    if let Some(advice) = error.advice() {
        advise(response.headers_mut(), advice);
    }
    response
}

/// Sets the headers of this advice.
pub(super) fn advise(headers: &mut HeaderMap, advice: Advice) {
    match advice {
        Advice::Upgrade => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            );
        }
        Advice::Leave(time) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            advise(headers, Advice::RetryAfter(time));
        }
        Advice::RetryAfter(time) => {
            // The header has whole seconds; rounded up, so that no client comes back too early.
            let seconds = time.as_millis().div_ceil(1_000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Advice::Get => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Advice::Authenticate => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
    }
}

/// `{"status": …}`.
pub(super) fn json(status: StatusCode, state: &str) -> Response {
    let body = serde_json::json!({ "status": state }).to_string();
    let mut response = with_type(body, "application/json");
    *response.status_mut() = status;
    response
}

/// An answer with this body.
pub(super) fn with_type<T>(body: T, content_type: &'static str) -> Response
where
    warp::http::Response<T>: Reply,
{
    let mut response = warp::http::Response::new(body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::SocketBound;
    use crate::protocol::{AuthError, Limit, Refusal};

    fn limited(retry_after: Duration) -> ApiError {
        let limit = Limit::UserRate;
        ApiError::Limited(Refusal { limit, retry_after })
    }

    /// The headers of a refusal beside those of every answer, as `name: value`.
    fn advised(error: ApiError) -> Vec<String> {
        let response = reply(Err(error));
        let headers = response.headers().iter();
        headers
            .filter(|(name, _)| !matches!(name.as_str(), "content-type" | "content-length"))
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn a_refusal_has_the_status_of_its_cause() {
        for (error, status) in [
            (ApiError::UserIdMissing, 400),
            (ApiError::Identity(AuthError::DeviceAmbiguous), 400),
            (ApiError::Identity(AuthError::TokenExpired), 401),
            (ApiError::Identity(AuthError::OtherUser), 403),
            (ApiError::OriginNotAllowed, 403),
            (ApiError::NotFound, 404),
            (ApiError::MethodNotAllowed, 405),
            (ApiError::NotAWebSocket, 426),
            (limited(Duration::ZERO), 429),
            (ApiError::Draining, 503),
            (ApiError::Identity(AuthError::Unavailable), 503),
        ] {
            assert_eq!(reply(Err(error)).status(), status, "{error:?}");
        }
    }

    #[test]
    fn a_refusal_tells_the_client_what_to_do() {
        let upgrade = [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
        ];
        for (error, headers) in [
            (ApiError::NotAWebSocket, &upgrade[..]),
            (ApiError::WebSocketVersion, &upgrade),
            (ApiError::Draining, &["retry-after: 1"]),
            (
                ApiError::TooManyConnections(SocketBound::Setting),
                &["connection: close", "retry-after: 1"],
            ),
            (
                ApiError::Identity(AuthError::Unavailable),
                &["retry-after: 1"],
            ),
            (
                ApiError::Identity(AuthError::TokenExpired),
                &["www-authenticate: Bearer"],
            ),
            (ApiError::Identity(AuthError::OtherUser), &[]),
            (ApiError::MethodNotAllowed, &["allow: GET, HEAD"]),
            (ApiError::UserIdMalformed, &[]),
        ] {
            assert_eq!(advised(error), headers, "{error:?}");
        }
    }

    #[test]
    fn a_client_is_never_told_to_come_back_too_early() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (10_000, 10)] {
            let error = limited(Duration::from_millis(millis));
            assert_eq!(advised(error), [format!("retry-after: {seconds}")]);
        }
    }
}
