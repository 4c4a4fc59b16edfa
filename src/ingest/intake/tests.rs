use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::delivery::{Bounds, Hub, ReplayBuffer};
use crate::protocol::{Channels, Layout, Op};
use crate::store::{Body, ChunkRow, Parts};

fn cursor(snapshot: &str) -> Cursor {
    format!("1-1.{snapshot}").parse().unwrap()
}

fn payload(id: i64) -> String {
    let user = Uuid::nil();
    format!(r#"{{"type":"device","user_id":"{user}","id":{id}}}"#)
}

fn row(id: i64, payload: &str) -> ChunkRow {
    ChunkRow {
        id,
        xid: None,
        body: Body::Json(payload.to_owned()),
    }
}

fn has_seen(intake: &Intake, id: i64) -> bool {
    let payload = payload(id);
    intake
        .router
        .has_seen(&Notification::parse(&payload).unwrap())
}

fn by_reference(id: i64) -> String {
    let whole = payload(id);
    let open = whole.strip_suffix('}').unwrap();
    format!(r#"{open},"by_reference":true}}"#)
}

fn barrier(snapshot: &str, ingest: Ingest) -> ControlMessage {
    ControlMessage::Barrier(BarrierState {
        cursor: cursor(snapshot),
        ingest,
        silent: ingest == Ingest::Tail,
        queue_usage: 0.0,
        transaction: Some(9),
    })
}

/// Connected to a database with this way of ingest, at snapshot 5.
fn intake(ingest: Ingest, now: Instant) -> Intake {
    let bounds = Bounds {
        bytes_max: 1 << 20,
        age_max: Duration::from_mins(1),
    };
    let metrics = Arc::new(Metrics::new());
    metrics.kinds.set_logged(["message", "session", "device"]);
    let buffer = ReplayBuffer::new(bounds, now);
    let (router, _) = Router::new(Hub::new(16), buffer, Arc::clone(&metrics), now);
    let mut intake = Intake::new(router, metrics, now);
    intake.reconnected(ingest, now);
    intake.begin(cursor("5:5:"), now);
    intake
}

/// Adaptive and asleep, so that each event notifies.
fn asleep(now: Instant) -> Intake {
    let mut intake = intake(Ingest::Adaptive, now);
    intake.controlled(barrier("6:6:", Ingest::Adaptive), now);
    for _ in 0..2 {
        let completed = intake.begin_read(now);
        intake.read_to(cursor("9:9:"), completed, now);
    }
    assert_eq!(intake.next_read(), None);
    intake
}

/// For notifications that must not depend on the time.
fn no_clock() -> Instant {
    unreachable!("the clock is not asked")
}

fn notified(intake: &mut Intake, payload: &str, now: Instant) -> Next {
    intake.notified(Channel::MESSAGES, payload, || now)
}

#[test]
fn with_notify_an_event_is_routed_as_it_comes() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let next = intake.notified(Channel::MESSAGES, &payload(1), no_clock);
    assert_eq!(next, Next::Wait);
    assert!(has_seen(&intake, 1));
}

#[test]
fn with_tail_a_notification_waits_for_the_read_that_comes_anyway() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Tail, now);
    assert_eq!(notified(&mut intake, &payload(1), now), Next::Wait);
    assert!(!has_seen(&intake, 1), "it could overtake a silent one");
    assert!(intake.next_read().is_some());
}

#[test]
fn asleep_a_notification_of_something_new_asks_for_a_read() {
    let now = Instant::now();
    let mut intake = asleep(now);
    assert_eq!(notified(&mut intake, &payload(1), now), Next::ReadLog);
    assert!(!has_seen(&intake, 1));
    intake.read_all(&[row(1, &payload(1))]);
    assert_eq!(notified(&mut intake, &payload(1), now), Next::Wait);
}

#[test]
fn an_event_by_reference_asks_for_a_read_whatever_was_notified_with_its_id() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let text = by_reference(1);
    intake.notified(Channel::MESSAGES, &payload(1), no_clock);
    let next = notified(&mut intake, &text, Instant::now());
    assert_eq!(next, Next::ReadLog);
}

#[test]
fn where_there_is_a_log_an_event_without_an_id_is_dropped() {
    let now = Instant::now();
    let text = r#"{"type":"device","user_id":"00000000-0000-0000-0000-000000000000"}"#;
    for ingest in [Ingest::Notify, Ingest::Adaptive] {
        let mut intake = intake(ingest, now);
        assert_eq!(notified(&mut intake, text, now), Next::Wait);
        assert_eq!(intake.router.take_routed(), 0);
    }
    let mut without_log = intake(Ingest::Notify, now);
    without_log.restart(ResetReason::NoLog, None, now);
    assert_eq!(notified(&mut without_log, text, now), Next::Wait);
    assert_eq!(without_log.router.take_routed(), 1);
}

