//! The reads of state that a client makes, each with the cursor to connect with.

use std::sync::Arc;

use hyper::body::Bytes;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, header};
use warp::reply::Response;

use super::admission::{Admission, StateOf};
use super::error::ApiError;
use super::reply::{reply, with_type};
use super::request::{RequestHead, device_id, get_or_head, head, hushnet_user, with};
use crate::store::Log;
use crate::store::state::{self, State};

/// The position in the stream of events at which a state was read: the `since` to connect with.
const CURSOR_HEADER: &str = "realtime-cursor";
/// `true` when a response does not have all rows: the client acknowledges these and reads again.
const MORE_HEADER: &str = "realtime-more";

/// The query of `/sessions/pending`.
#[derive(Debug, Deserialize)]
struct DeviceQuery {
    device_id: Option<String>,
}

/// Reads state for clients.
#[derive(Debug)]
struct StateReads {
    admission: Arc<Admission>,
    log: Log,
}

/// `/messages/pending/{device_id}`, `/sessions/pending` and `/users/{user_id}/devices`.
pub(super) fn routes(admission: &Arc<Admission>, log: &Log) -> BoxedFilter<(Response,)> {
    let reads = Arc::new(StateReads {
        admission: Arc::clone(admission),
        log: log.clone(),
    });
    let messages = warp::path!("messages" / "pending" / String)
        .and(get_or_head())
        .and(with(&reads))
        .and(head())
        .then(
            |id: String, reads: Arc<StateReads>, head: RequestHead| async move {
                reply(reads.messages(&head, &id).await)
            },
        );
    let sessions = warp::path!("sessions" / "pending")
        .and(get_or_head())
        .and(with(&reads))
        .and(head())
        .and(warp::query::<DeviceQuery>())
        .then(
            |reads: Arc<StateReads>, head: RequestHead, query: DeviceQuery| async move {
                reply(reads.sessions(&head, query.device_id.as_deref()).await)
            },
        );
    let devices = warp::path!("users" / String / "devices")
        .and(get_or_head())
        .and(with(&reads))
        .and(head())
        .then(
            |id: String, reads: Arc<StateReads>, head: RequestHead| async move {
                reply(reads.devices(&head, &id).await)
            },
        );
    messages.or(sessions).unify().or(devices).unify().boxed()
}

impl StateReads {
    async fn messages(&self, head: &RequestHead, id: &str) -> Result<Response, ApiError> {
        let id = device_id(id)?;
        let permit = self.admission.admit_read(head, StateOf::Device(id)).await?;
        respond(state::messages(&self.log.requests(), id).await, permit)
    }

    async fn sessions(&self, head: &RequestHead, id: Option<&str>) -> Result<Response, ApiError> {
        let id = device_id(id.ok_or(ApiError::DeviceIdMissing)?)?;
        let permit = self.admission.admit_read(head, StateOf::Device(id)).await?;
        respond(state::sessions(&self.log.requests(), id).await, permit)
    }

    async fn devices(&self, head: &RequestHead, id: &str) -> Result<Response, ApiError> {
        let id = hushnet_user(id)?;
        let permit = self.admission.admit_read(head, StateOf::User(id)).await?;
        respond(state::devices(&self.log.requests(), id).await, permit)
    }
}

/// The body of a response, with its permit.
struct Body(
    String,
    #[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The response to a read of state.
fn respond(
    read: Result<State, sqlx::Error>,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let state = read.map_err(|error| {
        tracing::warn!(event = "state_read_failed", %error);
        ApiError::DatabaseUnavailable
    })?;
    let body = Bytes::from_owner(Body(state.body, permit));
    let mut response = with_type(body, "application/json");
    let headers = response.headers_mut();
    // The same address has another response a moment later.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(cursor) = state
        .cursor
        .and_then(|text| HeaderValue::from_str(&text).ok())
    {
        headers.insert(CURSOR_HEADER, cursor);
    }
    if state.more {
        headers.insert(MORE_HEADER, HeaderValue::from_static("true"));
    }
    Ok(response)
}
