//! Every route. warp's filters find the route; the edge serves it. Every refusal is JSON.

use std::convert::Infallible;
use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::http::header;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::admission::Admission;
use super::api::Api;
use super::error::{ApiError, Refused};
use super::reply::reply;
use super::upgrade::Upgrades;
use super::{console, origin, probes, state, upgrade};
use crate::edge::Headers;

/// The routes for clients, and those for operators that are served beside them. Everything else is answered with 404.
#[must_use]
pub fn routes(api: &Api) -> BoxedFilter<(Response,)> {
    let shared = &api.shared;
    let admission = Arc::new(Admission::new(api));
    let upgrades = Arc::new(Upgrades::new(api, &admission));
    let mut all = upgrade::routes(&upgrades)
        .or(state::routes(&admission, &shared.log))
        .unify()
        .boxed();
    let metrics = if api.metrics {
        probes::metrics(shared)
    } else {
        refused(warp::path!("metrics").boxed(), ApiError::MetricsNotServed)
    };
    let console = match api.console {
        Some(settings) => console::routes(shared, &admission, settings),
        None => refused(
            warp::path!("console" / ..).boxed(),
            ApiError::ConsoleNotServed,
        ),
    };
    all = all.or(metrics).unify().or(console).unify().boxed();
    let preflight = warp::method().and(warp::ext::get::<Headers>()).and_then(
        |method, headers: Headers| async move {
            if origin::is_preflight(&method, &headers) {
                Ok(origin::preflight())
            } else {
                Err(warp::reject())
            }
        },
    );
    let all = own_host(api, api.any_host, ApiError::HostNotAllowed).and(all.or(preflight).unify());
    // Probes have nothing to hide, and name whichever host they like.
    let all = probes::routes(shared).or(all).unify().boxed();
    let origins = Arc::new(api.origins.clone());
    warp::ext::get::<Headers>()
        .and(answered(all))
        .map(move |headers: Headers, response| origin::mark(&origins, &headers, response))
        .boxed()
}

/// Refuses a request that names another host than this machine, where that is all that keeps others out. One for a
/// WebSocket is counted.
fn own_host(api: &Api, any_host: bool, refusal: ApiError) -> BoxedFilter<()> {
    let origins = Arc::new(api.origins.clone());
    let metrics = Arc::clone(&api.shared.metrics);
    warp::ext::get::<Headers>()
        .and_then(move |headers: Headers| {
            let is_served = any_host || origin::is_own_host(&origins, &headers);
            if !is_served && headers.contains_key(header::UPGRADE) {
                metrics.connections_rejected.increment(refusal.rejected());
            }
            async move {
                if is_served {
                    Ok(())
                } else {
                    Err(warp::reject::custom(Refused(refusal)))
                }
            }
        })
        .untuple_one()
        .boxed()
}

/// The routes for operators at an address of their own. Not the console: its page opens a WebSocket of the address
/// that it comes from. `any_host` says whether requests are served whichever host they name.
#[must_use]
pub fn operator_routes(api: &Api, any_host: bool) -> BoxedFilter<(Response,)> {
    let shared = &api.shared;
    let own_host = own_host(api, any_host, ApiError::OperatorHostNotAllowed);
    let metrics = own_host.and(probes::metrics(shared));
    let probes = probes::routes(shared);
    answered(probes.or(metrics).unify().boxed())
}

/// A route that is not served, with the reason.
fn refused(route: BoxedFilter<()>, refusal: ApiError) -> BoxedFilter<(Response,)> {
    let refused = move || async move { Err::<Response, _>(warp::reject::custom(Refused(refusal))) };
    route.and_then(refused).boxed()
}

/// Answers what no route takes.
fn answered(routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    routes
        .recover(|rejection: Rejection| async move {
            Ok::<_, Infallible>(reply(Err(ApiError::from(&rejection))))
        })
        .unify()
        .boxed()
}
