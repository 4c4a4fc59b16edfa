//! Memory, by itself.

use super::*;
use crate::protocol::ResetReason;

const AGE: Duration = Duration::from_mins(1);

fn recent(bytes_max: usize) -> Recent {
    Recent::new(Bounds {
        bytes_max,
        age_max: AGE,
    })
}

fn push(recent: &Recent, user_id: Uuid, id: i64) {
    let text = format!(r#"{{"type":"device","user_id":"{user_id}","id":{id}}}"#);
    let _ = recent.push(&Notification::parse(&text).unwrap());
}

fn barrier(recent: &Recent, snapshot: &str) {
    let _ = recent.barrier(&format!("1-1.{snapshot}").parse().unwrap());
}

/// A cursor as it is given out over a WebSocket.
fn heard(snapshot: &str) -> Cursor {
    format!("1-1.{snapshot}~").parse().unwrap()
}

fn snapshot(text: &str) -> Snapshot {
    text.parse().unwrap()
}

fn ids(found: &Found) -> Vec<i64> {
    found.events.iter().filter_map(|event| event.id).collect()
}

/// Users in turn, ids from 1, a barrier after every third event with the snapshot `id+1:id+1:`.
fn filled(recent: &Recent, users: &[Uuid; 2], events: i64) {
    for id in 1..=events {
        push(recent, users[usize::from(id % 2 == 0)], id);
        if id % 3 == 0 {
            barrier(recent, &format!("{0}:{0}:", id + 1));
        }
    }
}

#[test]
fn a_reader_gets_its_own_events_from_one_barrier_before_its_cursor() {
    let (recent, users) = (recent(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&recent, &users, 20);
    // The cursor of the barrier after 9: what was routed after the one after 6 is sent.
    let since = |user, cursor| recent.since(user, &heard(cursor));
    assert_eq!(
        ids(&since(users[0], "10:10:").unwrap()),
        [7, 9, 11, 13, 15, 17, 19]
    );
    assert_eq!(ids(&since(users[1], "19:19:").unwrap()), [16, 18, 20]);
    assert_eq!(since(Uuid::new_v4(), "19:19:").unwrap().events.len(), 0);
}

#[test]
fn a_cursor_from_elsewhere_is_served_only_when_memory_is_sure() {
    let recent = recent(1 << 20);
    let user = Uuid::new_v4();
    let since = |cursor| recent.since(user, &heard(cursor));
    for barrier_at in ["4:4:", "8:8:", "12:12:", "16:16:"] {
        barrier(&recent, barrier_at);
    }
    // Nothing came for the user: whatever the cursor has seen, it has missed nothing.
    assert_eq!(since("10:10:").unwrap().events.len(), 0);
    // What comes after a barrier that covers the cursor is surely new to it.
    push(&recent, user, 1);
    assert_eq!(ids(&since("10:10:").unwrap()), [1]);
    // One that no barrier has reached may be of a future that has not been.
    assert!(since("17:17:").is_none());
    // What came between the cursor's neighbours may be old or new.
    barrier(&recent, "20:20:");
    barrier(&recent, "24:24:");
    assert!(since("17:17:").is_none());
    barrier(&recent, "28:28:");
    assert_eq!(since("26:26:").unwrap().events.len(), 0);
}

#[test]
fn a_cursor_from_before_the_first_barrier_is_not_known() {
    let (recent, users) = (recent(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&recent, &users, 20);
    assert!(recent.since(users[0], &heard("2:2:")).is_none());
    // One that had not seen a transaction which the barrier had is as old as that transaction.
    assert!(recent.since(users[0], &heard("2:30:2")).is_none());
    assert!(recent.since(users[0], &heard("4:4:")).is_some());
}

#[test]
fn barriers_that_were_given_out_in_the_same_words_are_told_apart_by_none() {
    let (recent, user) = (recent(1 << 20), Uuid::new_v4());
    let running: Vec<String> = (0..50).map(|n| (1_001 + 2 * n).to_string()).collect();
    let running = running.join(",");
    let long = |xmax| Cursor {
        snapshot: snapshot(&format!("1001:{xmax}:{running}")),
        ..heard("1:1:")
    };
    let given = |xmax: u64| long(xmax).heard();
    assert!(given(2_000).to_string().len() < 100);
    assert_eq!(given(2_000), given(2_030));
    barrier(&recent, "900:900:");
    for id in [2_000, 2_010, 2_020] {
        barrier(&recent, &format!("1001:{id}:{running}"));
        push(&recent, user, id);
    }
    // It was the first of the three, for all that is known.
    let since = |cursor| recent.since(user, &cursor).map(|found| ids(&found));
    assert_eq!(since(given(2_030)).unwrap(), [2_000, 2_010, 2_020]);
}

#[test]
fn what_comes_after_an_event_is_known_by_its_sequence_number() {
    let (recent, users) = (recent(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&recent, &users, 20);
    for sequence in 0..=20 {
        let expected: Vec<i64> = (1..=20)
            .filter(|id| id % 2 == 1 && *id > i64::try_from(sequence).unwrap())
            .collect();
        assert_eq!(
            ids(&recent.after(users[0], sequence).unwrap()),
            expected,
            "{sequence}"
        );
    }
    assert_eq!(recent.last_sequence(), 20);
}

#[test]
fn what_is_found_comes_in_pages() {
    let (recent, user) = (recent(1 << 24), Uuid::new_v4());
    for id in 1..=2_500 {
        push(&recent, user, id);
    }
    let (mut all, mut sequence) = (Vec::new(), 0);
    for (more, left) in [(true, 2_500), (true, 1_500), (false, 500)] {
        let found = recent.after(user, sequence).unwrap();
        assert_eq!((found.more, found.total), (more, left));
        sequence = found.events.last().unwrap().sequence;
        all.extend(ids(&found));
    }
    assert_eq!(all, (1..=2_500).collect::<Vec<_>>());
}

#[test]
fn a_page_is_bounded_in_bytes_and_never_empty() {
    let (recent, user) = (recent(1 << 20), Uuid::new_v4());
    let bytes = PAGE_BYTES_MAX * 2 / 3;
    for id in 1..=3 {
        let text = "x".repeat(bytes);
        let json = format!(r#"{{"type":"device","user_id":"{user}","id":{id},"x":"{text}"}}"#);
        let _ = recent.push(&Notification::parse(&json).unwrap());
    }
    let found = recent.after(user, 0).unwrap();
    assert_eq!((found.events.len(), found.more), (2, true));
    assert_eq!(ids(&recent.after(user, 2).unwrap()), [3]);
}

#[test]
fn memory_is_bounded_and_says_what_it_has_forgotten() {
    const BYTES_MAX: usize = 65_536;
    let (recent, users) = (recent(BYTES_MAX), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&recent, &users, 3_000);
    let (held, forgotten) = {
        let memory = recent.read();
        let bytes = memory.full_bytes + memory.open.bytes();
        (bytes, memory.forgotten_through)
    };
    assert!((BYTES_MAX / 2..=BYTES_MAX).contains(&held), "{held}");
    assert!(recent.after(users[0], forgotten - 1).is_none());
    let left = recent.after(users[0], forgotten).unwrap().total;
    assert_eq!(left, (3_000 - forgotten) / 2);
    assert!((100..1_000).contains(&left), "{left}");
    assert!(recent.since(users[0], &heard("7:7:")).is_none());
    assert_eq!(ids(&recent.after(users[0], 2_996).unwrap()), [2_997, 2_999]);
    // Every cursor is served whole, or not at all.
    for cursor in (4..=3_001).step_by(3) {
        let found = recent.since(users[0], &heard(&format!("{cursor}:{cursor}:")));
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
    let (recent, user) = (recent(BYTES_MAX), Uuid::new_v4());
    barrier(&recent, "1:1:");
    barrier(&recent, "2:2:");
    for id in 1..=3_000 {
        push(&recent, user, id);
    }
    assert!(recent.since(user, &heard("2:2:")).is_none());
    assert_eq!(ids(&recent.after(user, 2_999).unwrap()), [3_000]);
    barrier(&recent, "3001:3001:");
    // The segment before this barrier is not whole, so its cursor has no place yet.
    assert!(recent.since(user, &heard("3001:3001:")).is_none());
    push(&recent, user, 3_001);
    barrier(&recent, "3002:3002:");
    assert_eq!(
        ids(&recent.since(user, &heard("3002:3002:")).unwrap()),
        [3_001]
    );
}

#[test]
fn a_text_longer_than_a_block_has_one_of_its_own() {
    const BYTES_MAX: usize = 65_536;
    let (recent, user) = (recent(BYTES_MAX), Uuid::new_v4());
    let long = "x".repeat(BYTES_MAX / 4);
    for id in 1..=20 {
        push(&recent, user, id);
        let json = format!(
            r#"{{"type":"device","user_id":"{user}","id":{},"x":"{long}"}}"#,
            -id
        );
        let _ = recent.push(&Notification::parse(&json).unwrap());
    }
    assert_eq!(ids(&recent.after(user, 38).unwrap()), [20, -20]);
    let memory = recent.read();
    assert!(memory.full_bytes <= BYTES_MAX, "{}", memory.full_bytes);
    assert!(memory.forgotten_through > 30);
}

#[test]
fn an_event_comes_with_the_barrier_that_was_given_out_before_it() {
    let (recent, user) = (recent(65_536), Uuid::new_v4());
    push(&recent, user, 1);
    for id in 2..=2_000 {
        if id % 7 == 0 {
            let given = recent.barrier(&format!("1-1.{id}:{id}:").parse().unwrap());
            assert_eq!(given.unwrap().to_string(), format!("1-1.{id}:{id}:~"));
        }
        push(&recent, user, id);
        let newest = recent.after(user, u64::try_from(id).unwrap() - 1).unwrap();
        let passed = newest.events[0].passed.as_ref().map(ToString::to_string);
        let barrier = id / 7 * 7;
        let expected = (barrier > 0).then(|| format!("1-1.{barrier}:{barrier}:~"));
        assert_eq!(passed, expected);
    }
    let forgotten = recent.read().forgotten_through;
    for event in recent.after(user, forgotten).unwrap().events {
        let barrier = event.sequence / 7 * 7;
        let passed = event.passed.as_ref().unwrap().to_string();
        assert_eq!(passed, format!("1-1.{barrier}:{barrier}:~"));
    }
}

#[test]
fn nothing_is_known_of_another_history() {
    let (recent, users) = (recent(1 << 20), [Uuid::new_v4(), Uuid::new_v4()]);
    filled(&recent, &users, 20);
    let reset = recent.begin_anew(Event::reset(ResetReason::History, None));
    assert_eq!(reset.sequence, 21);
    assert!(recent.since(users[0], &heard("19:19:")).is_none());
    assert!(recent.after(users[0], 20).is_none());
    assert_eq!(recent.after(users[0], 21).unwrap().events.len(), 0);
}
