//! From a request for a WebSocket to its connection.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;
use warp::reply::Response;

use super::api::Api;
use super::credentials::{self, ProofQuery};
use super::handshake::Handshake;
use super::origin;
use super::reply::ApiError;
use crate::connection::{Connection, Seat, Shared};
use crate::edge::{Headers, Peer, Place, client_address};
use crate::identity::Identity;
use crate::limits::{AddressPrefix, Permit};
use crate::metrics::Rejected;
use crate::protocol::{AuthError, Closed, Encoding};
use crate::socket::Socket;

/// The query of `/ws`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WsQuery {
    user_id: Option<String>,
    /// A cursor to go on from; whoever sends one is a v1 client.
    since: Option<String>,
    #[serde(flatten)]
    proof: ProofQuery,
}

impl WsQuery {
    /// That of a path which names the user itself.
    pub(super) fn of_user(user_id: String) -> Self {
        Self {
            user_id: Some(user_id),
            ..Self::default()
        }
    }
}

/// What a request for a WebSocket brings.
pub(super) struct Upgrade {
    pub(super) headers: Headers,
    pub(super) stream: Option<OnUpgrade>,
    pub(super) place: Place,
    pub(super) peer: Peer,
}

/// What is held while a WebSocket is open.
#[allow(dead_code, reason = "held for their drop")]
struct Places {
    request: Place,
    socket: OwnedSemaphorePermit,
    address: Option<Permit<AddressPrefix>>,
    user: Option<Permit<Uuid>>,
}

/// A request for a WebSocket that there is a place for.
struct Admission {
    handshake: Handshake,
    places: Places,
}

/// Answers a request for a WebSocket with 101 and starts its connection, or says what is wrong.
pub(super) async fn open(
    api: Arc<Api>,
    query: WsQuery,
    encoding: Encoding,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let metrics = &api.shared.metrics;
    let opened = admit(&api, query, encoding, upgrade).await;
    opened.inspect_err(|error| {
        metrics.connection_rejected(match error {
            ApiError::TooManyConnections => Rejected::ConnectionLimit,
            ApiError::Draining => Rejected::Draining,
            ApiError::OriginNotAllowed => Rejected::Origin,
            ApiError::Identity(_) => Rejected::Identity,
            ApiError::Limited(refusal) => Rejected::Limit(refusal.limit),
            _ => Rejected::BadRequest,
        });
    })
}

async fn admit(
    api: &Api,
    query: WsQuery,
    encoding: Encoding,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let shared = &api.shared;
    if shared.drain.has_begun() {
        return Err(ApiError::Draining);
    }
    if !origin::is_allowed(&api.origins, &upgrade.headers) {
        return Err(ApiError::OriginNotAllowed);
    }
    let named = query.user_id.as_deref().map(str::parse::<Uuid>);
    let named = named.transpose().map_err(|_| ApiError::UserIdMalformed)?;
    if named.is_none() && !shared.auth.is_required() {
        return Err(ApiError::UserIdMissing);
    }
    let offer = credentials::of_upgrade(&upgrade.headers, query.proof, api.token_in_query);
    let mut admission = Admission::check(api, upgrade)?;
    let identity = shared.auth.identify(&offer.credentials, named, None).await;
    let encoding = if admission.handshake.offers_v1 || query.since.is_some() {
        Encoding::V1
    } else {
        encoding
    };
    let seated = match identity {
        Ok(identity) => seat(api, named, identity, encoding, query.since).await,
        Err(error) => Err(ApiError::Identity(error)),
    };
    match seated {
        Ok((seat, user)) => {
            admission.places.user = Some(user);
            Ok(accept(api, admission, seat))
        }
        Err(ApiError::Identity(error)) => {
            shared.metrics.identity_refused(error);
            if offer.by_subprotocol {
                Ok(turn_away(api, admission, error))
            } else {
                Err(ApiError::Identity(error))
            }
        }
        Err(error) => Err(error),
    }
}

/// Takes the client's place in the stream. Its device is looked up after that: one that is deleted later
/// is told of in the stream.
async fn seat(
    api: &Api,
    named: Option<Uuid>,
    identity: Option<Identity>,
    encoding: Encoding,
    since: Option<String>,
) -> Result<(Seat, Permit<Uuid>), ApiError> {
    let user_id = identity
        .map(|identity| identity.user_id)
        .or(named)
        .ok_or(ApiError::UserIdMissing)?;
    let admitted = api.shared.limits.admit_user(user_id);
    let admitted = admitted.map_err(ApiError::Limited)?;
    let seat = Seat::take(&api.shared, user_id, encoding, since, identity);
    if let Some(identity) = &identity {
        let confirmed = api.shared.auth.confirm(identity).await;
        confirmed.map_err(ApiError::Identity)?;
    }
    Ok((seat, admitted))
}

/// A connection that begins when the handshake's answer has been sent. Boxed, for it is large, and a
/// connection that has begun has no room for it.
struct Opening {
    shared: Arc<Shared>,
    handshake: Handshake,
    seat: Seat,
    places: Places,
}

impl Opening {
    /// By itself, since the box is let go of only at the end of where it is taken apart.
    fn complete(self: Box<Self>, socket: Socket) -> (Connection, Option<String>, Places) {
        self.shared.metrics.connection_opened();
        let (connection, since) = Connection::new(self.shared, socket, self.seat);
        (connection, since, self.places)
    }
}

fn accept(api: &Api, admission: Admission, seat: Seat) -> Response {
    let Admission { handshake, places } = admission;
    let response = handshake.response();
    let shared = Arc::clone(&api.shared);
    api.tasks.spawn(attend(Box::new(Opening {
        shared,
        handshake,
        seat,
        places,
    })));
    response
}

/// A connection from the handshake's answer to its end, while its places are held.
async fn attend(mut opening: Box<Opening>) {
    let limits = opening.shared.socket_limits;
    let Some(socket) = opening.handshake.socket(limits).await else {
        return;
    };
    let (mut connection, since, places) = opening.complete(socket);
    let closed = connection.run(since).await;
    let metrics = connection.metrics();
    // Boxed: the same goes for its end.
    Box::pin(connection.close(closed)).await;
    metrics.connection_closed(closed);
    drop(places);
}

/// Says why in a close frame, to a client that is shown no HTTP status.
fn turn_away(api: &Api, admission: Admission, error: AuthError) -> Response {
    let Admission {
        mut handshake,
        places,
    } = admission;
    let response = handshake.response();
    let shared = Arc::clone(&api.shared);
    api.tasks.spawn(async move {
        let _places = places;
        if let Some(socket) = handshake.socket(shared.socket_limits).await {
            let ending = Closed::ByServer(error.close_code());
            shared.goodbyes.say(socket, ending).await;
        }
    });
    response
}

impl Admission {
    /// Whether this is a request for a WebSocket, and there is a place for it.
    fn check(api: &Api, upgrade: Upgrade) -> Result<Self, ApiError> {
        let handshake = Handshake::of(&upgrade.headers, upgrade.stream)?;
        let address = client_address(upgrade.peer, &upgrade.headers, &api.trusted_proxies);
        let admitted = api.shared.limits.admit_address(address);
        let address = admitted.map_err(ApiError::Limited)?;
        let socket = Arc::clone(&api.places)
            .try_acquire_owned()
            .map_err(|_| ApiError::TooManyConnections)?;
        Ok(Self {
            handshake,
            places: Places {
                request: upgrade.place,
                socket,
                address,
                user: None,
            },
        })
    }
}
