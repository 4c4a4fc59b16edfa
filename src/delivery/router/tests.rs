use super::*;
use crate::delivery::Bounds;

fn router() -> (Router, watch::Receiver<Feed>) {
    let replay_buffer = ReplayBuffer::new(
        Bounds {
            bytes_max: 1 << 20,
            age_max: Duration::from_mins(1),
        },
        now(),
    );
    Router::new(Hub::new(16), replay_buffer, Arc::new(Metrics::new()), now())
}

fn now() -> Instant {
    Instant::now()
}

fn cursor(snapshot: &str) -> Cursor {
    format!("1-1.{snapshot}").parse().unwrap()
}

fn durable(router: &Router) -> String {
    router.durable_position().unwrap().to_string()
}

#[test]
fn after_a_loss_the_log_is_read_from_the_last_barrier() {
    let (mut router, _feed) = router();
    router.advance(cursor("5:5:"), now());
    router.complete_barrier(cursor("8:8:"), now());
    router.advance(cursor("20:20:"), now());
    assert_eq!(durable(&router), "1-1.8:8:");
    assert_eq!(router.position(), Some(&cursor("20:20:")));
    router.complete_barrier(cursor("15:15:"), now());
    assert_eq!(durable(&router), "1-1.15:15:");
    assert_eq!(router.position(), Some(&cursor("20:20:")));
}

/// It has given numbers out again that an earlier snapshot had seen.
#[test]
fn after_a_loss_a_database_that_has_gone_back_is_followed() {
    let (mut router, feed) = router();
    let later = now() + SEGMENT_MIN;
    router.advance(cursor("5:5:"), now());
    router.complete_barrier(cursor("8:8:"), later);
    router.advance(cursor("20:20:"), now());
    router.complete_barrier(cursor("9:9:"), later);
    router.away();
    router.go_back_to_durable();
    assert_eq!(router.position(), Some(&cursor("9:9:")));
    router.advance(cursor("12:14:12"), now());
    assert_eq!(router.position(), Some(&cursor("12:14:12")));
    router.complete_barrier(cursor("13:15:13"), later + SEGMENT_MIN);
    assert_eq!(durable(&router), "1-1.13:15:13");
    let given = feed.borrow().cursor().unwrap().to_string();
    assert_eq!(given, "1-1.13:15:13");
}

#[test]
fn a_barrier_that_was_sent_before_the_last_was_completed_changes_nothing() {
    let (mut router, _feed) = router();
    router.advance(cursor("5:5:"), now());
    router.advance(cursor("20:20:"), now());
    router.complete_barrier(cursor("15:15:"), now());
    let event = format!(
        r#"{{"type":"device","user_id":"{}","id":1}}"#,
        uuid::Uuid::nil()
    );
    let event = Notification::parse(&event).unwrap();
    router.route(event);
    for _ in 0..3 {
        // What was read up to 20 was routed before 15 was completed, and 18 has not seen it.
        router.complete_barrier(cursor("18:18:"), now());
    }
    assert_eq!(durable(&router), "1-1.15:15:");
    assert!(router.has_seen(&event), "it may come again from 15 on");
    router.complete_barrier(cursor("25:25:"), now());
    assert!(router.has_seen(&event));
    router.complete_barrier(cursor("30:30:"), now());
    assert!(!router.has_seen(&event));
}

#[test]
fn an_event_is_routed_although_its_id_came_with_another_text() {
    let (mut router, _feed) = router();
    let nobody = uuid::Uuid::new_v4();
    let forged = format!(r#"{{"type":"device","user_id":"{nobody}","id":1}}"#);
    let event = format!(
        r#"{{"type":"device","user_id":"{}","id":1}}"#,
        uuid::Uuid::nil()
    );
    for text in [&forged, &event, &event, &forged] {
        router.route(Notification::parse(text).unwrap());
    }
    assert_eq!(router.take_routed(), 2, "each text once");
}

/// Each is routed, and the connection of one without room learns that it is behind.
#[test]
fn long_events_that_nobody_takes_are_bounded_in_bytes() {
    let (mut router, _feed) = router();
    let user = uuid::Uuid::nil();
    router.hub = Hub::new(8_192);
    let mut subscription = router.hub.subscribe(user);
    let long = "x".repeat(8_000);
    let fit = HELD_EVENTS_BYTES_MAX / (ENCODINGS * 8_100);
    for id in 1..fit + 100 {
        let text = format!(r#"{{"type":"device","user_id":"{user}","id":{id},"x":"{long}"}}"#);
        router.route(Notification::parse(&text).unwrap());
    }
    let (mut whole, mut behind) = (0, 0);
    let receiver = subscription.receiver();
    while let Ok(signal) = receiver.try_recv() {
        match *signal {
            Signal::Behind => behind += 1,
            _ => whole += 1,
        }
    }
    assert!(whole >= fit && behind > 0, "{whole} and {behind}");
    drop(subscription);
    router.hub = Hub::new(16);
    let text = format!(r#"{{"type":"device","user_id":"{user}","id":0,"x":"{long}"}}"#);
    let mut subscription = router.hub.subscribe(user);
    router.route(Notification::parse(&text).unwrap());
    let signal = subscription.receiver().try_recv().unwrap();
    assert!(matches!(*signal, Signal::Event(_)), "there is room again");
}

#[test]
fn clients_are_given_a_barrier_that_has_seen_all_before_the_last_one_given() {
    let (mut router, feed) = router();
    let given = || feed.borrow().cursor().unwrap().to_string();
    let running: Vec<String> = (0..60).map(|n| (1_001 + 2 * n).to_string()).collect();
    let running = running.join(",");
    router.advance(cursor("5:5:"), now());
    let mut time = now();
    let mut complete = |snapshot: &str| {
        time += SEGMENT_MIN;
        let (epoch, snapshot) = (cursor("1:1:").epoch, snapshot.parse().unwrap());
        let barrier = Cursor {
            epoch,
            snapshot,
            sent: None,
        };
        router.complete_barrier(barrier, time);
    };
    complete(&format!("1001:2000:{running}"));
    let first = given();
    assert!(first.starts_with("1-1.1001:1099:1001,"), "{first}");
    // Cut as it is given out, it has not seen all that the first had.
    complete(&format!("1003:3000:{}", &running["1001,".len()..]));
    assert_eq!(given(), first);
    complete("4000:4000:");
    assert_eq!(given(), "1-1.4000:4000:");
}
