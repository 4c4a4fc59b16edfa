//! The answers that are not WebSockets: their status, headers and JSON.

use warp::Reply;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::error::{Advice, ApiError};
use crate::protocol::ErrorBody;

/// The answer of a route, or the refusal as `{"error":{"code","message","retry_after_ms"}}`.
pub(super) fn reply(result: Result<Response, ApiError>) -> Response {
    let error = match result {
        Ok(response) => return response,
        Err(error) => error,
    };
    let mut response = with_type(body(error).to_string(), "application/json");
    *response.status_mut() = error.status();
    if let Some(advice) = error.advice() {
        advise(response.headers_mut(), advice);
    }
    response
}

fn body(error: ApiError) -> serde_json::Value {
    let message = error.to_string();
    let body = ErrorBody::new(error.code(), &message, error.retry_after());
    serde_json::json!({ "error": body })
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
            if let Some(seconds) = ErrorBody::new("", "", Some(time)).retry_after_s() {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
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
    use crate::protocol::{AuthError, CloseCode, Label, Limit, NotAUser, Refusal, UserType};

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
            (ApiError::UserIdMalformed(NotAUser(UserType::Uuid)), &[]),
        ] {
            assert_eq!(advised(error), headers, "{error:?}");
        }
    }

    /// Every refusal that there is.
    fn refusals() -> Vec<ApiError> {
        let limited = Limit::all().flat_map(|limit| {
            [0, 1, 1_000, 1_001, 10_000].map(|ms| {
                let retry_after = Duration::from_millis(ms);
                ApiError::Limited(Refusal { limit, retry_after })
            })
        });
        let mut refusals: Vec<_> = AuthError::all().map(ApiError::Identity).collect();
        refusals.extend(limited);
        refusals.extend([
            ApiError::UserIdMissing,
            ApiError::UserIdMalformed(NotAUser(UserType::Uuid)),
            ApiError::DeviceIdMissing,
            ApiError::DeviceIdMalformed,
            ApiError::NotAWebSocket,
            ApiError::WebSocketVersion,
            ApiError::WebSocketKey,
            ApiError::QueryMalformed,
            ApiError::TooManyConnections(SocketBound::Setting),
            ApiError::TooManyConnections(SocketBound::Descriptors),
            ApiError::Draining,
            ApiError::OriginNotAllowed,
            ApiError::HostNotAllowed,
            ApiError::DatabaseUnavailable,
            ApiError::DemoMessageMalformed,
            ApiError::DemoUserUnknown,
            ApiError::NotFound,
            ApiError::MethodNotAllowed,
        ]);
        refusals
    }

    #[test]
    fn every_refusal_has_the_one_form_and_says_how_long_to_wait_where_waiting_helps() {
        for error in refusals() {
            let body = body(error)["error"].take();
            assert_eq!(body["code"], error.code(), "{error:?}");
            assert_eq!(body["message"], error.to_string(), "{error:?}");
            let ms = body.get("retry_after_ms").map(|ms| ms.as_u64().unwrap());
            let headers = advised(error);
            let seconds = headers
                .iter()
                .find_map(|header| header.strip_prefix("retry-after: "));
            let seconds = seconds.map(|text| text.parse().unwrap());
            // The header has whole seconds; rounded up, so that no client comes back too early.
            assert_eq!(ms.map(|ms| ms.div_ceil(1_000)), seconds, "{error:?}");
            assert!(ms.is_none_or(|ms| ms >= 1), "{error:?}");
            let status = error.status().as_u16();
            assert_eq!(ms.is_some(), matches!(status, 429 | 503), "{error:?}");
        }
    }

    /// The table in docs/protocol.md.
    #[test]
    fn the_protocol_s_table_has_every_refusal_that_says_how_long_to_wait() {
        let protocol = include_str!("../../docs/protocol.md");
        let rows = protocol
            .lines()
            .skip_while(|line| !line.starts_with("| `code` | sent with |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let documented: Vec<_> = rows
            .map(|row| row.split('`').nth(1).unwrap().to_owned())
            .collect();
        let mut wanted: Vec<_> = refusals()
            .into_iter()
            .filter(|error| error.retry_after().is_some())
            .map(|error| error.code().to_owned())
            .collect();
        let closing = CloseCode::all().filter(|close| close.retry_after().is_some());
        wanted.extend(closing.map(|close| close.reason().to_owned()));
        let mut distinct = wanted.clone();
        distinct.sort();
        distinct.dedup();
        let mut sorted = documented.clone();
        sorted.sort();
        assert_eq!(sorted, distinct);
    }
}
