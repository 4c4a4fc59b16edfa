//! A device's signature that somebody made up is refused before any device is looked up.

#![no_main]

use std::sync::LazyLock;

use hushnet_realtime::config::{AuthMode, Config, DatabaseUrl};
use hushnet_realtime::identity::{Authenticator, Credentials, SignedTime};
use hushnet_realtime::store::Log;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static AUTHENTICATOR: LazyLock<(Runtime, Authenticator)> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let mut settings = Config::default().identity;
    settings.auth = AuthMode::Device;
    // Nobody is there: asking it would take longer than the fuzzer waits.
    let nowhere: DatabaseUrl = "postgres://nobody@127.0.0.1:1/none".parse().expect("a URL");
    let log = Log::new(nowhere.options(), 1);
    let authenticator = Authenticator::new(&settings, 1_000, log.devices(), log.known_kinds())
        .expect("the settings are whole");
    drop(_entered);
    (runtime, authenticator)
});

fuzz_target!(|parts: (String, String, String)| {
    let (identity_key, signature, timestamp) = parts;
    let (runtime, authenticator) = &*AUTHENTICATOR;
    let credentials = Credentials::Signature(SignedTime {
        identity_key,
        signature,
        timestamp,
    });
    let identified = runtime.block_on(authenticator.identify(&credentials, None, None));
    assert!(identified.is_err());
});
