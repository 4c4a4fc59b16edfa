//! The replay buffer by itself.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::*;
use crate::protocol::{Event, Notification, Sequence, Signal, Snapshot};
use crate::store::PAGE_BYTES_MAX;

const AGE: Duration = Duration::from_mins(1);

fn buffer(bytes_max: usize) -> ReplayBuffer {
    let bounds = Bounds {
        bytes_max,
        age_max: AGE,
    };
    ReplayBuffer::new(bounds, Instant::now())
}

/// An event that the transaction with its number has written.
fn push(buffer: &ReplayBuffer, user_id: Uuid, id: i64) {
    let text = format!(r#"{{"type":"device","user_id":"{user_id}", "id" : {id}, "xid" : {id}}}"#);
    let _ = buffer.push(&Notification::parse(&text).unwrap());
}

fn barrier(buffer: &ReplayBuffer, snapshot: &str) {
    let _ = buffer.begin_segment(&format!("1-1.{snapshot}").parse().unwrap(), Instant::now());
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
fn a_reader_gets_exactly_those_of_its_events_that_its_cursor_does_not_see() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    let since = |user, cursor| buffer.since(user, &snapshot(cursor));
    let found = since(users[0], "10:10:").unwrap();
    assert_eq!(ids(&found), [11, 13, 15, 17, 19]);
    assert_eq!(found.total, 5);
    assert_eq!(ids(&since(users[1], "19:19:").unwrap()), [20]);
    let running = since(users[0], "9:18:9,15").unwrap();
    assert_eq!(ids(&running), [9, 15, 19]);
    assert_eq!(since(Uuid::new_v4(), "19:19:").unwrap().signals.len(), 0);
    let after = buffer.since_after(users[0], Some(&snapshot("9:18:9,15")), nth(10));
    assert_eq!(ids(&after.unwrap()), [15, 19]);
}

/// The order of events and barriers decides nothing.
#[test]
fn an_event_that_came_before_a_barrier_which_does_not_see_it_is_found() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    barrier(&buffer, "4:4:");
    for id in [6, 5, 9] {
        push(&buffer, user, id);
    }
    barrier(&buffer, "5:8:5");
    barrier(&buffer, "5:9:5");
    let since = |cursor| ids(&buffer.since(user, &snapshot(cursor)).unwrap());
    assert_eq!(since("5:8:5"), [5, 9]);
    assert_eq!(since("4:4:"), [6, 5, 9]);
    assert_eq!(since("5:7:5"), [5, 9]);
}

#[test]
fn a_cursor_that_no_barrier_covers_is_not_served() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    let since = |cursor| buffer.since(user, &snapshot(cursor));
    assert!(since("10:10:").is_none());
    for barrier_at in ["4:4:", "8:8:", "12:12:", "16:16:"] {
        barrier(&buffer, barrier_at);
    }
    assert_eq!(since("10:10:").unwrap().signals.len(), 0);
    push(&buffer, user, 17);
    assert_eq!(ids(&since("10:10:").unwrap()), [17]);
    // It may be of a future that has not been.
    assert!(since("17:17:").is_none());
    barrier(&buffer, "20:20:");
    assert_eq!(ids(&since("17:17:").unwrap()), [17]);
    assert_eq!(since("18:18:").unwrap().signals.len(), 0);
}

#[test]
fn a_cursor_from_before_the_first_barrier_is_not_known() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    assert!(buffer.since(users[0], &snapshot("2:2:")).is_none());
    // One that had not seen a transaction which the barrier had is as old as that transaction.
    assert!(buffer.since(users[0], &snapshot("2:19:2")).is_none());
    assert!(buffer.since(users[0], &snapshot("4:4:")).is_some());
}

#[test]
fn a_shortened_cursor_is_served_with_all_that_it_does_not_see() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    let running: Vec<String> = (0..50).map(|n| (1_001 + 2 * n).to_string()).collect();
    let running = running.join(",");
    let long = |xmax| snapshot(&format!("1001:{xmax}:{running}"));
    assert_ne!(long(2_000).shortened(), long(2_000));
    assert_eq!(long(2_000).shortened(), long(2_030).shortened());
    barrier(&buffer, "900:900:");
    for id in [2_000, 2_010, 2_020] {
        barrier(&buffer, &format!("1001:{id}:{running}"));
        push(&buffer, user, id);
    }
    let found = buffer.since(user, &long(2_020).shortened());
    assert_eq!(ids(&found.unwrap()), [2_000, 2_010, 2_020]);
    assert_eq!(ids(&buffer.since(user, &long(2_015)).unwrap()), [2_020]);
}

