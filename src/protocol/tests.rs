use super::*;

const USER: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";

#[test]
fn an_event_keeps_the_text_that_the_trigger_wrote() {
    let text =
        format!(r#"{{"type" : "message", "chat_id" : null, "user_id" : "{USER}", "id" : 7}}"#);
    let event = Event::parse(&text).unwrap();
    assert_eq!(event.user_id.to_string(), USER);
    assert_eq!((event.kind, event.id), (EventKind::Message, Some(7)));
    assert_eq!(event.frame(Encoding::Plain).as_text(), text);
}

#[test]
fn the_specification_s_event_has_no_id() {
    let event = Event::parse(&format!(r#"{{"type":"device","user_id":"{USER}"}}"#)).unwrap();
    assert_eq!((event.kind, event.id), (EventKind::Device, None));
}

#[test]
fn the_envelope_wraps_the_same_text_and_is_made_once() {
    let text = format!(r#"{{"type":"session","user_id":"{USER}"}}"#);
    let event = Event::parse(&text).unwrap();
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
        format!(r#"{{"type":"reaction","user_id":"{USER}"}}"#),
        r#"{"type":"message","user_id":"42"}"#.to_owned(),
        format!(r#"{{"type":"message","user_id":"{USER}"}} and more"#),
        format!(r#"["message","{USER}",7,false]"#),
        format!("[{}", "é".repeat(500)),
    ] {
        let error = Event::parse(&payload).unwrap_err();
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
fn channels_are_found_by_the_name_that_triggers_use() {
    for channel in Channel::all() {
        assert_eq!(Channel::from_name(channel.as_str()), Some(channel));
    }
    assert_eq!(Channel::from_name("pending_sessions_channel"), None);
}
