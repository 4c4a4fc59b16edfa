//! The credentials of a request: which of its headers, subprotocols and query parameters carry them.
//!
//! A token: `Authorization: Bearer`, for a browser's WebSocket the subprotocol `hushnet.token.<token>`,
//! and `?token=` if the settings allow it. A device's signature of the time: the headers
//! `X-Identity-Key`, `X-Signature` and `X-Timestamp`, for a browser's WebSocket the subprotocol
//! `hushnet.device.<key>.<signature>.<timestamp>` in base64url, or the query parameters
//! `identity_key`, `signature` and `timestamp`. The first credentials in this order count.

use serde::Deserialize;
use warp::http::{HeaderMap, header};

use crate::identity::{Credentials, SignedTime};
use crate::protocol::Secret;

const TOKEN_SUBPROTOCOL: &str = "hushnet.token.";
const DEVICE_SUBPROTOCOL: &str = "hushnet.device.";
const BEARER: &str = "bearer ";

/// The part of a query that may carry credentials.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ProofQuery {
    token: Option<Secret>,
    identity_key: Option<String>,
    signature: Option<String>,
    timestamp: Option<String>,
}

/// The credentials of a request for a WebSocket, and where they were found.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) credentials: Credentials,
    /// Whether they came in a subprotocol, as from a browser, which shows its page no status of a refused
    /// handshake.
    pub(super) by_subprotocol: bool,
}

/// The credentials in the headers of any request.
pub(super) fn in_headers(headers: &HeaderMap) -> Credentials {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(token) = text(header::AUTHORIZATION.as_str())
        && let Some((scheme, token)) = token.split_at_checked(BEARER.len())
        && scheme.eq_ignore_ascii_case(BEARER)
    {
        return Credentials::Token(token.trim().into());
    }
    match (
        text("x-identity-key"),
        text("x-signature"),
        text("x-timestamp"),
    ) {
        (Some(identity_key), Some(signature), Some(timestamp)) => {
            signed(identity_key, signature, timestamp)
        }
        _ => Credentials::None,
    }
}

/// The credentials of a request for a WebSocket.
pub(super) fn of_upgrade(headers: &HeaderMap, query: ProofQuery, token_in_query: bool) -> Offer {
    let offer = |credentials, by_subprotocol| Offer {
        credentials,
        by_subprotocol,
    };
    let credentials = in_headers(headers);
    if credentials != Credentials::None {
        return offer(credentials, false);
    }
    let credentials = in_subprotocols(headers);
    if credentials != Credentials::None {
        return offer(credentials, true);
    }
    let credentials = match query {
        ProofQuery {
            token: Some(token), ..
        } if token_in_query => Credentials::Token(token),
        ProofQuery {
            identity_key: Some(identity_key),
            signature: Some(signature),
            timestamp: Some(timestamp),
            ..
        } => signed(&identity_key, &signature, &timestamp),
        _ => Credentials::None,
    };
    offer(credentials, false)
}

fn in_subprotocols(headers: &HeaderMap) -> Credentials {
    let offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim));
    for subprotocol in offered {
        if let Some(token) = subprotocol.strip_prefix(TOKEN_SUBPROTOCOL) {
            return Credentials::Token(token.into());
        }
        if let Some(device) = subprotocol.strip_prefix(DEVICE_SUBPROTOCOL) {
            let mut parts = device.splitn(3, '.');
            let mut part = || parts.next().unwrap_or_default();
            return signed(part(), part(), part());
        }
    }
    Credentials::None
}

fn signed(identity_key: &str, signature: &str, timestamp: &str) -> Credentials {
    Credentials::Signature(SignedTime {
        identity_key: identity_key.to_owned(),
        signature: signature.to_owned(),
        timestamp: timestamp.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_found_in_each_place() {
        let token = Credentials::Token("a.b.c".into());
        for bearer in ["Bearer a.b.c", "bearer  a.b.c"] {
            assert_eq!(in_headers(&headers(&[("authorization", bearer)])), token);
        }
        let offered = headers(&[
            ("sec-websocket-protocol", "hushnet.v1"),
            ("sec-websocket-protocol", "other, hushnet.token.a.b.c"),
        ]);
        let offer = of_upgrade(&offered, ProofQuery::default(), false);
        assert_eq!(
            (offer.credentials, offer.by_subprotocol),
            (token.clone(), true)
        );
        let query = || ProofQuery {
            token: Some("a.b.c".into()),
            ..ProofQuery::default()
        };
        let offer = of_upgrade(&HeaderMap::new(), query(), true);
        assert_eq!((offer.credentials, offer.by_subprotocol), (token, false));
        let offer = of_upgrade(&HeaderMap::new(), query(), false);
        assert_eq!(offer.credentials, Credentials::None);
    }

    #[test]
    fn a_signature_is_found_in_each_place() {
        let wanted = signed("key", "signature", "1000");
        let found = in_headers(&headers(&[
            ("x-identity-key", "key"),
            ("x-signature", "signature"),
            ("x-timestamp", "1000"),
        ]));
        assert_eq!(found, wanted);
        let offered = headers(&[(
            "sec-websocket-protocol",
            "hushnet.v1, hushnet.device.key.signature.1000",
        )]);
        assert_eq!(in_subprotocols(&offered), wanted);
        let query = ProofQuery {
            token: None,
            identity_key: Some("key".to_owned()),
            signature: Some("signature".to_owned()),
            timestamp: Some("1000".to_owned()),
        };
        let offer = of_upgrade(&HeaderMap::new(), query, false);
        assert_eq!(offer.credentials, wanted);
    }

    #[test]
    fn incomplete_or_unknown_credentials_are_none() {
        for (name, value) in [
            ("authorization", "Basic YTpi"),
            ("authorization", "é"),
            ("authorization", "Bear"),
            ("x-identity-key", "key"),
        ] {
            assert_eq!(in_headers(&headers(&[(name, value)])), Credentials::None);
        }
    }
}
