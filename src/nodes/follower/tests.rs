use super::*;

const RUN: Run = run(1);
/// Two shards that the node holds, and one that it does not.
const ONE: Shard = shard(3);
const TWO: Shard = shard(40);
const ELSEWHERE: Shard = shard(5);

const fn run(number: u64) -> Run {
    Run {
        history: 1,
        timeline: 1,
        number,
    }
}

const fn shard(number: u8) -> Shard {
    match Shard::new(number) {
        Some(shard) => shard,
        None => panic!("no shard"),
    }
}

/// A snapshot that sees the transactions before this one.
fn snapshot(next: u64) -> Snapshot {
    format!("{next}:{next}:").parse().unwrap()
}

fn cursor(next: u64) -> Cursor {
    format!("1-1.{next}:{next}:").parse().unwrap()
}

/// These numbers of the two shards, and 9 for all others.
fn numbers([one, two]: [u64; 2]) -> Numbers {
    let mut numbers = [9; SHARDS];
    (numbers[ONE.index()], numbers[TWO.index()]) = (one, two);
    numbers
}

type Batches = Follower<&'static str>;

/// Holds these shards and has repaired them up to a snapshot.
fn follower(shards: &[Shard], repaired_to: u64) -> Batches {
    let mut follower = Follower::new(RUN);
    for shard in shards {
        follower.take(*shard);
        follower.confirm(*shard);
    }
    assert_eq!(repair(&mut follower, repaired_to), [""; 0]);
    follower
}

fn repair(follower: &mut Batches, to: u64) -> Vec<&'static str> {
    follower.begin_repair();
    follower.end_repair(&snapshot(to))
}

