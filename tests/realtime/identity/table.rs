//! Each route with each proof: the documented answer, and no connection without a valid proof.

use super::*;
use crate::identity::proofs::forged;
use crate::support::Response;

/// The owner of the resources that are asked for.
struct Asked {
    user: User,
    /// A device of the user.
    device: uuid::Uuid,
}

/// The owner that a route's path names.
#[derive(Clone, Copy)]
enum Owner {
    User,
    Device,
    /// The path names no user: the proof's subject is the owner.
    Prover,
}

const ROUTES: [(&str, Owner); 6] = [
    ("/ws", Owner::Prover),
    ("/ws?user_id={user}", Owner::User),
    ("/ws/{user}", Owner::User),
    ("/users/{user}/devices", Owner::User),
    ("/messages/pending/{device}", Owner::Device),
    ("/sessions/pending?device_id={device}", Owner::Device),
];

async fn ask(server: &Server, route: &str, asked: &Asked, proof: &Proof) -> Response {
    let path = route
        .replace("{user}", &asked.user.id.to_string())
        .replace("{device}", &asked.device.to_string());
    let upgrade = if path.starts_with("/ws") {
        "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    } else {
        "Connection: close\r\n"
    };
    let headers = &proof.headers;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{upgrade}{headers}\r\n");
    if path.starts_with("/ws") {
        // After a 101 the connection stays open.
        server.first_response(&request).await
    } else {
        server.request(&request).await
    }
}

/// Asks every route, each with a proof of its own, and wants this answer.
async fn expect(
    server: &Server,
    asked: &Asked,
    what: &str,
    wanted: (u16, &str),
    mut proof: impl FnMut() -> Proof,
) {
    for (route, _) in ROUTES {
        let response = ask(server, route, asked, &proof()).await;
        let answered = (response.status, response.json()["error"]["code"].clone());
        assert_eq!(answered, (wanted.0, wanted.1.into()), "{what} at {route}");
        if wanted.0 == 401 {
            assert_eq!(response.headers["www-authenticate"], "Bearer", "{what}");
        }
    }
}

async fn expect_let_in(
    server: &Server,
    asked: &Asked,
    what: &str,
    mut proof: impl FnMut() -> Proof,
) {
    for (route, _) in ROUTES {
        let status = ask(server, route, asked, &proof()).await.status;
        let wanted = if route.starts_with("/ws") { 101 } else { 200 };
        assert_eq!(status, wanted, "{what} at {route}");
    }
}

/// A valid proof of another user.
async fn expect_other(server: &Server, asked: &Asked, mut proof: impl FnMut() -> Proof) {
    for (route, owner) in ROUTES {
        let response = ask(server, route, asked, &proof()).await;
        let wanted = match owner {
            Owner::User => (403, "other_user"),
            Owner::Device => (403, "other_device"),
            Owner::Prover => continue,
        };
        let answered = (response.status, response.json()["error"]["code"].clone());
        assert_eq!(answered, (wanted.0, wanted.1.into()), "at {route}");
    }
}

async fn opened(server: &Server) -> f64 {
    server.metric("hushnet_connections_opened_total").await
}

/// Invalid tokens, each with what is wrong and the answer's code.
fn bad_tokens(key: &Key, user: &User) -> Vec<(&'static str, String, &'static str)> {
    let good = claims(user);
    let changed = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(key, &claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        token(key, &claims)
    };
    let now = unix_seconds();
    let with_public_key = {
        // A server that lets the token choose the algorithm would take the public key as HMAC's secret.
        let secret = jsonwebtoken::EncodingKey::from_secret(key.public.as_bytes());
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        jsonwebtoken::encode(&header, &good, &secret).unwrap()
    };
    let signed = token(key, &good);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let changed_signature = format!("{head}.{other}{}", &signature[1..]);
    let malformed = [
        ("no token", "nonsense".to_owned()),
        ("a long one", "a".repeat(7_000)),
        ("no end", without("exp")),
        ("a text as end", changed("exp", "never".into())),
        ("a text as begin", changed("nbf", "never".into())),
        ("no user", without("sub")),
        ("a number as user", changed("sub", 42.into())),
    ];
    let subject = [
        ("a name as user", changed("sub", "alice".into())),
        ("nobody as user", changed("sub", "".into())),
    ];
    let algorithm = [
        ("alg none", forged("none", &good, "")),
        ("alg HS256", with_public_key),
        ("alg RS512", forged("RS512", &good, signature)),
    ];
    let signature = [
        ("another key", token(&Key::another_rsa(), &good)),
        ("a changed signature", changed_signature),
    ];
    let audience = [
        ("another's aud", changed("aud", "mail".into())),
        ("no aud", without("aud")),
    ];
    let issuer = [
        ("another's iss", changed("iss", "me".into())),
        ("no iss", without("iss")),
    ];
    let expired = [("expired", changed("exp", (now - 1).into()))];
    let early = [("for later", changed("nbf", (now + LIFETIME_S).into()))];
    let coded = |code: &'static str, cases: Vec<(&'static str, String)>| {
        cases
            .into_iter()
            .map(move |(what, token)| (what, token, code))
    };
    coded("token_malformed", malformed.into())
        .chain(coded("token_subject", subject.into()))
        .chain(coded("token_algorithm", algorithm.into()))
        .chain(coded("token_signature", signature.into()))
        .chain(coded("token_audience", audience.into()))
        .chain(coded("token_issuer", issuer.into()))
        .chain(coded("token_expired", expired.into()))
        .chain(coded("token_not_yet_valid", early.into()))
        .collect()
}

