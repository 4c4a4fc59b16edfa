//! The hub's steps in every interleaving, tried by loom.
//!
//! loom cannot look into `DashMap` and tokio's channel, so this is a model of `src/delivery/hub.rs`: the
//! same steps in the same order under the same locks. One lock stands for a shard of the map, and a log
//! behind a lock for a channel's ring. A change of the order there needs the same change here.
//! `tests/hub_stress.rs` tests the real hub.
//!
//! With two threads the search is complete. With three it is cut at `PREEMPTIONS_MAX` preemptions
//! in one execution, which takes seconds where the whole takes longer than ten minutes.
//!
//! The last three tests break one rule each and pass only if loom finds the interleaving in which
//! that rule was needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use loom::sync::{Arc, Mutex, RwLock};
use loom::thread;

type User = u8;
type Event = u32;

const ALICE: User = 1;
const BOB: User = 2;

/// Bound on the search with three threads. Each of the broken rules shows at one.
const PREEMPTIONS_MAX: usize = 3;

/// A user's channel.
struct Channel {
    state: Mutex<ChannelState>,
}

struct ChannelState {
    /// Every event that was sent here. The model has no lag.
    log: Vec<Event>,
    receiver_count: usize,
}

impl Channel {
    fn new() -> Arc<Self> {
        let (log, receiver_count) = (Vec::new(), 0);
        Arc::new(Self {
            state: Mutex::new(ChannelState {
                log,
                receiver_count,
            }),
        })
    }

    fn send(&self, event: Event) {
        let mut state = self.state.lock().unwrap();
        if state.receiver_count > 0 {
            state.log.push(event);
        }
    }

    fn receiver_count(&self) -> usize {
        self.state.lock().unwrap().receiver_count
    }
}

/// One connection's receiving end. Without `Drop`, so that a failed assertion can unwind.
struct Receiver {
    user: User,
    channel: Arc<Channel>,
    /// Where in the log its events begin.
    position: usize,
}

impl Receiver {
    fn new(user: User, channel: Arc<Channel>) -> Self {
        let mut state = channel.state.lock().unwrap();
        state.receiver_count += 1;
        let position = state.log.len();
        drop(state);
        Self {
            user,
            channel,
            position,
        }
    }

    fn received(&self) -> Vec<Event> {
        self.channel.state.lock().unwrap().log[self.position..].to_vec()
    }

    fn close(&self) {
        self.channel.state.lock().unwrap().receiver_count -= 1;
    }
}

/// The steps that the model takes: the hub's, or the hub's with one rule broken.
#[derive(Clone, Copy, PartialEq)]
enum Steps {
    Hub,
    /// Finds the sender under the entry's lock, but takes the receiver after it.
    SubscribeAfterRelease,
    /// Removes the sender if the only receiver left is its own, and then drops that.
    RemoveBeforeDrop,
    /// Drops its receiver first, but decides about the sender before it has the entry's lock.
    CountBeforeLock,
}

struct Hub {
    users: RwLock<BTreeMap<User, Arc<Channel>>>,
    steps: Steps,
}

impl Hub {
    fn new(steps: Steps) -> Arc<Self> {
        let users = RwLock::new(BTreeMap::new());
        Arc::new(Self { users, steps })
    }

    fn subscribe(&self, user: User) -> Receiver {
        let mut entry = self.users.write().unwrap();
        let channel = Arc::clone(entry.entry(user).or_insert_with(Channel::new));
        if self.steps == Steps::SubscribeAfterRelease {
            drop(entry);
            return Receiver::new(user, channel);
        }
        let receiver = Receiver::new(user, channel);
        drop(entry);
        receiver
    }

    fn publish(&self, user: User, event: Event) {
        if let Some(channel) = self.users.read().unwrap().get(&user) {
            channel.send(event);
        }
    }

    fn leave(&self, receiver: &Receiver) {
        let user = receiver.user;
        match self.steps {
            Steps::Hub | Steps::SubscribeAfterRelease => {
                receiver.close();
                self.remove_if(user, |channel| channel.receiver_count() == 0);
            }
            Steps::RemoveBeforeDrop => {
                self.remove_if(user, |channel| channel.receiver_count() == 1);
                receiver.close();
            }
            Steps::CountBeforeLock => {
                receiver.close();
                if receiver.channel.receiver_count() == 0 {
                    self.remove_if(user, |_| true);
                }
            }
        }
    }

    fn remove_if(&self, user: User, condition: impl Fn(&Channel) -> bool) {
        let mut users = self.users.write().unwrap();
        if users.get(&user).is_some_and(|channel| condition(channel)) {
            users.remove(&user);
        }
    }

    /// The invariant, whenever no thread is in the middle of a step.
    fn check(&self, connected: &[&Receiver]) {
        let users = self.users.read().unwrap();
        for receiver in connected {
            let in_map = users
                .get(&receiver.user)
                .is_some_and(|channel| Arc::ptr_eq(channel, &receiver.channel));
            assert!(in_map, "a connection listens to a sender outside the map");
        }
        for user in users.keys() {
            let has_connection = connected.iter().any(|receiver| receiver.user == *user);
            assert!(has_connection, "an entry without a connection stayed");
        }
    }

    fn leave_and_check(&self, last: &Receiver) {
        self.leave(last);
        self.check(&[]);
    }
}

/// Runs `step` on its own thread, with its own handle to the hub.
fn spawn<T: 'static>(
    hub: &Arc<Hub>,
    step: impl FnOnce(&Hub) -> T + 'static,
) -> thread::JoinHandle<T> {
    let hub = Arc::clone(hub);
    thread::spawn(move || step(&hub))
}

