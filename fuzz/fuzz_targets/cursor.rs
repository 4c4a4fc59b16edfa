//! A cursor that a client brings: one that is read comes back in the same words and covers itself.

#![no_main]

use hushnet_realtime::protocol::Cursor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(cursor) = text.parse::<Cursor>() else {
        return;
    };
    let written = cursor.to_string();
    assert_eq!(
        written.parse::<Cursor>().ok().as_ref(),
        Some(&cursor),
        "{written}"
    );
    assert!(cursor.snapshot.covers(&cursor.snapshot), "{written}");
    let given = cursor.for_clients();
    assert!(cursor.snapshot.covers(&given.snapshot), "{written}");
});
