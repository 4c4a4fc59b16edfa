//! The console's routes.

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{demo, facts, page, stats, times};
use crate::http::api::{Api, Console};

/// Every route of the console.
pub(in crate::http) fn routes(api: &Api, console: Console) -> BoxedFilter<(Response,)> {
    let all = page::routes()
        .or(facts::route(api, console))
        .unify()
        .or(stats::route(api))
        .unify()
        .or(times::route(api))
        .unify();
    if console.acts() {
        all.or(demo::route(api)).unify().boxed()
    } else {
        all.boxed()
    }
}