#[tokio::test]
async fn invalid_tokens_are_refused_by_every_route() {
    let key = Key::rsa();
    let server = Server::start_with(|config| takes_tokens(config, key)).await;
    let pool = server.db().await;
    let (alice, mallory) = (add_user(&pool).await, add_user(&pool).await);
    let asked = Asked {
        user: alice,
        device: alice.device_id,
    };
    for (what, token, code) in bad_tokens(key, &alice) {
        expect(&server, &asked, what, (401, code), || Proof::bearer(&token)).await;
    }
    let of_device = |id: uuid::Uuid| {
        let mut claims = claims(&alice);
        claims["device_id"] = id.to_string().into();
        token(key, &claims)
    };
    let gone = add_device(&pool, alice.id).await;
    sqlx::query("DELETE FROM devices WHERE id = $1")
        .bind(gone)
        .execute(&pool)
        .await
        .unwrap();
    let response = ask(&server, "/ws", &asked, &Proof::bearer(&of_device(gone))).await;
    assert_eq!(response.json()["error"]["code"], "device_unknown");
    let nobody = User {
        id: uuid::Uuid::new_v4(),
        ..alice
    };
    let of_nobody = token(key, &claims(&nobody));
    let response = ask(&server, "/ws", &asked, &Proof::bearer(&of_nobody)).await;
    assert_eq!(response.json()["error"]["code"], "user_unknown");
    let missing = (401, "credentials_missing");
    expect(&server, &asked, "nothing", missing, Proof::default).await;
    let device = Device::of(&pool, &alice).await;
    let signed = device.signs(unix_seconds());
    expect(&server, &asked, "a signature", missing, || signed.clone()).await;
    assert!(
        opened(&server).await < 0.5,
        "a refused client was connected"
    );

    let other = token(key, &claims(&mallory));
    expect_other(&server, &asked, || Proof::bearer(&other)).await;
    let good = token(key, &claims(&alice));
    expect_let_in(&server, &asked, "a good token", || Proof::bearer(&good)).await;
    let own = of_device(alice.device_id);
    expect_let_in(&server, &asked, "and a device", || Proof::bearer(&own)).await;
    let refused = server
        .metric("hushnet_identities_refused_total{reason=\"token_expired\"}")
        .await;
    assert!((refused - 6.0).abs() < 0.5, "{refused}");
}