fn order(members: &str) -> String {
    format!(r#"{{"type":"order","user_id":"{}"{members}}}"#, Uuid::nil())
}

#[test]
fn an_event_of_an_unknown_kind_asks_for_a_read_which_stops_before_it() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let text = order(r#","id":2"#);
    assert_eq!(notified(&mut intake, &text, Instant::now()), Next::ReadLog);
    let rows = [row(1, &payload(1)), row(2, &text), row(3, &payload(3))];
    let unknown = intake.read(&rows);
    assert_eq!(unknown.first().map(|row| row.id), Some(2));
    assert_eq!(intake.router.take_routed(), 1);
    intake.metrics.kinds.set_logged(["order"]);
    assert!(intake.read(unknown).is_empty());
    assert_eq!(intake.router.take_routed(), 2);
    // From now on it is known.
    let next = order(r#","id":4"#);
    let next = intake.notified(Channel::MESSAGES, &next, no_clock);
    assert_eq!((next, intake.router.take_routed()), (Next::Wait, 1));
}

/// An event of source 16 as the log has it from migration 9 on.
fn in_parts(id: i64, fields: &[Option<&str>]) -> ChunkRow {
    let parts = Parts {
        source: 16,
        op: Op::Insert,
        user: Uuid::nil().into(),
        fields: fields.iter().copied().collect(),
        asynchronous: false,
        truncated: false,
        left: None,
        body: None,
    };
    ChunkRow {
        id,
        xid: None,
        body: Body::Parts(parts),
    }
}

fn know_source(intake: &Intake, kind: &str, pieces: &[&str]) {
    let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    let layout = Layout::parse(&pieces);
    let kinds = &intake.metrics.kinds;
    kinds.set_logged(["message", "session", "device", kind]);
    assert!(kinds.set_sources([(16, kind, layout)]).is_empty());
}

const ORDER: [&str; 7] = [
    r#"{"type":"order","user_id":"#,
    "user",
    r#","total":"#,
    "1",
    r#","id":"#,
    "id",
    "}",
];

#[test]
fn an_event_of_an_unknown_source_stops_the_read_until_the_source_is_known() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let total = [Some("12")];
    let rows = [
        row(1, &payload(1)),
        in_parts(2, &total),
        row(3, &payload(3)),
    ];
    // A source is known by the layout that the event was written for.
    for pieces in [None, Some(&["{}"][..])] {
        if let Some(pieces) = pieces {
            know_source(&intake, "order", pieces);
        }
        let unknown = intake.read(&rows);
        assert_eq!(unknown.first().map(|row| row.id), Some(2));
    }
    intake.router.take_routed();
    know_source(&intake, "order", &ORDER);
    assert!(intake.read(&rows[1..]).is_empty());
    assert_eq!(intake.router.take_routed(), 2);
    // It is the event that was notified.
    let text = order(r#","total":12,"id":2"#);
    assert!(intake.router.has_seen(&Notification::parse(&text).unwrap()));
    let text = order(r#","total":13,"id":2"#);
    assert!(!intake.router.has_seen(&Notification::parse(&text).unwrap()));
}

#[test]
fn an_event_of_a_source_that_stays_unknown_is_skipped() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let rows = [in_parts(1, &[]), row(2, &payload(2))];
    assert_eq!(intake.read(&rows).len(), 2);
    intake.read_all(&rows);
    assert_eq!(intake.router.take_routed(), 1);
}

#[test]
fn a_kind_that_no_source_has_is_handed_on_all_the_same() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let rows = [row(1, &order(r#","id":1"#)), row(2, &payload(2))];
    assert_eq!(intake.read(&rows).len(), 2);
    intake.read_all(&rows);
    assert_eq!(intake.router.take_routed(), 2);
}

#[test]
fn a_kind_that_only_the_application_notifies_is_handed_on_where_notifications_are_trusted() {
    let now = Instant::now();
    for (ingest, routed) in [(Ingest::Notify, 1), (Ingest::Adaptive, 0)] {
        let mut intake = intake(ingest, now);
        assert_eq!(notified(&mut intake, &order(""), now), Next::Wait);
        assert_eq!(intake.router.take_routed(), routed);
    }
}

#[test]
fn a_notified_revocation_is_not_routed_and_asks_for_a_read() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let user = Uuid::nil();
    let text = format!(r#"{{"type":"revocation","user_id":"{user}","device_id":null,"id":1}}"#);
    let revocations = Channels::default().find("realtime_revocations");
    for channel in [revocations.unwrap(), Channel::MESSAGES] {
        let next = intake.notified(channel, &text, Instant::now);
        assert_eq!(next, Next::ReadLog);
    }
    assert_eq!(intake.router.take_routed(), 0);
}

#[test]
fn notifications_alone_ask_for_at_most_one_read_each_5_ms() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Notify, now);
    assert!(
        intake.rung_read() <= now,
        "the first read waits for nothing"
    );
    intake.read_to(cursor("9:9:"), None, now);
    assert_eq!(intake.rung_read(), now + Duration::from_millis(5));
}

#[test]
fn a_malformed_notification_or_row_is_skipped() {
    let mut intake = intake(Ingest::Notify, Instant::now());
    let next = intake.notified(Channel::MESSAGES, "{", no_clock);
    assert_eq!(next, Next::Wait);
    intake.read_all(&[row(1, "{"), row(2, &payload(2))]);
    assert!(!has_seen(&intake, 1) && has_seen(&intake, 2));
}

#[test]
fn with_notify_a_returned_barrier_is_completed() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Notify, now);
    let next = intake.controlled(barrier("8:8:", Ingest::Notify), now);
    assert_eq!(next, Next::Wait);
    assert_eq!(intake.durable_position(), Some(&cursor("8:8:")));
    assert_eq!(intake.begin_read(now), None);
}

