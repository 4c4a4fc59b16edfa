//! What every request brings, and the parameters that it names.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use uuid::Uuid;
use warp::http::Method;
use warp::{Filter, Rejection};

use super::error::ApiError;
use crate::edge::{ClientAddress, Headers};
use crate::protocol::{NotAUser, UserType, WantedKinds};

/// A request without its path, query and body.
#[derive(Debug, Clone)]
pub(super) struct RequestHead {
    /// The headers.
    pub(super) headers: Headers,
    /// The address of the client.
    pub(super) address: IpAddr,
}

/// Takes GET, and HEAD as GET: the edge leaves the body of its answer out.
pub(super) fn get_or_head() -> impl Filter<Extract = (), Error = Rejection> + Copy {
    warp::get().or(warp::head()).unify()
}

/// Whether the request is a HEAD.
pub(super) fn is_head() -> impl Filter<Extract = (bool,), Error = Infallible> + Copy {
    warp::method().map(|method| method == Method::HEAD)
}

/// Gives a route the head of the request.
pub(super) fn head() -> impl Filter<Extract = (RequestHead,), Error = Rejection> + Copy {
    warp::ext::get::<Headers>()
        .and(warp::ext::get::<ClientAddress>())
        .map(|headers, ClientAddress(address)| RequestHead { headers, address })
}

/// Gives a route what it serves from.
pub(super) fn with<T: Send + Sync>(
    parts: &Arc<T>,
) -> impl Filter<Extract = (Arc<T>,), Error = Infallible> + Clone + use<T> {
    let parts = Arc::clone(parts);
    warp::any().map(move || Arc::clone(&parts))
}

/// Reads the id of one of HushNet's users.
pub(super) fn hushnet_user(text: &str) -> Result<Uuid, ApiError> {
    let malformed = ApiError::UserIdMalformed(NotAUser(UserType::Uuid));
    text.parse().map_err(|_| malformed)
}

/// A part of a path, which `warp` hands on as it was sent. `None` where it is no UTF-8.
pub(super) fn decoded(part: &str) -> Option<String> {
    let decoded = percent_decode_str(part).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// Reads the id of a device.
pub(super) fn device_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse().map_err(|_| ApiError::DeviceIdMalformed)
}

/// Reads a list of kinds of events.
pub(super) fn wanted_kinds(text: &str) -> Result<Arc<WantedKinds>, ApiError> {
    text.parse().map(Arc::new).map_err(ApiError::KindsMalformed)
}
