//! Every route. warp's filters find the route; the edge serves it. Every refusal is JSON.

use std::convert::Infallible;
use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::admission::Admission;
use super::api::Api;
use super::error::ApiError;
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
        .or(probes::routes(shared))
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
    let origins = Arc::new(api.origins.clone());
    warp::ext::get::<Headers>()
        .and(answered(all.or(preflight).unify().boxed()))
        .map(move |headers: Headers, response| origin::mark(&origins, &headers, response))
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