fn bounded_model(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(scenario);
}

fn one_leaves_while_one_connects(steps: Steps) {
    let hub = Hub::new(steps);
    let old = hub.subscribe(ALICE);
    let leaves = spawn(&hub, move |hub| hub.leave(&old));
    let new = hub.subscribe(ALICE);
    leaves.join().unwrap();
    hub.check(&[&new]);
    hub.publish(ALICE, 1);
    assert_eq!(new.received(), [1]);
    hub.leave_and_check(&new);
}

fn one_leaves_while_one_connects_and_publishes(steps: Steps) {
    let hub = Hub::new(steps);
    let old = hub.subscribe(ALICE);
    let leaves = spawn(&hub, move |hub| hub.leave(&old));
    let new = hub.subscribe(ALICE);
    hub.publish(ALICE, 1);
    assert_eq!(new.received(), [1], "an event was lost");
    leaves.join().unwrap();
    hub.publish(ALICE, 2);
    assert_eq!(new.received(), [1, 2], "an event was lost");
    hub.leave_and_check(&new);
}

fn two_leave_at_once(steps: Steps) {
    let hub = Hub::new(steps);
    let (phone, laptop) = (hub.subscribe(ALICE), hub.subscribe(ALICE));
    let phone_leaves = spawn(&hub, move |hub| hub.leave(&phone));
    let laptop_leaves = spawn(&hub, move |hub| hub.leave(&laptop));
    phone_leaves.join().unwrap();
    laptop_leaves.join().unwrap();
    hub.check(&[]);
}

/// The publisher announces each event before it publishes it: what was not yet announced when the
/// subscriber was in is what that subscriber must get.
fn one_leaves_while_one_connects_and_one_publishes(steps: Steps) {
    let hub = Hub::new(steps);
    let announced = Arc::new(Mutex::new(0));
    let old = hub.subscribe(ALICE);
    let leaves = spawn(&hub, move |hub| hub.leave(&old));
    let connects = spawn(&hub, {
        let announced = Arc::clone(&announced);
        move |hub| {
            let new = hub.subscribe(ALICE);
            let missed_at_most = *announced.lock().unwrap();
            (new, missed_at_most)
        }
    });
    let publishes = spawn(&hub, move |hub| {
        for event in 1..=2 {
            *announced.lock().unwrap() = event;
            hub.publish(ALICE, event);
        }
    });
    leaves.join().unwrap();
    let (new, missed_at_most) = connects.join().unwrap();
    publishes.join().unwrap();
    hub.check(&[&new]);
    hub.publish(ALICE, 3);

    let received = new.received();
    let first = received[0];
    assert!(first <= missed_at_most + 1, "event {first} came first");
    assert_eq!(received, (first..=3).collect::<Vec<_>>(), "a gap");
    hub.leave_and_check(&new);
}

fn two_come_and_go_while_one_stays(steps: Steps) {
    let hub = Hub::new(steps);
    let visits = [0, 1].map(|_| {
        spawn(&hub, |hub| {
            let visit = hub.subscribe(ALICE);
            hub.leave(&visit);
        })
    });
    let stays = spawn(&hub, |hub| {
        let stays = hub.subscribe(ALICE);
        hub.publish(ALICE, 1);
        stays
    });
    for visit in visits {
        visit.join().unwrap();
    }
    let stays = stays.join().unwrap();
    hub.check(&[&stays]);
    assert_eq!(stays.received(), [1]);
    hub.leave_and_check(&stays);
}

#[test]
fn a_connection_is_not_lost_to_one_that_leaves() {
    loom::model(|| one_leaves_while_one_connects(Steps::Hub));
}

#[test]
fn no_event_is_lost_to_one_that_leaves() {
    loom::model(|| one_leaves_while_one_connects_and_publishes(Steps::Hub));
}

#[test]
fn no_entry_stays_when_two_leave_at_once() {
    loom::model(|| two_leave_at_once(Steps::Hub));
}

#[test]
fn no_event_is_lost_while_one_connects_and_one_leaves() {
    bounded_model(|| one_leaves_while_one_connects_and_one_publishes(Steps::Hub));
}

#[test]
fn visitors_take_nothing_from_who_stays() {
    bounded_model(|| two_come_and_go_while_one_stays(Steps::Hub));
}

#[test]
fn another_user_of_the_same_shard_is_left_alone() {
    loom::model(|| {
        let hub = Hub::new(Steps::Hub);
        let alice = hub.subscribe(ALICE);
        let leaves = spawn(&hub, move |hub| hub.leave(&alice));
        let bob = hub.subscribe(BOB);
        hub.publish(BOB, 1);
        hub.publish(ALICE, 2);
        leaves.join().unwrap();
        hub.check(&[&bob]);
        assert_eq!(bob.received(), [1]);
        hub.leave_and_check(&bob);
    });
}

#[test]
#[should_panic(expected = "an event was lost")]
fn subscribing_after_the_entry_is_released_loses_events() {
    loom::model(|| one_leaves_while_one_connects_and_publishes(Steps::SubscribeAfterRelease));
}

#[test]
#[should_panic(expected = "an entry without a connection stayed")]
fn removing_before_the_receiver_is_dropped_keeps_an_entry_for_ever() {
    loom::model(|| two_leave_at_once(Steps::RemoveBeforeDrop));
}

#[test]
#[should_panic(expected = "a connection listens to a sender outside the map")]
fn deciding_before_the_entry_is_locked_loses_the_connection() {
    loom::model(|| one_leaves_while_one_connects(Steps::CountBeforeLock));
}
