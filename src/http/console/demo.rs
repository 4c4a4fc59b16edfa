//! Messages between the demo users, which the page sends where nobody has to prove an identity.

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode, header};
use warp::reply::Response;

use super::answer::{answer, unavailable};
use super::reader::Reader;
use crate::edge::{Headers, Peer};
use crate::http::api::{Api, with_api};
use crate::http::origin;
use crate::http::reply::{ApiError, BodyTooLong, reply};
use crate::store::demo;

/// A request to send a message, in bytes; the message's text is a line that someone types.
const MESSAGE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    from: String,
    to: String,
    text: String,
}

pub(super) fn route(api: &Api) -> BoxedFilter<(Response,)> {
    warp::path!("console" / "demo" / "messages")
        .and(warp::post())
        .and(with_api(api))
        .and(
            warp::ext::get::<Headers>().and_then(|headers: Headers| async move {
                if is_short(&headers) {
                    Ok(headers)
                } else {
                    Err(warp::reject::custom(BodyTooLong))
                }
            }),
        )
        .and(warp::ext::get::<Peer>())
        .and(warp::body::bytes())
        .then(|api, headers, peer, body: Bytes| async move {
            let reader = Reader::new(api, headers, peer);
            reply(send(&reader, &body).await)
        })
        .boxed()
}

async fn send(reader: &Reader, body: &[u8]) -> Result<Response, ApiError> {
    let Reader { api, headers, .. } = reader;
    // A form of another page cannot send this type, and a script of that page must ask the server first.
    if !origin::is_allowed(&api.origins, headers) || !is_json(headers) {
        return Err(ApiError::OriginNotAllowed);
    }
    let admitted = api.shared.limits.admit_request(reader.address);
    admitted.map_err(ApiError::Limited)?;
    let message: Message =
        serde_json::from_slice(body).map_err(|_| ApiError::DemoMessageMalformed)?;
    let pool = api.shared.log.requests();
    let sent = demo::send(&pool, &message.from, &message.to, &message.text);
    let sent = sent.await.map_err(unavailable)?;
    if sent.is_empty() {
        return Err(ApiError::DemoUserUnknown);
    }
    Ok(answer(StatusCode::CREATED, &json!({ "messages": sent })))
}

/// Whether the body's length is given and small enough for the body to be read.
fn is_short(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|bytes| bytes <= MESSAGE_BYTES_MAX)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_accepted() {
        for (value, accepted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/json-seq", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_json(&headers), accepted, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
