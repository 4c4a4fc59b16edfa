//! The console's routes.

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{demo, facts, nodes, page, stats, times};
use crate::connection::Shared;
use crate::http::admission::Admission;
use crate::http::api::Console;

/// Every route of the console.
pub(in crate::http) fn routes(
    shared: &Shared,
    admission: &Arc<Admission>,
    console: Console,
) -> BoxedFilter<(Response,)> {
    let log = &shared.log;
    let all = page::routes()
        .or(facts::route(log, console))
        .unify()
        .or(stats::route(admission, shared))
        .unify()
        .or(times::route(admission, log))
        .unify()
        .or(nodes::route(admission, log))
        .unify();
    if console.acts() {
        all.or(demo::route(admission, log)).unify().boxed()
    } else {
        all.boxed()
    }
}