/// The triggers of the schema before do not notify it. Such an event is seen by the second barrier after it.
#[test]
fn a_signal_whose_transaction_is_not_known_is_before_every_cursor_that_is_served() {
    let (buffer, user) = (buffer(1 << 20), Uuid::new_v4());
    barrier(&buffer, "4:4:");
    let text = format!(r#"{{"type":"device","user_id":"{user}","id":5}}"#);
    let _ = buffer.push(&Notification::parse(&text).unwrap());
    let since = |cursor| buffer.since(user, &snapshot(cursor));
    assert!(since("4:4:").is_none());
    barrier(&buffer, "5:5:");
    assert!(since("5:5:").is_none());
    push(&buffer, user, 7);
    barrier(&buffer, "7:8:7");
    assert!(since("5:5:").is_none());
    assert_eq!(ids(&since("7:8:7").unwrap()), [7]);
    assert_eq!(ids(&buffer.after(user, None).unwrap()), [5, 7]);
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
    assert!(buffer.since(users[0], &snapshot("7:7:")).is_none());
    assert_eq!(
        ids(&buffer.after(users[0], nth(2_996)).unwrap()),
        [2_997, 2_999]
    );
    // Every cursor is served whole, or not at all.
    let forgotten = i64::try_from(forgotten).unwrap();
    for cursor in (4..=3_001).step_by(3) {
        let found = buffer.since(users[0], &snapshot(&format!("{cursor}:{cursor}:")));
        assert_eq!(found.is_some(), cursor > forgotten, "{cursor}");
        if let Some(found) = found {
            let expected = (cursor..=3_000).filter(|id| id % 2 == 1).count();
            assert_eq!(found.total, expected as u64, "{cursor}");
        }
    }
}

#[test]
fn events_that_no_barrier_has_seen_are_not_forgotten_unnoticed() {
    const BYTES_MAX: usize = 65_536;
    let (buffer, user) = (buffer(BYTES_MAX), Uuid::new_v4());
    barrier(&buffer, "1:1:");
    barrier(&buffer, "2:2:");
    for id in 2..=3_000 {
        push(&buffer, user, id);
    }
    let since = |cursor| buffer.since(user, &snapshot(cursor));
    assert!(since("2:2:").is_none());
    assert_eq!(ids(&buffer.after(user, nth(2_998)).unwrap()), [3_000]);
    // One that was forgotten is still running here.
    barrier(&buffer, "100:3001:100");
    assert!(since("100:3001:100").is_none());
    barrier(&buffer, "2999:3001:2999");
    assert_eq!(ids(&since("2999:3001:2999").unwrap()), [2_999]);
    push(&buffer, user, 3_001);
    assert_eq!(ids(&since("2999:3001:2999").unwrap()), [2_999, 3_001]);
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
            assert_eq!(given.unwrap().to_string(), format!("1-1.{id}:{id}:"));
        }
        push(&buffer, user, id);
        let newest = buffer
            .after(user, nth(u64::try_from(id).unwrap() - 1))
            .unwrap();
        let cursor = newest.signals[0].cursor().map(ToString::to_string);
        let barrier = id / 7 * 7;
        let expected = (barrier > 0).then(|| format!("1-1.{barrier}:{barrier}:"));
        assert_eq!(cursor, expected);
    }
    let forgotten = buffer.read().forgotten_through;
    for event in buffer.after(user, nth(forgotten)).unwrap().signals {
        let barrier = event.sequence().unwrap().get() / 7 * 7;
        let cursor = event.cursor().unwrap().to_string();
        assert_eq!(cursor, format!("1-1.{barrier}:{barrier}:"));
    }
}

#[test]
fn nothing_is_known_of_another_history() {
    let (buffer, users) = (buffer(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&buffer, &users, 20);
    assert_eq!(Some(buffer.restart(Instant::now())), nth(21));
    assert!(buffer.since(users[0], &snapshot("19:19:")).is_none());
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
    assert!(buffer.since(user, &snapshot("4:4:")).is_none());
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
    assert_eq!(ids(&buffer.since(user, &snapshot("2:2:")).unwrap()), [2]);
    assert_eq!(ids(&buffer.after(user, None).unwrap()), [1, 2]);
}
