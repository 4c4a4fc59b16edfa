//! The replay buffer by itself.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::*;
use crate::protocol::{Cursor, Event, Notification, Sequence, Signal, Snapshot};
use crate::store::PAGE_BYTES_MAX;

const AGE: Duration = Duration::from_mins(1);

fn buffer(bytes_max: usize) -> ReplayBuffer {
    let bounds = Bounds {
        bytes_max,
        age_max: AGE,
    };
    ReplayBuffer::new(bounds, Instant::now())
}

fn push(buffer: &ReplayBuffer, user_id: Uuid, id: i64) {
    let text = format!(r#"{{"type":"device","user_id":"{user_id}","id":{id}}}"#);
    let _ = buffer.push(&Notification::parse(&text).unwrap());
}

fn barrier(buffer: &ReplayBuffer, snapshot: &str) {
    let _ = buffer.begin_segment(&format!("1-1.{snapshot}").parse().unwrap(), Instant::now());
}

/// A cursor as clients are given it over a WebSocket.
fn given(snapshot: &str) -> Cursor {
    format!("1-1.{snapshot}~").parse().unwrap()
}

fn snapshot(text: &str) -> Snapshot {
    text.parse().unwrap()
}

fn events(found: &Found) -> impl Iterator<Item = &Event> {
    found.signals.iter().filter_map(|signal| match &**signal {
        Signal::Event(event) => Some(event),
        _ => None,
    })
}

/// The sequence number of the nth signal.
fn nth(number: u64) -> Option<Sequence> {
    Sequence::new(number)
}

fn ids(found: &Found) -> Vec<i64> {
    events(found).filter_map(|event| event.id).collect()
}

/// Users in turn, ids from 1, a barrier after every third event with the snapshot `id+1:id+1:`.
fn filled(buffer: &ReplayBuffer, users: &[Uuid; 2], events: i64) {
    for id in 1..=events {
        push(buffer, users[usize::from(id % 2 == 0)], id);
        if id % 3 == 0 {
            barrier(buffer, &format!("{0}:{0}:", id + 1));
        }
    }
}

#[test]
fn a_reader_gets_its_own_events_from_one_barrier_before_its_cursor() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    // The cursor of the barrier after 9: what was routed after the one after 6 is sent.
    let since = |user, cursor| buffer.since(user, &given(cursor));
    assert_eq!(
        ids(&since(users[0], "10:10:").unwrap()),
        [7, 9, 11, 13, 15, 17, 19]
    );
    assert_eq!(ids(&since(users[1], "19:19:").unwrap()), [16, 18, 20]);
    assert_eq!(since(Uuid::new_v4(), "19:19:").unwrap().signals.len(), 0);
}

#[test]
fn a_cursor_from_elsewhere_is_served_only_when_the_buffer_is_sure() {
    let buffer = buffer(1 << 20);
    let user = Uuid::new_v4();
    let since = |cursor| buffer.since(user, &given(cursor));
    for barrier_at in ["4:4:", "8:8:", "12:12:", "16:16:"] {
        barrier(&buffer, barrier_at);
    }
    // Nothing came for the user: whatever the cursor has seen, it has missed nothing.
    assert_eq!(since("10:10:").unwrap().signals.len(), 0);
    // What comes after a barrier that covers the cursor is surely new to it.
    push(&buffer, user, 1);
    assert_eq!(ids(&since("10:10:").unwrap()), [1]);
    // One that no barrier has reached may be of a future that has not been.
    assert!(since("17:17:").is_none());
    // What came between the cursor's neighbours may be old or new.
    barrier(&buffer, "20:20:");
    barrier(&buffer, "24:24:");
    assert!(since("17:17:").is_none());
    barrier(&buffer, "28:28:");
    assert_eq!(since("26:26:").unwrap().signals.len(), 0);
}

#[test]
fn a_cursor_from_before_the_first_barrier_is_not_known() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    assert!(buffer.since(users[0], &given("2:2:")).is_none());
    // One that had not seen a transaction which the barrier had is as old as that transaction.
    assert!(buffer.since(users[0], &given("2:30:2")).is_none());
    assert!(buffer.since(users[0], &given("4:4:")).is_some());
}