#[test]
fn a_barrier_that_may_have_seen_silent_events_is_completed_by_the_next_read() {
    let now = Instant::now();
    let mut intake = asleep(now);
    let before = intake.durable_position().cloned();
    let next = intake.controlled(barrier("12:12:", Ingest::Adaptive), now);
    assert_eq!(next, Next::ReadLog);
    assert_eq!(intake.durable_position().cloned(), before);
    let completed = intake.begin_read(now);
    let from = intake.read_to(cursor("20:20:"), completed, now);
    assert_eq!(from.to_string(), "20:20:");
    assert_eq!(intake.durable_position(), Some(&cursor("12:12:")));
    assert_eq!(intake.position(), Some(&cursor("20:20:")));
}

#[test]
fn a_barrier_that_returns_during_a_read_waits_for_the_next_read() {
    let now = Instant::now();
    let mut intake = asleep(now);
    let before = intake.durable_position().cloned();
    let completed = intake.begin_read(now);
    intake.controlled(barrier("12:12:", Ingest::Adaptive), now);
    intake.read_to(cursor("11:11:"), completed, now);
    assert_eq!(intake.durable_position().cloned(), before);
    let completed = intake.begin_read(now);
    intake.read_to(cursor("13:13:"), completed, now);
    assert_eq!(intake.durable_position(), Some(&cursor("12:12:")));
}

#[test]
fn a_new_connection_forgets_the_barriers_of_the_one_before() {
    let now = Instant::now();
    let mut intake = asleep(now);
    intake.controlled(barrier("12:12:", Ingest::Adaptive), now);
    intake.reconnected(Ingest::Adaptive, now);
    assert_eq!(intake.begin_read(now), None);
}

#[test]
fn a_filling_notification_queue_asks_for_the_wake_lock() {
    let start = Instant::now();
    let mut intake = asleep(start);
    let wanted = intake.wants().wake_lock();
    for (seconds, queue_usage, expected) in [(1, 0.49, false), (2, 0.5, true)] {
        let message = ControlMessage::Barrier(BarrierState {
            cursor: cursor("12:12:"),
            ingest: Ingest::Adaptive,
            silent: false,
            queue_usage,
            transaction: Some(9),
        });
        intake.controlled(message, start + Duration::from_secs(seconds));
        assert_eq!(*wanted.borrow(), expected, "{queue_usage}");
    }
}

#[test]
fn a_read_that_meets_an_emptied_table_resets_the_clients_once() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Notify, now);
    assert_eq!(
        intake.controlled(ControlMessage::Changed, now),
        Next::ReadLog
    );
    let truncation = r#"{"type" : "truncated", "table" : "messages", "id" : 2}"#;
    intake.read_all(&[row(1, &payload(1)), row(2, truncation), row(3, &payload(3))]);
    intake.read_to(cursor("9:9:"), None, now);
    assert!(has_seen(&intake, 1) && has_seen(&intake, 3));
    assert_eq!(intake.durable_position(), Some(&cursor("9:9:")));
    intake.read_to(cursor("10:10:"), None, now);
    assert_eq!(intake.durable_position(), Some(&cursor("9:9:")));
    assert_eq!(intake.position(), Some(&cursor("10:10:")));
}

