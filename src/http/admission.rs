//! From a request to an admitted request. Each check is written once; routes differ only in which they make.
//!
//! | | WebSocket | state | figures | demo message |
//! |---|---|---|---|---|
//! | the server is not draining | yes | | | |
//! | the page's origin is allowed | yes | | | yes |
//! | the address has sent few requests | | yes | yes | yes |
//! | the address and the server have few WebSockets | yes | | | |
//! | the identity is proven | yes | yes | yes | |
//! | the user has few WebSockets | yes | | | |
//! | few responses are held | | yes | | |
//!
//! State is read by `state`; figures and demo messages are of the console. A refused identity is counted here,
//! a refused WebSocket where it is answered.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::api::{Api, SocketBound};
use super::error::ApiError;
use super::request::RequestHead;
use super::{credentials, origin};
use crate::config::Origins;
use crate::connection::Drain;
use crate::edge::{ConnectionPermit, Headers};
use crate::identity::{Authenticator, Credentials, Identity};
use crate::limits::{AddressPrefix, Limits, Permit};
use crate::metrics::Metrics;
use crate::protocol::{AuthError, UserKey, UserType, is_text};
use crate::store::state::READ_TIMEOUT;

/// Responses with state that are held at once, each until the client has taken it. A client that takes nothing
/// loses its connection after the TCP user timeout that `edge::outlast_writes` sets.
pub const RESPONSE_PERMITS_MAX: usize = 256;

/// Decides which requests are served.
#[derive(Debug)]
pub(super) struct Admission {
    drain: Drain,
    origins: Origins,
    limits: Arc<Limits>,
    auth: Arc<Authenticator>,
    metrics: Arc<Metrics>,
    socket_permits: Arc<Semaphore>,
    socket_bound: SocketBound,
    response_permits: Arc<Semaphore>,
}

/// The state that a request reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum StateOf {
    /// The pending rows of a device.
    Device(Uuid),
    /// The devices of one of HushNet's users.
    User(Uuid),
}

/// The permits that a WebSocket holds until it is closed.
#[derive(Debug)]
#[allow(dead_code, reason = "held for their drop")]
pub(super) struct SocketPermits {
    connection: ConnectionPermit,
    of_all: OwnedSemaphorePermit,
    of_address: Option<Permit<AddressPrefix>>,
}

impl Admission {
    pub(super) fn new(api: &Api) -> Self {
        let shared = &api.shared;
        Self {
            drain: shared.drain.clone(),
            origins: api.origins.clone(),
            limits: Arc::clone(&shared.limits),
            auth: Arc::clone(&shared.auth),
            metrics: Arc::clone(&shared.metrics),
            socket_permits: Arc::clone(&api.socket_permits),
            socket_bound: api.socket_bound,
            response_permits: Arc::new(Semaphore::new(RESPONSE_PERMITS_MAX)),
        }
    }

    /// Admits a read of state: the client's own, where clients have to prove their identity.
    pub(super) async fn admit_read(
        &self,
        head: &RequestHead,
        state: StateOf,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        self.check_rate(head.address)?;
        let credentials = credentials::in_headers(&head.headers);
        let (user, device_id) = match state {
            StateOf::Device(device_id) => (None, Some(device_id)),
            StateOf::User(id) => (Some(id.into()), None),
        };
        let identity = self.identify(&credentials, user, device_id).await?;
        if let Some(identity) = identity {
            let checked = match state {
                StateOf::Device(device_id) => self.auth.may_read(&identity, device_id).await,
                StateOf::User(_) => self.auth.confirm(&identity).await,
            };
            checked.map_err(|error| self.refused_identity(error))?;
        }
        let permit = Arc::clone(&self.response_permits).acquire_owned();
        match tokio::time::timeout(READ_TIMEOUT, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::DatabaseUnavailable),
        }
    }

    /// Admits a request for a user's figures. Returns the user: the one of the proof, or the named one where
    /// clients need not prove their identity.
    pub(super) async fn admit_user_request(
        &self,
        head: &RequestHead,
        named: Option<&str>,
    ) -> Result<UserKey, ApiError> {
        self.check_rate(head.address)?;
        let named = named.map(|id| self.user(id)).transpose()?;
        let credentials = credentials::in_headers(&head.headers);
        let identity = self.identify(&credentials, named, None).await?;
        let proven = identity.map(|identity| identity.user);
        proven.or(named).ok_or(ApiError::UserIdMissing)
    }

    /// Admits a WebSocket of this address, and counts it until the permits are dropped. Its user is admitted
    /// once it is known.
    pub(super) fn admit_socket(
        &self,
        address: IpAddr,
        connection: ConnectionPermit,
    ) -> Result<SocketPermits, ApiError> {
        let of_address = self.limits.admit_address(address)?;
        let of_all = Arc::clone(&self.socket_permits)
            .try_acquire_owned()
            .map_err(|_| ApiError::TooManyConnections(self.socket_bound))?;
        Ok(SocketPermits {
            connection,
            of_all,
            of_address,
        })
    }

    /// Admits a WebSocket of this user, and counts it until the permit is dropped.
    pub(super) fn admit_user(&self, user: UserKey) -> Result<Permit<UserKey>, ApiError> {
        Ok(self.limits.admit_user(user)?)
    }

    /// The user with this id. While the type of users has not been read, an id of another type than uuid may be one.
    pub(super) fn user(&self, id: &str) -> Result<UserKey, ApiError> {
        let kinds = &self.metrics.kinds;
        kinds.user_type().parse(id).map_err(|error| {
            if kinds.knows_user_type() || !is_text(id) {
                ApiError::UserIdMalformed(error)
            } else {
                ApiError::DatabaseUnavailable
            }
        })
    }

    /// The type of users.
    pub(super) fn user_type(&self) -> UserType {
        self.metrics.kinds.user_type()
    }

    /// Refuses new WebSockets while the server drains.
    pub(super) fn check_drain(&self) -> Result<(), ApiError> {
        if self.drain.has_begun() {
            return Err(ApiError::Draining);
        }
        Ok(())
    }

    /// Refuses web pages of other origins than the allowed ones.
    pub(super) fn check_origin(&self, headers: &Headers) -> Result<(), ApiError> {
        if origin::is_allowed(&self.origins, headers) {
            Ok(())
        } else {
            Err(ApiError::OriginNotAllowed)
        }
    }

    /// Refuses an address that sends too many requests. Comes before anything that costs a query.
    pub(super) fn check_rate(&self, address: IpAddr) -> Result<(), ApiError> {
        Ok(self.limits.admit_request(address)?)
    }

    /// Whether clients have to prove their identity.
    pub(super) fn needs_identity(&self) -> bool {
        self.auth.is_required()
    }

    /// The client's identity; `None` where clients need not prove it.
    pub(super) async fn identify(
        &self,
        credentials: &Credentials,
        user: Option<UserKey>,
        device_id: Option<Uuid>,
    ) -> Result<Option<Identity>, ApiError> {
        let identity = self.auth.identify(credentials, user, device_id).await;
        identity.map_err(|error| self.refused_identity(error))
    }

    /// Refuses an identity whose device or user has been deleted.
    pub(super) async fn confirm(&self, identity: &Identity) -> Result<(), ApiError> {
        let confirmed = self.auth.confirm(identity).await;
        confirmed.map_err(|error| self.refused_identity(error))
    }

    fn refused_identity(&self, error: AuthError) -> ApiError {
        self.metrics.identities_refused.increment(error);
        ApiError::Identity(error)
    }
}
