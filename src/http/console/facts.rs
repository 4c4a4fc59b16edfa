//! What the page must know before anyone has proven an identity.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::{answer, unavailable};
use crate::config::AuthMode;
use crate::http::api::{Api, Console, with_api};
use crate::http::reply::{ApiError, reply};
use crate::store::demo;

#[derive(Serialize)]
struct Facts {
    version: &'static str,
    auth: AuthMode,
    /// The users for whom the page may send messages; `None` if it may not.
    demo: Option<Vec<DemoUser>>,
}

#[derive(Serialize)]
struct DemoUser {
    id: Uuid,
    username: &'static str,
}

pub(super) fn route(api: &Api, console: Console) -> BoxedFilter<(Response,)> {
    warp::path!("console" / "facts")
        .and(warp::get())
        .and(with_api(api))
        .then(move |api: Arc<Api>| async move { reply(facts(&api, console).await) })
        .boxed()
}

async fn facts(api: &Api, console: Console) -> Result<Response, ApiError> {
    let demo = if console.acts() {
        Some(demo_users(api).await.map_err(unavailable)?)
    } else {
        None
    };
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        auth: console.auth,
        demo,
    };
    Ok(answer(StatusCode::OK, &facts))
}

async fn demo_users(api: &Api) -> Result<Vec<DemoUser>, sqlx::Error> {
    let pool = api.shared.log.requests();
    let mut users = Vec::new();
    for username in [demo::SENDER, demo::RECIPIENT] {
        let id = demo::user_id(&pool, username).await?;
        users.extend(id.map(|id| DemoUser { id, username }));
    }
    Ok(users)
}
