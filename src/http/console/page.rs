//! The page, its script and its style sheet, built by `make console` and embedded.

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, header};
use warp::reply::Response;

use crate::http::reply::with_type;
use crate::http::request::get_or_head;

/// Nothing from another host, no script but the page's own, and no other page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    let page = warp::path!("console")
        .and(get_or_head())
        .map(|| asset(include_str!("console.html"), "text/html; charset=utf-8"));
    let script = warp::path!("console" / "console.js")
        .and(get_or_head())
        .map(|| {
            let text = include_str!("console.js");
            asset(text, "text/javascript; charset=utf-8")
        });
    let style = warp::path!("console" / "console.css")
        .and(get_or_head())
        .map(|| asset(include_str!("console.css"), "text/css; charset=utf-8"));
    page.or(script).unify().or(style).unify().boxed()
}

fn asset(text: &'static str, content_type: &'static str) -> Response {
    let mut response = with_type(text, content_type);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
