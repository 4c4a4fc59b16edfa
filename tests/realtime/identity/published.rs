//! Keys that are published as a JSON Web Key Set: fetched, exchanged, gone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::support::until;

/// The service fetches an unknown key's set no more often than this.
const REFRESH_MIN_S: u64 = 10;

/// An HTTP server that publishes a set of keys and counts the requests for it.
struct Publisher {
    url: String,
    state: Arc<Mutex<(Option<String>, usize)>>,
}

/// How long the publisher takes for an answer.
const ANSWER: Duration = Duration::from_millis(200);

impl Publisher {
    async fn start(set: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new((set, 0)));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = {
                    let mut state = shared.lock().unwrap();
                    state.1 += 1;
                    match &state.0 {
                        Some(set) => format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{set}",
                            set.len()
                        ),
                        None => "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                            .to_owned(),
                    }
                };
                let mut head = [0; 2_048];
                let _ = stream.read(&mut head).await;
                tokio::time::sleep(ANSWER).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, state }
    }

    /// A server that takes tokens by what is published.
    async fn server(&self) -> Server {
        Server::start_with(|config| {
            takes_tokens(config, Key::rsa());
            config.identity.jwt_key = None;
            config.identity.jwt_jwks_url = Some(self.url.parse().unwrap());
        })
        .await
    }

    fn publish(&self, set: Option<String>) {
        self.state.lock().unwrap().0 = set;
    }

    fn asked(&self) -> usize {
        self.state.lock().unwrap().1
    }
}

fn set(keys: &[(&str, &Key)]) -> String {
    let keys = keys
        .iter()
        .map(|(kid, key)| {
            let mut jwk = Jwk::from_encoding_key(&key.signs(), Algorithm::RS256).unwrap();
            jwk.common.key_id = Some((*kid).to_owned());
            jwk
        })
        .collect();
    serde_json::to_string(&JwkSet { keys }).unwrap()
}

fn named(kid: &str, key: &Key, claims: &serde_json::Value) -> String {
    let mut header = key.header();
    header.kid = Some(kid.to_owned());
    encode(&header, claims, &key.signs()).unwrap()
}

async fn answer(server: &Server, user: &User, token: &str) -> String {
    let response = server
        .request(&format!(
            "GET /users/{}/devices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n\r\n",
            user.id
        ))
        .await;
    match response.status {
        200 => "let in".to_owned(),
        _ => response.json()["error"]["code"]
            .as_str()
            .unwrap()
            .to_owned(),
    }
}

#[tokio::test]
async fn published_keys_are_fetched_and_the_last_good_ones_kept() {
    let (first, second) = (Key::rsa(), Key::another_rsa());
    let publisher = Publisher::start(Some(set(&[("one", first), ("two", &second)]))).await;
    let server = publisher.server().await;
    let alice = add_user(&server.db().await).await;
    let claims = claims(&alice);
    let one = named("one", first, &claims);
    until("the keys are fetched", async || {
        answer(&server, &alice, &one).await == "let in"
    })
    .await;
    let two = named("two", &second, &claims);
    assert_eq!(answer(&server, &alice, &two).await, "let in");
    let swapped = named("two", first, &claims);
    assert_eq!(answer(&server, &alice, &swapped).await, "token_signature");

    // The publisher fails: the keys that were fetched stand, and unknown keys cause no storm of fetches.
    publisher.publish(None);
    let (begun, before) = (Instant::now(), publisher.asked());
    for _ in 0..20 {
        let unknown = named("three", &second, &claims);
        assert_eq!(answer(&server, &alice, &unknown).await, "token_key_unknown");
    }
    assert_eq!(answer(&server, &alice, &one).await, "let in");
    let fetches = publisher.asked() - before;
    let admitted = 1 + begun.elapsed().as_secs() / REFRESH_MIN_S;
    assert!(
        fetches as u64 <= admitted,
        "{fetches} fetches of {admitted}"
    );
    // Of two keys, a token must say which.
    let unnamed = token(first, &claims);
    assert_eq!(answer(&server, &alice, &unnamed).await, "token_key_unknown");
}

/// Whoever names an unknown key has the keys fetched, and may leave meanwhile.
#[tokio::test]
async fn a_client_that_leaves_ends_no_fetch() {
    let (first, second) = (Key::rsa(), Key::another_rsa());
    let publisher = Publisher::start(Some(set(&[("one", first)]))).await;
    let server = publisher.server().await;
    let alice = add_user(&server.db().await).await;
    let claims = claims(&alice);
    until("the keys are fetched", async || {
        answer(&server, &alice, &named("one", first, &claims)).await == "let in"
    })
    .await;
    publisher.publish(Some(set(&[("two", &second)])));
    let before = publisher.asked();
    let unknown = named("three", first, &claims);
    until("a client that leaves has the keys fetched", async || {
        let left = answer(&server, &alice, &unknown);
        let _ = tokio::time::timeout(ANSWER / 4, left).await;
        publisher.asked() > before
    })
    .await;
    let two = named("two", &second, &claims);
    assert_eq!(answer(&server, &alice, &two).await, "let in");
}

#[tokio::test]
async fn a_key_that_cannot_be_read_spoils_no_other() {
    let mut key_set: serde_json::Value =
        serde_json::from_str(&set(&[("good", Key::rsa())])).unwrap();
    let keys = key_set["keys"].as_array_mut().unwrap();
    for unreadable in [
        json!({ "kty": "RSA", "kid": 7, "use": "sig", "n": "xGOr-H7A-PWR8BWk", "e": "AQAB" }),
        json!({ "kty": "RSA", "kid": "no modulus" }),
        json!({ "kty": "RSA", "kid": "no base64", "n": "?", "e": "AQAB" }),
        json!({ "kty": "AKP", "kid": "of another kind", "alg": "ML-DSA-44", "pub": "AA" }),
        json!("no key"),
    ] {
        keys.insert(0, unreadable);
    }
    let publisher = Publisher::start(Some(key_set.to_string())).await;
    let server = publisher.server().await;
    let alice = add_user(&server.db().await).await;
    let good = named("good", Key::rsa(), &claims(&alice));
    assert_eq!(answer(&server, &alice, &good).await, "let in");
    let other = named("no modulus", Key::rsa(), &claims(&alice));
    assert_eq!(answer(&server, &alice, &other).await, "token_key_unknown");
}

#[tokio::test]
async fn without_any_key_clients_are_asked_to_retry() {
    let publisher = Publisher::start(None).await;
    let server = publisher.server().await;
    let alice = add_user(&server.db().await).await;
    let good = token(Key::rsa(), &claims(&alice));
    assert_eq!(answer(&server, &alice, &good).await, "identity_unavailable");
}
