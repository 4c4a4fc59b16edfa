//! When the rows of a user's events were created: the page shows how long an event took.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::{answer, unavailable};
use super::reader::{Reader, reader};
use crate::http::api::Api;
use crate::http::reply::{ApiError, reply};
use crate::protocol::Cursor;

/// Events in one question.
const TIMES_MAX: usize = 256;

#[derive(Debug, Deserialize)]
struct TimesQuery {
    user_id: Option<String>,
    /// A cursor from before the events.
    since: String,
    /// The events' ids, with commas between.
    ids: String,
}

#[derive(Serialize)]
struct Times {
    /// In ms since 1970, by the event's id. An event of another user is left out.
    times_ms: BTreeMap<i64, f64>,
}

pub(super) fn route(api: &Api) -> BoxedFilter<(Response,)> {
    warp::path!("console" / "times")
        .and(warp::get())
        .and(reader(api))
        .and(warp::query::<TimesQuery>())
        .then(|reader: Reader, query| async move { reply(times(&reader, query).await) })
        .boxed()
}

async fn times(reader: &Reader, query: TimesQuery) -> Result<Response, ApiError> {
    let user_id = reader.user(query.user_id.as_deref()).await?;
    let ids: Result<Vec<i64>, _> = query.ids.split(',').map(str::parse).collect();
    let ids = ids.map_err(|_| ApiError::QueryMalformed)?;
    let since: Cursor = query.since.parse().map_err(|_| ApiError::QueryMalformed)?;
    if ids.len() > TIMES_MAX {
        return Err(ApiError::QueryMalformed);
    }
    let log = &reader.api.shared.log;
    let times = log.creation_times_of(user_id, &ids, since.snapshot.xmin());
    let times = times.await.map_err(unavailable)?.into_iter();
    let times_ms = times.map(|(id, seconds)| (id, seconds * 1e3)).collect();
    Ok(answer(StatusCode::OK, &Times { times_ms }))
}
