//! A token that somebody made up is refused.

#![no_main]

use std::sync::LazyLock;

use hushnet_realtime::config::{AuthMode, Config, JwtAlgorithm};
use hushnet_realtime::identity::Tokens;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static TOKENS: LazyLock<(Runtime, Tokens)> = LazyLock::new(|| {
    let mut settings = Config::default().identity;
    settings.auth = AuthMode::Jwt;
    settings.jwt_algorithm = Some(JwtAlgorithm::Hs256);
    settings.jwt_key = Some(
        "a secret of thirty-two bytes, or more"
            .parse()
            .expect("any text"),
    );
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    (
        runtime,
        Tokens::new(&settings).expect("the settings are whole"),
    )
});

fuzz_target!(|token: &str| {
    let (runtime, tokens) = &*TOKENS;
    assert!(runtime.block_on(tokens.check(token)).is_err(), "{token}");
});
