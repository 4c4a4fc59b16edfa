//! What comes on a channel: an event's frames are JSON in every encoding, and the envelope holds the same.

#![no_main]

use std::sync::Arc;

use hushnet_realtime::protocol::{Cursor, Encoding, Notification, Signal};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|payload: &str| {
    let Ok(notification) = Notification::parse(payload) else {
        return;
    };
    let cursor: Cursor = "1-1.10:20:12".parse().expect("it is one");
    let Signal::Event(event) = Signal::new(notification, None, Some(Arc::new(cursor))) else {
        return;
    };
    let Ok(written) = serde_json::from_str::<Value>(payload) else {
        // A number too large, or too deep: read as far as routing needs it, and passed on as it is.
        return;
    };
    let read = |encoding| -> Value {
        let frame = event.frame(encoding);
        serde_json::from_str(frame.as_text()).unwrap_or_else(|e| panic!("{e}: {}", frame.as_text()))
    };
    assert_eq!(read(Encoding::Plain), written);
    assert_eq!(read(Encoding::Envelope)["payload"], written);
    assert_eq!(read(Encoding::V1)["cursor"], "1-1.10:20:12");
    assert_eq!(read(Encoding::V1)["user_id"], written["user_id"]);
});