fn batch(follower: &mut Batches, number: u64, batch: &'static str) -> Verdict<&'static str> {
    follower.batch(&RUN, ONE, number, batch, 10, true)
}

/// A barrier with these numbers of the two shards.
fn barrier(follower: &mut Batches, next: u64, reached: [u64; 2], seen: [u64; 2]) -> bool {
    follower.barrier(&RUN, cursor(next), &numbers(reached), &numbers(seen))
}

fn passed(follower: &mut Batches) -> Option<u64> {
    follower.pass().map(|cursor| cursor.snapshot.xmax())
}

fn causes(follower: &Batches) -> Vec<(Shard, Cause)> {
    follower.needed().collect()
}

#[test]
fn the_next_batch_is_routed_and_one_that_is_missing_is_read_from_the_log() {
    let mut follower = follower(&[ONE], 5);
    assert_eq!(batch(&mut follower, 1, "a"), Verdict::Route("a"));
    assert_eq!(batch(&mut follower, 2, "b"), Verdict::Route("b"));
    assert_eq!(batch(&mut follower, 2, "b"), Verdict::Nothing);
    assert_eq!(causes(&follower), []);
    assert_eq!(batch(&mut follower, 4, "d"), Verdict::Nothing);
    assert_eq!(causes(&follower), [(ONE, Cause::Gap)]);
    assert!(follower.begin_repair().iter().eq([ONE]));
    assert_eq!(causes(&follower), []);
    // The read has seen the batch that showed the gap; what came later is routed in the order of its numbers.
    for (number, text) in [(6, "f"), (5, "e"), (6, "f")] {
        assert_eq!(batch(&mut follower, number, text), Verdict::Nothing);
    }
    assert_eq!(follower.end_repair(&snapshot(9)), ["e", "f"]);
    assert_eq!(causes(&follower), []);
    assert_eq!(batch(&mut follower, 7, "g"), Verdict::Route("g"));
}

#[test]
fn batches_of_other_shards_and_runs_are_not_routed() {
    let mut follower = follower(&[ONE], 5);
    let elsewhere = follower.batch(&RUN, ELSEWHERE, 1, "x", 10, true);
    assert_eq!(elsewhere, Verdict::NotHeld);
    let other = follower.batch(&run(2), ONE, 1, "x", 10, true);
    assert_eq!(other, Verdict::OtherRun);
    assert_eq!(follower.other_run(), Some(&run(2)));
    assert!(!follower.mark(&run(2), ONE, 7));
    assert!(!follower.barrier(&run(2), cursor(9), &numbers([9, 9]), &numbers([0, 0])));
    assert!(!follower.other(&run(2)) && follower.other(&RUN));
    assert_eq!(causes(&follower), [], "another run shows no gap");
    assert_eq!(passed(&mut follower), None);
    assert_eq!(batch(&mut follower, 1, "a"), Verdict::Route("a"));
}

#[test]
fn a_mark_or_a_barrier_shows_what_is_missing_at_the_end() {
    for by_barrier in [false, true] {
        let mut follower = follower(&[ONE, TWO], 5);
        batch(&mut follower, 1, "a");
        let is_followed = if by_barrier {
            barrier(&mut follower, 9, [2, 0], [0, 0])
        } else {
            follower.mark(&RUN, ONE, 1) && follower.mark(&RUN, ONE, 2)
        };
        assert!(is_followed);
        assert_eq!(causes(&follower), [(ONE, Cause::Gap)]);
        assert_eq!(repair(&mut follower, 9), [""; 0]);
        assert_eq!(batch(&mut follower, 2, "b"), Verdict::Nothing);
        assert_eq!(batch(&mut follower, 3, "c"), Verdict::Route("c"));
    }
}

#[test]
fn a_repair_goes_on_from_the_noted_number_and_a_hole_needs_another() {
    let mut follower = follower(&[ONE], 5);
    follower.mark(&RUN, ONE, 2);
    follower.begin_repair();
    // Number 3 is missing: the read need not have seen it.
    batch(&mut follower, 4, "d");
    assert_eq!(follower.end_repair(&snapshot(9)), [""; 0]);
    assert_eq!(causes(&follower), [(ONE, Cause::Gap)]);
    assert_eq!(batch(&mut follower, 3, "c"), Verdict::Nothing);
    follower.begin_repair();
    batch(&mut follower, 5, "e");
    assert_eq!(follower.end_repair(&snapshot(11)), ["e"]);
    assert_eq!(causes(&follower), []);
}

#[test]
fn what_is_lost_during_a_repair_needs_another_and_before_it_does_not() {
    let mut follower = follower(&[ONE, TWO], 5);
    follower.need_all(Cause::Broken);
    follower.need(ONE, Cause::Silent);
    follower.need(ELSEWHERE, Cause::Silent);
    assert_eq!(
        causes(&follower),
        [(ONE, Cause::Broken), (TWO, Cause::Broken)]
    );
    follower.begin_repair();
    follower.need(TWO, Cause::Silent);
    assert_eq!(causes(&follower), []);
    follower.end_repair(&snapshot(9));
    assert_eq!(causes(&follower), [(TWO, Cause::Silent)]);
    follower.begin_repair();
    follower.confirm(TWO);
    follower.fail_repair();
    assert_eq!(causes(&follower), [(TWO, Cause::Failed)]);
    repair(&mut follower, 11);
    assert_eq!(causes(&follower), []);
    follower.confirm(TWO);
    assert_eq!(causes(&follower), [(TWO, Cause::Broken)], "subscribed anew");
}

#[test]
fn a_batch_that_is_not_whole_is_read_from_the_log() {
    let mut follower = follower(&[ONE], 5);
    let verdict = follower.batch(&RUN, ONE, 1, "a", 10, false);
    assert_eq!(verdict, Verdict::Nothing);
    assert_eq!(causes(&follower), [(ONE, Cause::InLog)]);
    follower.begin_repair();
    follower.batch(&RUN, ONE, 2, "b", 10, false);
    batch(&mut follower, 3, "c");
    assert_eq!(follower.end_repair(&snapshot(9)), [""; 0]);
    assert_eq!(causes(&follower), [(ONE, Cause::Gap)]);
    assert_eq!(repair(&mut follower, 11), [""; 0]);
    assert_eq!(batch(&mut follower, 4, "d"), Verdict::Route("d"));
}

#[test]
fn a_shard_is_repaired_when_the_broker_has_confirmed_it_and_counts_before() {
    let mut follower = follower(&[ONE], 5);
    follower.take(TWO);
    assert!(follower.taken().contains(TWO) && !follower.served().contains(TWO));
    assert_eq!(causes(&follower), []);
    follower.need_all(Cause::Broken);
    assert_eq!(causes(&follower), [(ONE, Cause::Broken)]);
    repair(&mut follower, 6);
    barrier(&mut follower, 9, [0, 0], [0, 0]);
    assert_eq!(passed(&mut follower), None, "a shard has no number");
    follower.confirm(TWO);
    assert_eq!(causes(&follower), [(TWO, Cause::Taken)]);
    repair(&mut follower, 9);
    assert!(follower.served().contains(TWO));
    assert_eq!(passed(&mut follower), Some(9));
    follower.let_go(TWO);
    assert!(!follower.taken().contains(TWO) && !follower.served().contains(TWO));
    let late = follower.batch(&RUN, TWO, 1, "x", 10, true);
    assert_eq!(late, Verdict::NotHeld);
    barrier(&mut follower, 12, [0, 7], [0, 7]);
    assert_eq!(passed(&mut follower), Some(12), "only held shards count");
}

/// The confirmation only spares a repair: without it a shard is read from the log, again and again.
#[test]
fn a_shard_whose_subscription_is_not_confirmed_is_taken_by_the_repair_alone() {
    let mut follower = follower(&[ONE], 5);
    follower.take(TWO);
    follower.need(TWO, Cause::Silent);
    assert_eq!(causes(&follower), [(TWO, Cause::Silent)]);
    repair(&mut follower, 6);
    assert!(follower.served().contains(TWO));
    barrier(&mut follower, 9, [0, 3], [0, 0]);
    assert_eq!(passed(&mut follower), None, "three batches have not come");
    assert_eq!(causes(&follower), [(TWO, Cause::Gap)]);
    repair(&mut follower, 10);
    assert_eq!(passed(&mut follower), Some(9));
    follower.confirm(TWO);
    assert_eq!(causes(&follower), [(TWO, Cause::Broken)]);
}

/// Whoever may publish on the bus may forge messages; none makes a node panic.
#[test]
fn the_greatest_number_is_one_like_any_other() {
    let mut follower = follower(&[ONE], 5);
    follower.mark(&RUN, ONE, u64::MAX);
    batch(&mut follower, u64::MAX, "last");
    assert_eq!(repair(&mut follower, 6), [""; 0]);
    assert_eq!(batch(&mut follower, 0, "none"), Verdict::Nothing);
    assert_eq!(batch(&mut follower, u64::MAX, "last"), Verdict::Nothing);
}

#[test]
fn more_than_can_be_held_is_read_from_the_log() {
    let mut follower = follower(&[ONE, TWO], 5);
    follower.need_all(Cause::Broken);
    follower.begin_repair();
    let half = HELD_BATCHES_BYTES_MAX / 2;
    let mut hold = |shard, number, bytes| {
        let verdict = follower.batch(&RUN, shard, number, "x", bytes, true);
        assert_eq!(verdict, Verdict::Nothing);
        follower.held_bytes
    };
    assert_eq!(hold(ONE, 1, half), half);
    assert_eq!(hold(TWO, 1, half), 2 * half);
    assert_eq!(hold(TWO, 2, 1), half, "one shard gives up what it holds");
    assert_eq!(hold(TWO, 3, half), 2 * half, "and has room again");
    assert_eq!(
        follower.end_repair(&snapshot(9)),
        ["x"],
        "the other shard's"
    );
    assert_eq!(causes(&follower), [(TWO, Cause::Overflow)]);
    assert_eq!(repair(&mut follower, 11), [""; 0]);
    assert_eq!(follower.held_bytes, 0);
    let next = follower.batch(&RUN, TWO, 4, "y", 1, true);
    assert_eq!(next, Verdict::Route("y"));
}

#[test]
fn what_a_shard_holds_is_given_up_with_it() {
    let mut follower = follower(&[ONE], 5);
    batch(&mut follower, 2, "b");
    batch(&mut follower, 2, "b");
    assert_eq!(follower.held_bytes, 10, "a repeat takes no more");
    follower.let_go(ONE);
    assert_eq!(follower.held_bytes, 0);
    follower.take(ONE);
    batch(&mut follower, 7, "g");
    follower.follow(run(2));
    assert_eq!(follower.held_bytes, 0);
    follower.confirm(ONE);
    assert_eq!(repair(&mut follower, 9), [""; 0]);
}

#[test]
fn a_barrier_is_passed_when_every_held_shard_has_reached_its_numbers() {
    let mut follower = follower(&[ONE, TWO], 5);
    barrier(&mut follower, 9, [1, 0], [0, 0]);
    assert_eq!(passed(&mut follower), None);
    follower.begin_repair();
    follower.end_repair(&snapshot(8));
    assert_eq!(passed(&mut follower), Some(9));
    assert_eq!(passed(&mut follower), None);
    // Of several the newest.
    for next in [10, 12, 14] {
        barrier(&mut follower, next, [1, 0], [1, 0]);
    }
    assert_eq!(passed(&mut follower), Some(14));
    assert_eq!(passed(&mut follower), None);
}

#[test]
fn a_barrier_is_not_passed_that_does_not_see_what_was_routed_before_the_last() {
    let mut follower = follower(&[ONE, TWO], 5);
    batch(&mut follower, 1, "a");
    barrier(&mut follower, 9, [0, 0], [0, 0]);
    assert_eq!(passed(&mut follower), Some(9));
    // It came late: the first batch was routed before the last barrier was passed.
    barrier(&mut follower, 10, [1, 0], [0, 0]);
    assert_eq!(passed(&mut follower), None);
    barrier(&mut follower, 12, [1, 0], [1, 0]);
    assert_eq!(passed(&mut follower), Some(12));
    // What a repair has routed counts from its first row on, whether or not it ends.
    follower.need(ONE, Cause::Broken);
    follower.begin_repair();
    follower.read_at(&snapshot(20));
    follower.fail_repair();
    barrier(&mut follower, 14, [1, 0], [1, 0]);
    assert_eq!(passed(&mut follower), Some(14));
    barrier(&mut follower, 16, [1, 0], [1, 0]);
    assert_eq!(passed(&mut follower), None);
    barrier(&mut follower, 20, [1, 0], [1, 0]);
    assert_eq!(passed(&mut follower), Some(20));
}

#[test]
fn the_first_barrier_of_a_run_sees_what_was_routed_before_the_run_was_followed() {
    let mut follower = follower(&[ONE], 9);
    let runs = [(RUN, 8, 9), (run(2), 11, 12)];
    for (run, early, enough) in runs {
        follower.follow(run);
        // The repair that was under way belongs to the run before.
        follower.end_repair(&snapshot(1));
        repair(&mut follower, enough);
        for (next, is_passed) in [(early, false), (enough, true)] {
            follower.barrier(&run, cursor(next), &numbers([0, 0]), &numbers([0, 0]));
            assert_eq!(passed(&mut follower).is_some(), is_passed, "{next}");
        }
        follower.begin_repair();
    }
}

#[test]
fn of_too_many_barriers_the_oldest_are_dropped() {
    let mut follower = follower(&[ONE], 5);
    for next in 0..=BARRIERS_MAX as u64 {
        // The later, the more it waits for.
        barrier(&mut follower, 10 + next, [next, 0], [0, 0]);
    }
    assert_eq!(follower.barriers.len(), BARRIERS_MAX);
    let first = follower
        .barriers
        .front()
        .map(|barrier| barrier.cursor.snapshot.xmax());
    assert_eq!(first, Some(11), "the one that waits for nothing has gone");
    follower.need(ONE, Cause::Broken);
    repair(&mut follower, 9);
    assert_eq!(passed(&mut follower), Some(10 + BARRIERS_MAX as u64));
    assert_eq!(follower.barriers.len(), 0);
}

#[test]
fn numbers_begin_anew_with_a_run_and_every_shard_is_repaired() {
    let mut follower = follower(&[ONE], 5);
    follower.take(TWO);
    for number in 1..=3 {
        batch(&mut follower, number, "old");
    }
    barrier(&mut follower, 9, [3, 0], [0, 0]);
    follower.begin_repair();
    follower.batch(&run(2), ONE, 1, "new", 10, true);
    follower.follow(RUN);
    assert_eq!(
        follower.other_run(),
        Some(&run(2)),
        "it is followed already"
    );
    follower.follow(run(2));
    assert_eq!((follower.run(), follower.other_run()), (&run(2), None));
    assert_eq!(
        passed(&mut follower),
        None,
        "barriers of the old run have gone"
    );
    assert!(follower.served().is_empty());
    assert_eq!(causes(&follower), [(ONE, Cause::NewRun)]);
    assert_eq!(batch(&mut follower, 4, "old"), Verdict::OtherRun);
    follower.confirm(TWO);
    assert!(follower.begin_repair().iter().eq([ONE, TWO]));
    follower.end_repair(&snapshot(9));
    // The batch that came before the run was followed is in the log by now.
    let repeated = follower.batch(&run(2), ONE, 1, "new", 10, true);
    assert_eq!(repeated, Verdict::Nothing);
    let next = follower.batch(&run(2), ONE, 2, "new", 10, true);
    assert_eq!(next, Verdict::Route("new"));
}
