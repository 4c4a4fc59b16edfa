//! Every route. warp's filters find the route; the edge serves it. Every refusal is JSON.

use std::convert::Infallible;
use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::http::header;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::admission::Admission;
use super::api::Api;
use super::error::{ApiError, ForeignHost};
use super::reply::reply;
use super::upgrade::Upgrades;
use super::{console, origin, probes, state, upgrade};
use crate::edge::Headers;

/// The routes for clients, and for operators unless they have an address of their own. Everything else is
/// answered with 404.
#[must_use]
pub fn routes(api: &Api, with_metrics: bool) -> BoxedFilter<(Response,)> {
    let shared = &api.shared;
    let admission = Arc::new(Admission::new(api));
    let upgrades = Arc::new(Upgrades::new(api, &admission));
    let mut all = upgrade::routes(&upgrades)
        .or(state::routes(&admission, &shared.log))
        .unify()
        .boxed();
    if with_metrics {
        let metrics = probes::metrics(shared);
        all = all.or(metrics).unify().boxed();
    }
    if let Some(settings) = api.console {
        let console = console::routes(shared, &admission, settings);
        all = all.or(console).unify().boxed();
    }
    let preflight = warp::method().and(warp::ext::get::<Headers>()).and_then(
        |method, headers: Headers| async move {
            if origin::is_preflight(&method, &headers) {
                Ok(origin::preflight())
            } else {
                Err(warp::reject())
            }
        },
    );
    let all = own_host(api).and(all.or(preflight).unify());
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
fn own_host(api: &Api) -> BoxedFilter<()> {
    let any_host = api.any_host;
    let origins = Arc::new(api.origins.clone());
    let metrics = Arc::clone(&api.shared.metrics);
    warp::ext::get::<Headers>()
        .and_then(move |headers: Headers| {
            let is_served = any_host || origin::is_own_host(&origins, &headers);
            if !is_served && headers.contains_key(header::UPGRADE) {
                let rejected = ApiError::HostNotAllowed.rejected();
                metrics.connections_rejected.increment(rejected);
            }
            async move {
                if is_served {
                    Ok(())
                } else {
                    Err(warp::reject::custom(ForeignHost))
                }
            }
        })
        .untuple_one()
        .boxed()
}

/// The routes for operators at an address of their own.
#[must_use]
pub fn operator_routes(api: &Api) -> BoxedFilter<(Response,)> {
    let shared = &api.shared;
    let metrics = probes::metrics(shared);
    let probes = probes::routes(shared);
    answered(metrics.or(probes).unify().boxed())
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
