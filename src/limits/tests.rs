//! The limits, by themselves.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn limits(change: impl FnOnce(&mut LimitSettings)) -> Limits {
    let mut settings = crate::config::Config::default().limits;
    settings.unlimited_addresses = "".parse().unwrap();
    change(&mut settings);
    Limits::new(&settings)
}

fn refused<T>(admitted: Result<T, Refusal>) -> Limit {
    admitted.map(drop).unwrap_err().limit
}

#[test]
fn an_address_and_a_user_have_so_many_connections_and_no_more() {
    let limits = limits(|settings| {
        settings.connections_per_address_max = 2;
        settings.connections_per_user_max = 3;
    });
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    let first = limits.admit_address(address).unwrap();
    let _second = limits.admit_address(address).unwrap();
    assert_eq!(refused(limits.admit_address(address)), Limit::AddressOpen);
    assert!(limits.admit_address("192.0.2.8".parse().unwrap()).is_ok());
    drop(first);
    assert!(limits.admit_address(address).is_ok());

    let user_id = Uuid::new_v4();
    let held: Vec<_> = (0..3)
        .map(|_| limits.admit_user(user_id).unwrap())
        .collect();
    assert_eq!(refused(limits.admit_user(user_id)), Limit::UserOpen);
    assert!(limits.admit_user(Uuid::new_v4()).is_ok());
    drop(held);
    assert!(limits.admit_user(user_id).is_ok());
    assert!(limits.users.open.is_empty(), "who is gone is not counted");
}

#[test]
fn a_peer_that_comes_far_more_often_than_it_may_is_not_heard() {
    let limits = limits(|settings| {
        settings.connections_per_second_per_address = 10;
        settings.requests_per_second_per_address = 5;
    });
    let peer: IpAddr = "192.0.2.7".parse().unwrap();
    for _ in 0..25 {
        limits.admit_peer(peer).unwrap();
    }
    assert_eq!(refused(limits.admit_peer(peer)), Limit::AddressRate);
    assert!(limits.admit_peer("192.0.2.8".parse().unwrap()).is_ok());
}

#[test]
fn a_64_counts_as_one_address_and_so_does_a_mapped_one() {
    let limits = limits(|settings| settings.connections_per_address_max = 1);
    for (one, other, same) in [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
        ("2001:db8:1:3::1", "2001:db8:1:4::1", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
    ] {
        let _one = limits.admit_address(one.parse().unwrap()).unwrap();
        let other = limits.admit_address(other.parse().unwrap());
        assert_eq!(other.is_err(), same, "{one}");
    }
}

#[test]
fn addresses_that_are_not_limited_are_not_counted() {
    let limits = limits(|settings| {
        settings.connections_per_address_max = 1;
        settings.unlimited_addresses = "127.0.0.0/8, ::1".parse().unwrap();
    });
    for address in ["127.0.0.1", "127.9.9.9", "::1"] {
        for _ in 0..5 {
            let admitted = limits.admit_address(address.parse().unwrap());
            assert!(admitted.unwrap().is_none());
        }
    }
}

#[test]
fn who_comes_too_often_takes_nothing_from_the_others() {
    let limits = limits(|settings| {
        settings.connections_per_second = 100;
        settings.connections_per_second_per_user = 5;
    });
    let flood = Uuid::new_v4();
    let mut admitted = 0;
    for _ in 0..10_000 {
        match limits.admit_user(flood) {
            Ok(_) => admitted += 1,
            Err(refusal) => {
                assert_eq!(refusal.limit, Limit::UserRate);
                assert!(refusal.retry_after <= Duration::from_millis(200));
            }
        }
    }
    assert!((5..20).contains(&admitted), "{admitted}");
    // What is left of the rate of all is the others'.
    for _ in 0..75 {
        limits.admit_user(Uuid::new_v4()).unwrap();
    }
    let over = (0..200).filter(|_| limits.admit_user(Uuid::new_v4()).is_err());
    assert!(over.count() > 100);
}

#[test]
fn a_full_table_forgets_nobody_who_still_counts() {
    let cells = Cells::new(100);
    let rate = Rates::new(quota(2), cells, MonotonicClock);
    for key in 0..100 {
        rate.check_key(&key).unwrap();
    }
    // A flood of new keys shares what one has.
    let flood = (1_000..100_000).filter(|key| rate.check_key(key).is_ok());
    assert!(flood.count() < 20);
    // Each one that was there has what it had: one more, and then none.
    let again = (0..100).filter(|key| rate.check_key(key).is_ok());
    assert_eq!(again.count(), 100);
}

#[test]
fn who_has_long_been_quiet_makes_room() {
    let cells = Cells::new(10);
    let rate = Rates::new(quota(1_000_000), cells, MonotonicClock);
    for key in 0..10 {
        rate.check_key(&key).unwrap();
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1) {
        std::hint::spin_loop();
    }
    rate.check_key(&10).unwrap();
    assert!(rate.into_state_store().len() <= 10);
}

/// Against the definition, for rates and pauses of all sizes: in no second more than twice the rate (the
/// burst and what is earned meanwhile), and nobody who keeps to the rate is ever refused.
#[test]
fn an_allowance_is_never_exceeded_and_never_kept_from_who_keeps_to_it() {
    for seed in 0..200_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let per_second = rng.random_range(1..200_u32);
        let longest_us = rng.random_range(1..200_000_u64);
        let (mut greedy, mut honest) = (Allowance::default(), Allowance::default());
        let mut now = Instant::now();
        let mut granted = VecDeque::new();
        for _ in 0..2_000 {
            now += Duration::from_micros(rng.random_range(0..=longest_us));
            if greedy.take(per_second, now) {
                granted.push_back(now);
            }
            while granted
                .front()
                .is_some_and(|at| now - *at >= Duration::from_secs(1))
            {
                granted.pop_front();
            }
            assert!(granted.len() <= 2 * per_second as usize, "seed {seed}");
        }
        let each = Duration::from_secs(1).div_f64(f64::from(per_second)) + Duration::from_nanos(1);
        for _ in 0..2_000 {
            now += each;
            assert!(honest.take(per_second, now), "seed {seed}: {per_second}/s");
        }
    }
}
