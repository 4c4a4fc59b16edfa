//! Which connections are whose.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::slice;

use uuid::Uuid;

pub(crate) type Users = HashMap<User, Devices, BuildHasherDefault<UserHasher>>;

/// The connections of a user; almost every user has one.
pub(crate) enum Devices {
    One(usize),
    Many(Vec<usize>),
}

impl Default for Devices {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Devices {
    pub(crate) fn keys(&self) -> &[usize] {
        match self {
            Self::One(key) => slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }

    pub(crate) fn push(&mut self, key: usize) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, key]),
            Self::Many(keys) if keys.is_empty() => *self = Self::One(key),
            Self::Many(keys) => keys.push(key),
        }
    }

    pub(crate) fn remove(&mut self, key: usize) {
        match self {
            Self::One(_) => *self = Self::default(),
            Self::Many(keys) => keys.retain(|kept| *kept != key),
        }
    }
}

/// A key that hashes to its own bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct User(pub(crate) Uuid);

impl Hash for User {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let (high, low) = self.0.as_u64_pair();
        hasher.write_u64(high ^ low);
    }
}

/// Spreads the bits of one number: counted-up ids differ in the lowest ones only.
#[derive(Default)]
pub(crate) struct UserHasher(u64);

impl Hasher for UserHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = (self.0 ^ bits).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}
