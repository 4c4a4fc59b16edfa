//! The client that asks, and the user for whom it may ask.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;
use warp::{Filter, Rejection};

use crate::edge::{Headers, Peer, client_address};
use crate::http::api::{Api, with_api};
use crate::http::credentials;
use crate::http::reply::ApiError;

/// The client that sent a request.
pub(super) struct Reader {
    pub(super) api: Arc<Api>,
    pub(super) headers: Headers,
    pub(super) address: IpAddr,
}

/// The client that sent the request.
pub(super) fn reader(
    api: &Api,
) -> impl Filter<Extract = (Reader,), Error = Rejection> + Clone + use<> {
    with_api(api)
        .and(warp::ext::get::<Headers>())
        .and(warp::ext::get::<Peer>())
        .map(Reader::new)
}

impl Reader {
    pub(super) fn new(api: Arc<Api>, headers: Headers, peer: Peer) -> Self {
        let address = client_address(peer, &headers, &api.trusted_proxies);
        Self {
            api,
            headers,
            address,
        }
    }

    /// The user whose data may be answered: the proven one, or the one that is named where no proof is required.
    pub(super) async fn user(&self, named: Option<&str>) -> Result<Uuid, ApiError> {
        let shared = &self.api.shared;
        let admitted = shared.limits.admit_request(self.address);
        admitted.map_err(ApiError::Limited)?;
        let named = named.map(str::parse::<Uuid>).transpose();
        let named = named.map_err(|_| ApiError::UserIdMalformed)?;
        let credentials = credentials::in_headers(&self.headers);
        let identity = shared.auth.identify(&credentials, named, None).await;
        let identity = identity.map_err(|error| {
            shared.metrics.identity_refused(error);
            ApiError::Identity(error)
        })?;
        let proven = identity.map(|identity| identity.user_id);
        proven.or(named).ok_or(ApiError::UserIdMissing)
    }
}
