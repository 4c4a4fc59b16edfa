use std::sync::Arc;

use uuid::Uuid;

use super::*;

const USER: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";

fn event(text: &str) -> Event {
    match Signal::new(Notification::parse(text).unwrap(), None, None) {
        Signal::Event(event) => event,
        other => panic!("{other:?} is no event"),
    }
}

fn revocation(text: &str) -> Revocation {
    match Signal::new(Notification::parse(text).unwrap(), None, None) {
        Signal::Revocation(revocation) => revocation,
        other => panic!("{other:?} is no revocation"),
    }
}

#[test]
fn an_event_keeps_the_text_that_the_trigger_wrote() {
    let text =
        format!(r#"{{"type" : "message", "chat_id" : null, "user_id" : "{USER}", "id" : 7}}"#);
    let event = event(&text);
    assert_eq!(Notification::parse(&text).unwrap().user.to_string(), USER);
    assert_eq!((event.kind, event.id), (Kind::MESSAGE, Some(7)));
    assert_eq!(event.frame(Encoding::Plain).as_text(), text);
}

#[test]
fn the_specification_s_event_has_no_id() {
    let event = event(&format!(r#"{{"type":"device","user_id":"{USER}"}}"#));
    assert_eq!((event.kind, event.id), (Kind::DEVICE, None));
}

#[test]
fn the_envelope_wraps_the_same_text_and_is_made_once() {
    let text = format!(r#"{{"type":"session","user_id":"{USER}"}}"#);
    let event = event(&text);
    let first = event.frame(Encoding::Envelope);
    assert_eq!(
        first.as_text(),
        format!(r#"{{"event_type":"session","payload":{text}}}"#)
    );
    let second = event.frame(Encoding::Envelope);
    assert!(std::ptr::eq(first.as_bytes(), second.as_bytes()));
}

#[test]
fn what_is_no_event_is_refused_with_its_beginning() {
    for payload in [
        "not json".to_owned(),
        "{}".to_owned(),
        format!(r#"{{"type":"message","chat_id":"{USER}"}}"#),
        format!(r#"{{"type":"hello","user_id":"{USER}"}}"#),
        format!(r#"{{"type":"h\u0065llo","user_id":"{USER}"}}"#),
        format!(r#"{{"type":"or\u0064er","user_id":"{USER}"}}"#),
        format!(r#"{{"type":"","user_id":"{USER}"}}"#),
        format!(
            r#"{{"type":"{}","user_id":"{USER}"}}"#,
            "x".repeat(KIND_BYTES_MAX + 1)
        ),
        r#"{"type":"message","user_id":"42"}"#.to_owned(),
        format!(r#"{{"type":"message","user_id":"{USER}"}} and more"#),
        format!(r#"["message","{USER}",7,false]"#),
        format!("[{}", "é".repeat(500)),
    ] {
        let error = Notification::parse(&payload).unwrap_err();
        let logged: String = payload.chars().take(200).collect();
        assert!(
            error.to_string().ends_with(&format!("; payload: {logged}")),
            "{error}"
        );
    }
}

#[test]
fn clients_may_say_ping_and_are_told_of_anything_else() {
    assert_eq!(
        ClientFrame::parse(r#"{"type":"ping"}"#).unwrap(),
        ClientFrame::Ping
    );
    assert_eq!(
        ClientFrame::parse(r#"{"type":"ping","n":1}"#).unwrap(),
        ClientFrame::Ping
    );
    assert_eq!(
        ClientFrame::parse(r#"{"type":"dance"}"#).unwrap(),
        ClientFrame::Unknown
    );
    for malformed in ["", "ping", "[]", r#"["ping"]"#, "{}", r#"{"type":7}"#] {
        assert!(ClientFrame::parse(malformed).is_err(), "{malformed}");
    }
}

#[test]
fn an_event_of_any_kind_is_handed_on_as_it_is() {
    for kind in ["pending_session", "order", "Заказ:v2", "other kinds"] {
        let text = format!(r#"{{"type":"{kind}","user_id":"{USER}","row":{{"type":"hello"}}}}"#);
        let event = event(&text);
        assert_eq!(event.frame(Encoding::Plain).as_text(), text);
        assert_eq!(
            event.frame(Encoding::Envelope).as_text(),
            format!(r#"{{"event_type":"{kind}","payload":{text}}}"#)
        );
        let wanted = |kinds: &str| event.is_of(&kinds.parse().unwrap());
        assert!(wanted(kind) && !wanted("message"));
    }
}

#[test]
fn a_revocation_names_its_device_or_the_whole_user() {
    let (device, other) = (Uuid::new_v4(), Uuid::new_v4());
    let of = |device: &str| {
        let text = format!(r#"{{"type":"revocation","user_id":"{USER}","device_id":{device}}}"#);
        revocation(&text)
    };
    let one = of(&format!(r#""{device}""#));
    assert_eq!(one.device_id, Some(device));
    assert!(one.concerns(Some(device)) && !one.concerns(Some(other)) && !one.concerns(None));
    // A device that cannot be read closes every connection: one too many is better than one too few.
    for user in [of("null"), of("7"), of(r#""no uuid""#)] {
        assert_eq!(user.device_id, None);
        assert!(user.concerns(Some(device)) && user.concerns(None));
    }
    assert!(Signal::Revocation(one).frame(Encoding::V1).is_none());
}

#[test]
fn a_reset_is_a_frame_of_v1_clients_only() {
    let cursor: Cursor = "1-1.10:20:12".parse().unwrap();
    let sequence = Sequence::after(None);
    let reset = Reset::new(ResetReason::Retention, sequence, Some(Arc::new(cursor)));
    let reset = Signal::Reset(reset);
    assert_eq!(reset.sequence().map(Sequence::get), Some(1));
    assert_eq!(
        reset.frame(Encoding::V1).unwrap().as_text(),
        r#"{"type":"reset","reason":"retention","cursor":"1-1.10:20:12"}"#
    );
    assert!(reset.frame(Encoding::Plain).is_none() && reset.frame(Encoding::Envelope).is_none());
    assert!(Signal::Wake.frame(Encoding::V1).is_none() && Signal::Wake.sequence().is_none());
}

#[test]
fn every_signal_but_a_wake_up_has_its_sequence_number_and_its_cursor() {
    let cursor: Arc<Cursor> = Arc::new("1-1.10:20:12".parse().unwrap());
    let sequence = Sequence::new(7);
    let signal = |kind: &str| {
        let text = format!(r#"{{"type":"{kind}","user_id":"{USER}"}}"#);
        let notification = Notification::parse(&text).unwrap();
        Signal::new(notification, sequence, Some(Arc::clone(&cursor)))
    };
    let given = Some(Arc::clone(&cursor));
    let reset = Reset::new(ResetReason::Retention, sequence.unwrap(), given);
    for signal in [signal("device"), signal("revocation"), Signal::Reset(reset)] {
        assert_eq!(signal.sequence(), sequence, "{signal:?}");
        assert_eq!(signal.cursor(), Some(&cursor), "{signal:?}");
    }
    assert_eq!(Signal::Wake.sequence(), None);
    assert_eq!(Signal::Wake.cursor(), None);
}

/// The largest event of the triggers, with the longest cursor that clients are given, after it was encoded in all
/// ways.
#[test]
fn an_event_holds_no_more_than_its_bound() {
    let running: Vec<_> = (1_000_000..1_000_030).map(|xid| xid.to_string()).collect();
    let snapshot = format!("1000000:10000000:{}", running.join(","));
    let cursor = format!("{}-{}.{snapshot}", u64::MAX, u32::MAX);
    let cursor: Cursor = cursor.parse().unwrap();
    assert_eq!(cursor.for_clients(), cursor);
    let text = format!(r#"{{"x":"{}"}}"#, "x".repeat(EVENT_BYTES_MAX - 8));
    assert_eq!(text.len(), EVENT_BYTES_MAX);
    let event = Event::new(
        Kind::SESSION,
        None,
        None,
        text.strip_suffix('}').unwrap(),
        None,
        Some(Arc::new(cursor)),
    );
    let allocation = |bytes: usize| 2 * size_of::<usize>() + bytes;
    let frames = [Encoding::Plain, Encoding::Envelope, Encoding::V1]
        .map(|encoding| allocation(event.frame(encoding).as_bytes().len()));
    let held = allocation(size_of::<Signal>()) + frames.iter().sum::<usize>();
    let bound = Signal::HELD_BYTES_MAX;
    assert!((held..held + 64).contains(&bound), "{held} of {bound}");
}

#[test]
fn a_v1_client_gets_an_event_with_the_cursor_that_it_may_keep() {
    let text = format!(r#"{{"type":"session","user_id":"{USER}","id":7}}"#);
    let cursor: Cursor = "1-1.10:20:12".parse().unwrap();
    let notification = Notification::parse(&text).unwrap();
    let signal = Signal::new(notification, None, Some(Arc::new(cursor)));
    assert_eq!(
        signal.frame(Encoding::V1).unwrap().as_text(),
        format!(
            r#"{}, "cursor" : "1-1.10:20:12"}}"#,
            text.strip_suffix('}').unwrap()
        )
    );
    let without_log = Signal::new(notification, None, None);
    assert_eq!(without_log.frame(Encoding::V1).unwrap().as_text(), text);
}