#[test]
fn barriers_that_were_given_out_in_the_same_words_are_told_apart_by_none() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    let running: Vec<String> = (0..50).map(|n| (1_001 + 2 * n).to_string()).collect();
    let running = running.join(",");
    let long = |xmax| Cursor {
        snapshot: snapshot(&format!("1001:{xmax}:{running}")),
        ..super::tests::given("1:1:")
    };
    let given = |xmax: u64| long(xmax).for_clients();
    assert_ne!(given(2_000).snapshot, long(2_000).snapshot);
    assert_eq!(given(2_000), given(2_030));
    barrier(&buffer, "900:900:");
    for id in [2_000, 2_010, 2_020] {
        barrier(&buffer, &format!("1001:{id}:{running}"));
        push(&buffer, user, id);
    }
    // It was the first of the three, for all that is known.
    let since = |cursor| buffer.since(user, &cursor).map(|found| ids(&found));
    assert_eq!(since(given(2_030)).unwrap(), [2_000, 2_010, 2_020]);
}

#[test]
fn what_comes_after_an_event_is_known_by_its_sequence_number() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    for sequence in 0..=20 {
        let expected: Vec<i64> = (1..=20)
            .filter(|id| id % 2 == 1 && *id > i64::try_from(sequence).unwrap())
            .collect();
        assert_eq!(
            ids(&buffer.after(users[0], nth(sequence)).unwrap()),
            expected,
            "{sequence}"
        );
    }
    assert_eq!(buffer.last_sequence(), nth(20));
}

#[test]
fn what_is_found_comes_in_pages() {
    let (buffer, user) = (buffer(1 << 24), Uuid::new_v4());
    for id in 1..=2_500 {
        push(&buffer, user, id);
    }
    let (mut all, mut sequence) = (Vec::new(), None);
    for (more, left) in [(true, 2_500), (true, 1_500), (false, 500)] {
        let found = buffer.after(user, sequence).unwrap();
        assert_eq!((found.more, found.total), (more, left));
        sequence = found.signals.last().unwrap().sequence();
        all.extend(ids(&found));
    }
    assert_eq!(all, (1..=2_500).collect::<Vec<_>>());
}

#[test]
fn a_page_is_bounded_in_bytes_and_never_empty() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    let bytes = PAGE_BYTES_MAX * 2 / 3;
    for id in 1..=3 {
        let text = "x".repeat(bytes);
        let json = format!(r#"{{"type":"device","user_id":"{user}","id":{id},"x":"{text}"}}"#);
        let _ = buffer.push(&Notification::parse(&json).unwrap());
    }
    let found = buffer.after(user, None).unwrap();
    assert_eq!((found.signals.len(), found.more), (2, true));
    assert_eq!(ids(&buffer.after(user, nth(2)).unwrap()), [3]);
}

#[test]
fn the_buffer_is_bounded_and_says_what_it_has_forgotten() {
    const BYTES_MAX: usize = 65_536;
    let (buffer, users) = (buffer(BYTES_MAX), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 3_000);
    let (held, forgotten) = {
        let contents = buffer.read();
        let bytes = contents.full_bytes + contents.open.bytes();
        (bytes, contents.forgotten_through)
    };
    assert!((BYTES_MAX / 2..=BYTES_MAX).contains(&held), "{held}");
    assert!(buffer.after(users[0], nth(forgotten - 1)).is_none());
    let left = buffer.after(users[0], nth(forgotten)).unwrap().total;
    assert_eq!(left, (3_000 - forgotten) / 2);
    assert!((100..1_000).contains(&left), "{left}");
    assert!(buffer.since(users[0], &given("7:7:")).is_none());
    assert_eq!(
        ids(&buffer.after(users[0], nth(2_996)).unwrap()),
        [2_997, 2_999]
    );
    // Every cursor is served whole, or not at all.
    for cursor in (4..=3_001).step_by(3) {
        let found = buffer.since(users[0], &given(&format!("{cursor}:{cursor}:")));
        let first = u64::try_from(cursor).unwrap() - 3;
        assert_eq!(found.is_some(), first > forgotten, "{cursor}");
        if let Some(found) = found {
            assert_eq!(found.total, (3_000 - first) / 2 + first % 2, "{cursor}");
        }
    }
}