#[test]
fn an_announcement_of_another_server_starts_the_reading() {
    let now = Instant::now();
    let mut intake = asleep(now);
    assert_eq!(intake.controlled(ControlMessage::Awake, now), Next::Wait);
    assert!(intake.next_read().is_some());
    assert!(!*intake.wants().wake_lock().borrow());
}

fn without_id() -> String {
    r#"{"type":"device","user_id":"00000000-0000-0000-0000-000000000000"}"#.to_owned()
}

fn bare_barrier(has_log: bool) -> ControlMessage {
    ControlMessage::BareBarrier(BareBarrierState {
        snapshot: "6:6:".parse().unwrap(),
        has_log,
    })
}

#[test]
fn when_the_log_has_gone_what_hushnet_s_triggers_have_notified_is_routed() {
    let now = Instant::now();
    for ingest in [Ingest::Notify, Ingest::Tail] {
        let mut intake = intake(ingest, now);
        notified(&mut intake, &without_id(), now);
        intake.controlled(barrier("6:6:", ingest), now);
        for _ in 0..2 {
            notified(&mut intake, &without_id(), now);
        }
        assert_eq!(intake.router.take_routed(), 0);
        assert_eq!(intake.controlled(bare_barrier(false), now), Next::Wait);
        assert_eq!(intake.router.take_routed(), 2, "those since the barrier");
        assert_eq!(intake.position(), None);
        assert_eq!(intake.next_read(), None, "there is nothing to read");
        notified(&mut intake, &without_id(), now);
        assert_eq!(intake.router.take_routed(), 1);
        let next = notified(&mut intake, &by_reference(1), now);
        assert_eq!(next, Next::Wait);
    }
}

#[test]
fn a_log_that_comes_is_joined_from_the_last_barrier_without_it() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Notify, now);
    intake.controlled(bare_barrier(false), now);
    assert_eq!(intake.without_log(), Some(&"6:6:".parse().unwrap()));
    assert_eq!(intake.controlled(bare_barrier(true), now), Next::Join);
    let with_log = barrier("9:9:", Ingest::Notify);
    assert_eq!(intake.controlled(with_log, now), Next::Join);
    intake.read_to(cursor("9:9:"), None, now);
    assert_eq!(intake.position(), Some(&cursor("9:9:")));
    intake.away();
    assert_eq!(intake.without_log(), None, "there is a gap");
}

/// As it is notified by a transaction with `synchronous_commit = off`.
fn asynchronous(id: i64) -> String {
    let whole = payload(id);
    let open = whole.strip_suffix('}').unwrap();
    format!(r#"{open}, "asynchronous" : true, "xid" : 7}}"#)
}

#[test]
fn an_asynchronous_event_waits_until_it_is_on_disk() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Notify, now);
    assert_eq!(notified(&mut intake, &asynchronous(1), now), Next::Wait);
    let flushing = intake.awaits_disk().unwrap();
    assert_eq!(notified(&mut intake, &asynchronous(2), now), Next::Wait);
    assert!(!has_seen(&intake, 1));
    intake.on_disk(flushing);
    assert!(has_seen(&intake, 1) && !has_seen(&intake, 2));
    // It has waited for the disk, and for everything before it.
    assert_eq!(notified(&mut intake, &payload(3), now), Next::Wait);
    assert!(has_seen(&intake, 2) && has_seen(&intake, 3));
    assert_eq!(intake.awaits_disk(), None);
    notified(&mut intake, &asynchronous(4), now);
    intake.controlled(barrier("6:6:", Ingest::Notify), now);
    assert!(has_seen(&intake, 4));
    notified(&mut intake, &asynchronous(4), now);
    assert_eq!(intake.awaits_disk(), None);
}

#[test]
fn what_waits_for_the_disk_at_a_loss_is_read_from_the_log() {
    let now = Instant::now();
    let mut intake = intake(Ingest::Notify, now);
    notified(&mut intake, &asynchronous(1), now);
    intake.reconnected(Ingest::Notify, now);
    intake.on_disk(u64::MAX);
    assert!(!has_seen(&intake, 1));
    notified(&mut intake, &asynchronous(1), now);
    intake.read_to(cursor("9:9:"), None, now);
    assert_eq!(intake.awaits_disk(), None);
}
