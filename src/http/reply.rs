//! The answers that are no WebSocket: their status, headers and JSON.

use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;
use warp::{Rejection, Reply};

use crate::protocol::{AuthError, Refusal};

/// A body that is too long to be read, or does not say how long it is.
#[derive(Debug)]
pub(super) struct BodyTooLong;

impl warp::reject::Reject for BodyTooLong {}

/// What a request is refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiError {
    UserIdMissing,
    UserIdMalformed,
    DeviceIdMissing,
    DeviceIdMalformed,
    NotAWebSocket,
    WebSocketVersion,
    WebSocketKey,
    QueryMalformed,
    TooManyConnections,
    Draining,
    OriginNotAllowed,
    Identity(AuthError),
    Limited(Refusal),
    ListenerDisconnected,
    BarrierUncommitted,
    DatabaseUnavailable,
    DemoMessageMalformed,
    DemoUserUnknown,
    NotFound,
    MethodNotAllowed,
}

impl ApiError {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::UserIdMissing => (
                StatusCode::BAD_REQUEST,
                "user_id_missing",
                "connect to /ws?user_id=<uuid>",
            ),
            Self::UserIdMalformed => (
                StatusCode::BAD_REQUEST,
                "user_id_malformed",
                "user_id must be a UUID, as in a1b2c3d4-e5f6-7890-abcd-ef1234567890",
            ),
            Self::DeviceIdMissing => (
                StatusCode::BAD_REQUEST,
                "device_id_missing",
                "ask for /sessions/pending?device_id=<uuid>",
            ),
            Self::DeviceIdMalformed => (
                StatusCode::BAD_REQUEST,
                "device_id_malformed",
                "device_id must be a UUID, as in a1b2c3d4-e5f6-7890-abcd-ef1234567890",
            ),
            Self::NotAWebSocket => (
                StatusCode::UPGRADE_REQUIRED,
                "websocket_required",
                "this is a WebSocket endpoint: send Connection: upgrade and Upgrade: websocket",
            ),
            Self::WebSocketVersion => (
                StatusCode::UPGRADE_REQUIRED,
                "websocket_version",
                "Sec-WebSocket-Version must be 13",
            ),
            Self::WebSocketKey => (
                StatusCode::BAD_REQUEST,
                "websocket_key",
                "Sec-WebSocket-Key must be 16 bytes in base64",
            ),
            Self::QueryMalformed => (
                StatusCode::BAD_REQUEST,
                "query_malformed",
                "the query must be name=value pairs, each name at most once",
            ),
            Self::TooManyConnections => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "this server has all the connections that it may have",
            ),
            Self::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "this server is ending; others are there",
            ),
            Self::OriginNotAllowed => (
                StatusCode::FORBIDDEN,
                "origin_not_allowed",
                "pages of this origin may not connect; --allowed-origins names those that may",
            ),
            Self::Limited(Refusal { limit, .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, limit.code(), limit.message())
            }
            Self::Identity(error) => (identity_status(error), error.code(), error.message()),
            Self::ListenerDisconnected => (
                StatusCode::SERVICE_UNAVAILABLE,
                "listener_disconnected",
                "not connected to PostgreSQL's notifications; being retried",
            ),
            Self::BarrierUncommitted => (
                StatusCode::SERVICE_UNAVAILABLE,
                "barrier_uncommitted",
                "PostgreSQL answers but does not let a notification commit: a lock or a \
                 synchronous standby is being waited for",
            ),
            Self::DatabaseUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "database_unavailable",
                "the state cannot be read from the database now; ask again",
            ),
            Self::DemoMessageMalformed => (
                StatusCode::BAD_REQUEST,
                "demo_message_malformed",
                "send JSON with the fields from, to and text, each a string",
            ),
            Self::DemoUserUnknown => (
                StatusCode::NOT_FOUND,
                "demo_user_unknown",
                "there is no user of that name, or the recipient has no device",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "the routes are /ws, /ws/{user_id}, /messages/pending/{device_id}, \
                 /sessions/pending, /users/{user_id}/devices, /metrics, /healthz and /readyz",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "only GET is allowed",
            ),
        }
    }
}

fn identity_status(error: AuthError) -> StatusCode {
    match error {
        AuthError::OtherUser | AuthError::OtherDevice => StatusCode::FORBIDDEN,
        AuthError::DeviceAmbiguous => StatusCode::BAD_REQUEST,
        AuthError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    }
}

impl From<&Rejection> for ApiError {
    fn from(rejection: &Rejection) -> Self {
        if rejection.find::<warp::reject::InvalidQuery>().is_some() {
            Self::QueryMalformed
        } else if rejection.find::<BodyTooLong>().is_some() {
            Self::DemoMessageMalformed
        } else if rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
            Self::MethodNotAllowed
        } else {
            Self::NotFound
        }
    }
}

pub(super) fn reply(result: Result<Response, ApiError>) -> Response {
    let error = match result {
        Ok(response) => return response,
        Err(error) => error,
    };
    let (status, code, message) = error.parts();
    let body = serde_json::json!({ "error": { "code": code, "message": message } });
    let mut response = with_type(body.to_string(), "application/json");
    *response.status_mut() = status;
    let headers = response.headers_mut();
    match error {
        ApiError::NotAWebSocket | ApiError::WebSocketVersion => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            );
        }
        ApiError::TooManyConnections
        | ApiError::Draining
        | ApiError::DatabaseUnavailable
        | ApiError::Identity(AuthError::Unavailable) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        ApiError::MethodNotAllowed => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        ApiError::Limited(Refusal { retry_after, .. }) => {
            // Whole seconds, and never too early.
            let seconds = retry_after.as_millis().div_ceil(1_000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        ApiError::Identity(_) if status == StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

pub(super) fn json(status: StatusCode, state: &str) -> Response {
    let body = serde_json::json!({ "status": state }).to_string();
    let mut response = with_type(body, "application/json");
    *response.status_mut() = status;
    response
}

pub(super) fn exposition(text: String) -> Response {
    with_type(text, "text/plain; version=0.0.4")
}

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