#[tokio::test]
async fn each_algorithm_checks_its_own_tokens() {
    for key in [Key::secret(), Key::p256(), Key::ed25519()] {
        let server = Server::start_with(|config| takes_tokens(config, &key)).await;
        let pool = server.db().await;
        let alice = add_user(&pool).await;
        let asked = Asked {
            user: alice,
            device: alice.device_id,
        };
        let good = token(&key, &claims(&alice));
        expect_let_in(&server, &asked, "a good token", || Proof::bearer(&good)).await;
        let bad = token(Key::rsa(), &claims(&alice));
        let refused = (401, "token_algorithm");
        expect(&server, &asked, "RS256", refused, || Proof::bearer(&bad)).await;
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn invalid_signatures_are_refused_by_every_route() {
    let server = Server::start_with(|config| takes_signatures(config, AuthMode::Device)).await;
    let pool = server.db().await;
    let (alice, mallory) = (add_user(&pool).await, add_user(&pool).await);
    let own = Device::of(&pool, &alice).await;
    let asked = Asked {
        user: alice,
        device: own.id,
    };
    let (now, window) = (unix_seconds(), u64::from(SIGNATURE_WINDOW_S));
    let mut next = now - 20;
    let mut fresh = || {
        next += 1;
        next
    };
    let good = own.signs(now).headers;
    let replaced = |name: &str, value: &str| Proof {
        headers: good
            .lines()
            .map(|line| match line.split_once(": ") {
                Some((found, _)) if found == name => format!("{name}: {value}\r\n"),
                _ => format!("{line}\r\n"),
            })
            .collect(),
    };
    for (what, proof, code) in [
        ("nothing", Proof::default(), "credentials_missing"),
        ("old", own.signs(now - window - 1), "signature_stale"),
        (
            "of the future",
            own.signs(now + 2 * window),
            "signature_stale",
        ),
        (
            "of another second",
            replaced("X-Timestamp", &(now - 1).to_string()),
            "signature_invalid",
        ),
        (
            "no time",
            replaced("X-Timestamp", "noon"),
            "signature_malformed",
        ),
        (
            "no key",
            replaced("X-Identity-Key", "AAAA"),
            "signature_malformed",
        ),
        (
            "no signature",
            replaced("X-Signature", "AAAA"),
            "signature_malformed",
        ),
    ] {
        expect(&server, &asked, what, (401, code), || proof.clone()).await;
    }
    let token = token(Key::rsa(), &claims(&alice));
    let missing = (401, "credentials_missing");
    expect(&server, &asked, "a token", missing, || {
        Proof::bearer(&token)
    })
    .await;
    let gone = Device::of(&pool, &alice).await;
    sqlx::query("DELETE FROM devices WHERE id = $1")
        .bind(gone.id)
        .execute(&pool)
        .await
        .unwrap();
    let unknown = (401, "device_unknown");
    expect(&server, &asked, "deleted", unknown, || gone.signs(fresh())).await;
    assert!(
        opened(&server).await < 0.5,
        "a refused client was connected"
    );

    let other = Device::of(&pool, &mallory).await;
    expect_other(&server, &asked, || other.signs(fresh())).await;
    expect_let_in(&server, &asked, "its own", || own.signs(fresh())).await;
    let used = own.signs(next);
    let again = (401, "signature_replayed");
    expect(&server, &asked, "used", again, || used.clone()).await;
    // Two users may have the same key. The path names the user.
    let key = "INSERT INTO devices SELECT gen_random_uuid(), $2, identity_pubkey, '', '', '', '[]' \
               FROM devices WHERE id = $1";
    let shared = Device::of(&pool, &alice).await;
    sqlx::query(key)
        .bind(shared.id)
        .bind(mallory.id)
        .execute(&pool)
        .await
        .unwrap();
    let both = Asked {
        user: alice,
        device: shared.id,
    };
    for (route, wanted) in [(ROUTES[0].0, 400), (ROUTES[1].0, 101), (ROUTES[4].0, 200)] {
        let signed = shared.signs(now - u64::from(wanted % 10));
        assert_eq!(
            ask(&server, route, &both, &signed).await.status,
            wanted,
            "{route}"
        );
    }
    // Another device of the same user.
    let second = Device::of(&pool, &alice).await;
    let response = ask(&server, ROUTES[4].0, &asked, &second.signs(now)).await;
    assert_eq!(response.json()["error"]["code"], "other_device");
}

#[tokio::test]
async fn either_kind_of_proof_is_accepted_where_both_are_configured() {
    let key = Key::secret();
    let server = Server::start_with(|config| {
        takes_tokens(config, &key);
        takes_signatures(config, AuthMode::JwtOrDevice);
    })
    .await;
    let pool = server.db().await;
    let alice = add_user(&pool).await;
    let own = Device::of(&pool, &alice).await;
    let asked = Asked {
        user: alice,
        device: own.id,
    };
    let good = token(&key, &claims(&alice));
    expect_let_in(&server, &asked, "a token", || Proof::bearer(&good)).await;
    let mut next = unix_seconds() - 10;
    expect_let_in(&server, &asked, "a signature", || {
        next += 1;
        own.signs(next)
    })
    .await;
    let missing = (401, "credentials_missing");
    expect(&server, &asked, "nothing", missing, Proof::default).await;
}

#[tokio::test]
async fn without_authentication_a_proof_is_ignored() {
    let server = Server::start().await;
    let pool = server.db().await;
    let alice = add_user(&pool).await;
    let asked = Asked {
        user: alice,
        device: alice.device_id,
    };
    for (route, owner) in ROUTES {
        let response = ask(&server, route, &asked, &Proof::bearer("nonsense")).await;
        let wanted = match owner {
            Owner::Prover => 400,
            _ if route.starts_with("/ws") => 101,
            _ => 200,
        };
        assert_eq!(response.status, wanted, "{route}");
    }
}
