//! Why a request is refused, and with which answer.

use std::time::Duration;

use warp::Rejection;
use warp::http::StatusCode;

use super::api::SocketBound;
use crate::metrics::Rejected;
use crate::protocol::{AuthError, NotAUser, NotKinds, RETRY_AFTER, Refusal};

/// The body of a request is too long, or its length is not announced.
#[derive(Debug)]
pub(super) struct BodyTooLong;

impl warp::reject::Reject for BodyTooLong {}

/// A request that a filter rejects, with its answer.
#[derive(Debug)]
pub(super) struct Refused(pub(super) ApiError);

impl warp::reject::Reject for Refused {}

/// Why a request is refused. The message is for the client's developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    #[error("connect to /ws?user_id=<id>")]
    UserIdMissing,
    #[error("{0}")]
    UserIdMalformed(NotAUser),
    #[error("ask for /sessions/pending?device_id=<uuid>")]
    DeviceIdMissing,
    #[error("device_id must be a UUID, as in a1b2c3d4-e5f6-7890-abcd-ef1234567890")]
    DeviceIdMalformed,
    #[error("{0}")]
    KindsMalformed(NotKinds),
    #[error("this is a WebSocket endpoint: send Connection: upgrade and Upgrade: websocket")]
    NotAWebSocket,
    #[error("Sec-WebSocket-Version must be 13")]
    WebSocketVersion,
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    WebSocketKey,
    #[error("the query must be name=value pairs, each name at most once")]
    QueryMalformed,
    #[error("this server has all the connections that it may have")]
    TooManyConnections(SocketBound),
    #[error("this server is ending; others are there")]
    Draining,
    #[error("pages of this origin may not connect; --allowed-origins names those that may")]
    OriginNotAllowed,
    #[error(
        "without --auth only this machine's own names are served; --allowed-origins names others, and \
         --insecure-no-auth serves all"
    )]
    HostNotAllowed,
    #[error(
        "at this address only this machine's own names are served; --allowed-origins names others, and \
         --metrics-listen takes another address"
    )]
    OperatorHostNotAllowed,
    #[error(
        "/metrics is not served here: --metrics-listen gives it an address of its own, and --metrics=true serves it here"
    )]
    MetricsNotServed,
    #[error("/console is not served here: --console=true serves it")]
    ConsoleNotServed,
    #[error("{}", .0.message())]
    Identity(AuthError),
    #[error("{}", .0.limit.message())]
    Limited(Refusal),
    #[error("the state cannot be read from the database now; ask again")]
    DatabaseUnavailable,
    #[error("send JSON with the fields from, to and text, each a string")]
    DemoMessageMalformed,
    #[error("there is no user of that name, or the recipient has no device")]
    DemoUserUnknown,
    #[error(
        "the routes are /ws, /ws/{{user_id}}, /messages/pending/{{device_id}}, /sessions/pending, \
         /users/{{user_id}}/devices, /metrics, /healthz and /readyz"
    )]
    NotFound,
    #[error("only GET and HEAD are allowed")]
    MethodNotAllowed,
}

/// What the headers of an answer tell the client to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Ask for a WebSocket of this version.
    Upgrade,
    /// Come back after this time.
    RetryAfter(Duration),
    /// The same, on another connection: this one ends, so that it makes room for other requests.
    Leave(Duration),
    /// Use GET or HEAD.
    Get,
    /// Send a token.
    Authenticate,
}

impl ApiError {
    /// The answer's status.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::UserIdMissing
            | Self::UserIdMalformed(_)
            | Self::DeviceIdMissing
            | Self::DeviceIdMalformed
            | Self::KindsMalformed(_)
            | Self::WebSocketKey
            | Self::QueryMalformed
            | Self::DemoMessageMalformed
            | Self::Identity(AuthError::DeviceAmbiguous) => StatusCode::BAD_REQUEST,
            Self::Identity(AuthError::OtherUser | AuthError::OtherDevice)
            | Self::OriginNotAllowed
            | Self::HostNotAllowed
            | Self::OperatorHostNotAllowed => StatusCode::FORBIDDEN,
            Self::Identity(AuthError::Unavailable)
            | Self::TooManyConnections(_)
            | Self::Draining
            | Self::DatabaseUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Identity(_) => StatusCode::UNAUTHORIZED,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAWebSocket | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::NotFound
            | Self::MetricsNotServed
            | Self::ConsoleNotServed
            | Self::DemoUserUnknown => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The answer's code, which a program acts on.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::UserIdMissing => "user_id_missing",
            Self::UserIdMalformed(_) => "user_id_malformed",
            Self::DeviceIdMissing => "device_id_missing",
            Self::DeviceIdMalformed => "device_id_malformed",
            Self::KindsMalformed(_) => "kinds_malformed",
            Self::NotAWebSocket => "websocket_required",
            Self::WebSocketVersion => "websocket_version",
            Self::WebSocketKey => "websocket_key",
            Self::QueryMalformed => "query_malformed",
            Self::TooManyConnections(_) => "too_many_connections",
            Self::Draining => "draining",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::HostNotAllowed | Self::OperatorHostNotAllowed => "host_not_allowed",
            Self::MetricsNotServed => "metrics_not_served",
            Self::ConsoleNotServed => "console_not_served",
            Self::Identity(error) => error.code(),
            Self::Limited(refusal) => refusal.limit.code(),
            Self::DatabaseUnavailable => "database_unavailable",
            Self::DemoMessageMalformed => "demo_message_malformed",
            Self::DemoUserUnknown => "demo_user_unknown",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
        }
    }

    /// What the answer's headers tell the client to do.
    pub(super) fn advice(self) -> Option<Advice> {
        match self {
            Self::NotAWebSocket | Self::WebSocketVersion => Some(Advice::Upgrade),
            Self::TooManyConnections(_) => Some(Advice::Leave(RETRY_AFTER)),
            Self::Draining | Self::DatabaseUnavailable | Self::Identity(AuthError::Unavailable) => {
                Some(Advice::RetryAfter(RETRY_AFTER))
            }
            Self::Limited(refusal) => Some(Advice::RetryAfter(refusal.retry_after)),
            Self::MethodNotAllowed => Some(Advice::Get),
            Self::Identity(_) if self.status() == StatusCode::UNAUTHORIZED => {
                Some(Advice::Authenticate)
            }
            _ => None,
        }
    }

    /// The time after which the same request may succeed; `None` where waiting does not help.
    pub(super) fn retry_after(self) -> Option<Duration> {
        match self.advice() {
            Some(Advice::RetryAfter(time) | Advice::Leave(time)) => Some(time),
            _ => None,
        }
    }

    /// What a refused WebSocket is counted as.
    pub(super) fn rejected(self) -> Rejected {
        match self {
            Self::TooManyConnections(SocketBound::Setting) => Rejected::ConnectionLimit,
            Self::TooManyConnections(SocketBound::Descriptors) => Rejected::DescriptorLimit,
            Self::Draining => Rejected::Draining,
            Self::DatabaseUnavailable => Rejected::DatabaseUnavailable,
            Self::OriginNotAllowed | Self::HostNotAllowed | Self::OperatorHostNotAllowed => {
                Rejected::Origin
            }
            Self::Identity(_) => Rejected::Identity,
            Self::Limited(refusal) => Rejected::Limit(refusal.limit),
            _ => Rejected::BadRequest,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Limited(refusal)
    }
}

impl From<&Rejection> for ApiError {
    fn from(rejection: &Rejection) -> Self {
        if let Some(Refused(error)) = rejection.find() {
            *error
        } else if rejection.find::<warp::reject::InvalidQuery>().is_some() {
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