#[test]
fn an_interval_that_is_too_large_alone_is_not_whole() {
    const BYTES_MAX: usize = 65_536;
    let (buffer, user) = (buffer(BYTES_MAX), Uuid::new_v4());
    barrier(&buffer, "1:1:");
    barrier(&buffer, "2:2:");
    for id in 1..=3_000 {
        push(&buffer, user, id);
    }
    assert!(buffer.since(user, &given("2:2:")).is_none());
    assert_eq!(ids(&buffer.after(user, nth(2_999)).unwrap()), [3_000]);
    barrier(&buffer, "3001:3001:");
    // The segment before this barrier is not whole, so its cursor has no place yet.
    assert!(buffer.since(user, &given("3001:3001:")).is_none());
    push(&buffer, user, 3_001);
    barrier(&buffer, "3002:3002:");
    assert_eq!(
        ids(&buffer.since(user, &given("3002:3002:")).unwrap()),
        [3_001]
    );
}

#[test]
fn a_text_longer_than_a_block_has_one_of_its_own() {
    const BYTES_MAX: usize = 65_536;
    let (buffer, user) = (buffer(BYTES_MAX), Uuid::new_v4());
    let long = "x".repeat(BYTES_MAX / 4);
    for id in 1..=20 {
        push(&buffer, user, id);
        let json = format!(
            r#"{{"type":"device","user_id":"{user}","id":{},"x":"{long}"}}"#,
            -id
        );
        let _ = buffer.push(&Notification::parse(&json).unwrap());
    }
    assert_eq!(ids(&buffer.after(user, nth(38)).unwrap()), [20, -20]);
    let contents = buffer.read();
    assert!(contents.full_bytes <= BYTES_MAX, "{}", contents.full_bytes);
    assert!(contents.forgotten_through > 30);
}

#[test]
fn an_event_comes_with_the_barrier_that_was_given_out_before_it() {
    let (buffer, user) = (buffer(65_536), Uuid::new_v4());
    push(&buffer, user, 1);
    for id in 2..=2_000 {
        if id % 7 == 0 {
            let barrier = format!("1-1.{id}:{id}:").parse().unwrap();
            let given = buffer.begin_segment(&barrier, Instant::now());
            assert_eq!(given.unwrap().to_string(), format!("1-1.{id}:{id}:~"));
        }
        push(&buffer, user, id);
        let newest = buffer
            .after(user, nth(u64::try_from(id).unwrap() - 1))
            .unwrap();
        let cursor = newest.signals[0].cursor().map(ToString::to_string);
        let barrier = id / 7 * 7;
        let expected = (barrier > 0).then(|| format!("1-1.{barrier}:{barrier}:~"));
        assert_eq!(cursor, expected);
    }
    let forgotten = buffer.read().forgotten_through;
    for event in buffer.after(user, nth(forgotten)).unwrap().signals {
        let barrier = event.sequence().unwrap().get() / 7 * 7;
        let cursor = event.cursor().unwrap().to_string();
        assert_eq!(cursor, format!("1-1.{barrier}:{barrier}:~"));
    }
}

#[test]
fn nothing_is_known_of_another_history() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    assert_eq!(Some(buffer.restart(Instant::now())), nth(21));
    assert!(buffer.since(users[0], &given("19:19:")).is_none());
    assert!(buffer.after(users[0], nth(20)).is_none());
    assert_eq!(buffer.after(users[0], nth(21)).unwrap().signals.len(), 0);
}

#[test]
fn without_a_log_no_cursor_is_served_but_a_lag_is_repaired_and_the_reset_is_not_missed() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    for id in 1..=4 {
        barrier(&buffer, &format!("{id}:{id}:"));
        push(&buffer, user, id);
    }
    assert_eq!(Some(buffer.lose_log()), nth(5));
    push(&buffer, user, 5);
    assert!(buffer.since(user, &given("4:4:")).is_none());
    let found = buffer.after(user, nth(3)).unwrap();
    assert_eq!((ids(&found), found.has_lost_log), (vec![4, 5], true));
    assert!(events(&found).all(|event| event.cursor.is_none()));
    let found = buffer.after(user, nth(5)).unwrap();
    assert_eq!((ids(&found), found.has_lost_log), (vec![5], false));
}

#[test]
fn a_first_cursor_brings_nothing_of_before_the_log() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    push(&buffer, user, 1);
    barrier(&buffer, "2:2:");
    push(&buffer, user, 2);
    assert_eq!(ids(&buffer.since(user, &given("2:2:")).unwrap()), [2]);
    assert_eq!(ids(&buffer.after(user, None).unwrap()), [1, 2]);
}
