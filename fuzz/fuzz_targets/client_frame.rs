//! What a client says: read or refused, and nothing else.

#![no_main]

use hushnet_realtime::protocol::ClientFrame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let names_its_type = serde_json::from_str::<serde_json::Value>(text)
        .is_ok_and(|frame| frame.get("type").is_some_and(serde_json::Value::is_string));
    if ClientFrame::parse(text).is_ok() {
        assert!(names_its_type, "{text}");
    }
});
