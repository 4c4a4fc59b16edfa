//! Which of its user's events a client is sent. Pure.

use std::sync::Arc;

use crate::protocol::{Encoding, Event, WantedKinds};

/// The kinds of events that a client asks for, if it names any.
#[derive(Debug)]
pub(super) struct Choice(pub(super) Option<Arc<WantedKinds>>);

impl Choice {
    /// Whether the client is sent this event. Without a choice of its own it is, if it speaks v1. A client of HushNet's
    /// specification knows HushNet's kinds, and in a database without a log whatever its triggers notify.
    #[inline]
    pub(super) fn admits(&self, event: &Event, encoding: Encoding) -> bool {
        match &self.0 {
            Some(kinds) => event.is_of(kinds),
            None => {
                encoding == Encoding::V1
                    || event.kind.is_preset()
                    || event.id.is_none() && event.cursor.is_none()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Kind, Notification, Signal};

    fn event(kind: &str, id: &str, cursor: Option<&str>) -> Event {
        let user = uuid::Uuid::nil();
        let text = format!(r#"{{"type":"{kind}","user_id":"{user}"{id}}}"#);
        let cursor = cursor.map(|cursor| Arc::new(cursor.parse().unwrap()));
        match Signal::new(Notification::parse(&text).unwrap(), None, cursor) {
            Signal::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_choice_only_v1_clients_are_sent_kinds_beside_hushnet_s_where_there_is_a_log() {
        let all = Choice(None);
        let cursor = Some("1-1.5:5:");
        for (event, plain) in [
            (event("pending_session", r#","id":7"#, cursor), true),
            (event("order", r#","id":7"#, cursor), false),
            // Read from the log for one client.
            (event("order", r#","id":7"#, None), false),
            // Only notified, beside a log and without one.
            (event("order", "", cursor), false),
            (event("order", "", None), true),
        ] {
            assert!(all.admits(&event, Encoding::V1));
            for encoding in [Encoding::Plain, Encoding::Envelope] {
                assert_eq!(all.admits(&event, encoding), plain, "{event:?}");
            }
        }
    }

    #[test]
    fn a_client_is_sent_the_kinds_that_it_names() {
        let choice = Choice(Some(Arc::new("order,device".parse().unwrap())));
        for encoding in [Encoding::Plain, Encoding::V1] {
            let admits = |kind: &str| choice.admits(&event(kind, r#","id":7"#, None), encoding);
            assert!(admits("order") && admits("device") && !admits("message"));
        }
        assert_eq!(event("device", "", None).kind, Kind::DEVICE);
    }
}
