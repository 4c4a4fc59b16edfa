//! The origins of web pages: which may open a WebSocket, and which may read a response.
//!
//! A browser sends the page's origin in `Origin`. A WebSocket of a page that is not allowed is refused here,
//! because browsers let any page open and read one. A response of another route names the origin that may read
//! it, and the browser enforces that.

use warp::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use warp::reply::Response;

use crate::config::{Origins, is_loopback_host};

/// The headers that a page may send, and those that it may read, beyond the ones that browsers always allow.
const ALLOWED_HEADERS: &str = "authorization, x-identity-key, x-signature, x-timestamp";
const EXPOSED_HEADERS: &str = "realtime-cursor, realtime-more, retry-after";
/// How long a browser may cache the response to a preflight request, in seconds.
const PREFLIGHT_MAX_AGE: &str = "600";

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the request comes from a page that may connect, or from a client that is not a page.
pub(super) fn is_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    text(headers, header::ORIGIN)
        .is_some_and(|origin| origins.allow(origin, text(headers, header::HOST)))
}

/// Whether the request names this machine or a host of the allowed origins. Only a browser that was led here by
/// another name sends another one.
pub(super) fn is_own_host(origins: &Origins, headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().all(|host| {
        let host = host.to_str();
        host.is_ok_and(|host| is_loopback_host(host) || origins.name_host(host))
    })
}

/// Names in the response the origin that may read it.
pub(super) fn mark(origins: &Origins, request: &HeaderMap, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = request.get(header::ORIGIN) else {
        return response;
    };
    if is_allowed(origins, request) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED_HEADERS),
        );
    }
    response
}

/// Whether this is a browser's preflight request for a GET or a HEAD.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && matches!(
            text(headers, header::ACCESS_CONTROL_REQUEST_METHOD),
            Some("GET" | "HEAD")
        )
}

/// The response to a preflight request.
pub(super) fn preflight() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_page_of_the_same_host_and_a_client_without_origin_may_connect() {
        let origins = Origins::default();
        let host = (header::HOST, "rt.example.org");
        for (origin, allowed) in [
            (None, true),
            (Some("https://rt.example.org"), true),
            (Some("https://evil.example"), false),
            (Some("null"), false),
        ] {
            let mut pairs = vec![host.clone()];
            pairs.extend(origin.map(|origin| (header::ORIGIN, origin)));
            assert_eq!(
                is_allowed(&origins, &headers(&pairs)),
                allowed,
                "{origin:?}"
            );
        }
        let mut unreadable = HeaderMap::new();
        unreadable.insert(header::ORIGIN, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(!is_allowed(&origins, &unreadable));
    }

    #[test]
    fn a_response_names_only_an_allowed_origin() {
        let origins: Origins = "https://app.example.org".parse().unwrap();
        for (origin, named) in [
            ("https://app.example.org", true),
            ("https://evil.example", false),
        ] {
            let request = headers(&[(header::ORIGIN, origin)]);
            let response = mark(&origins, &request, Response::default());
            let answered = response.headers();
            assert_eq!(answered[header::VARY], "origin");
            let allowed = answered.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed.is_some_and(|allowed| allowed == origin), named);
            assert_eq!(allowed.is_some(), named);
        }
    }

    #[test]
    fn only_a_browser_s_question_about_a_read_is_a_preflight_request() {
        let origin = (header::ORIGIN, "https://app.example.org");
        let get = (header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
        let head = (header::ACCESS_CONTROL_REQUEST_METHOD, "HEAD");
        let post = (header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
        for (method, pairs, is) in [
            (Method::OPTIONS, vec![origin.clone(), get.clone()], true),
            (Method::OPTIONS, vec![origin.clone(), head], true),
            (Method::OPTIONS, vec![origin.clone(), post], false),
            (Method::OPTIONS, vec![get.clone()], false),
            (Method::GET, vec![origin, get], false),
        ] {
            assert_eq!(
                is_preflight(&method, &headers(&pairs)),
                is,
                "{method} {pairs:?}"
            );
        }
    }
}
