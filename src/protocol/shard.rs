//! Shards: the parts that all users are divided into, so that a node takes from the bus only what its users need. Pure.

use std::fmt;

use super::UserKey;

/// How many shards there are.
pub const SHARDS: usize = COUNT as usize;
const COUNT: u8 = 64;

/// One of the [`SHARDS`] parts of all users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// The shard with this number; `None` from [`SHARDS`] on.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The shard of a user: six bits of a mix of the whole key, since the bits of keys need not be spread evenly.
    #[must_use]
    #[inline]
    pub fn of(user: UserKey) -> Self {
        let (high, low) = user.uuid().as_u64_pair();
        let mut mixed = high.rotate_left(32) ^ low;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed >> 58) as u8)
    }

    /// All shards.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(Self)
    }

    /// Its number, below [`SHARDS`].
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The same, as an index.
    #[must_use]
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardSet(u64);

impl ShardSet {
    /// All shards.
    pub const ALL: Self = Self(u64::MAX);
    /// No shard.
    pub const NONE: Self = Self(0);

    /// Whether the shard is one of these.
    #[must_use]
    #[inline]
    pub const fn contains(self, shard: Shard) -> bool {
        self.0 & (1 << shard.0) != 0
    }

    /// The set and this shard.
    #[must_use]
    pub const fn with(self, shard: Shard) -> Self {
        Self(self.0 | 1 << shard.0)
    }

    /// The set without this shard.
    #[must_use]
    pub const fn without(self, shard: Shard) -> Self {
        Self(self.0 & !(1 << shard.0))
    }

    /// The shards of this set that are not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The shards, by their numbers.
    pub fn iter(self) -> impl Iterator<Item = Shard> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            // Without the first one.
            left &= left.wrapping_sub(1);
            u8::try_from(first).ok().and_then(Shard::new)
        })
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<T: IntoIterator<Item = Shard>>(shards: T) -> Self {
        shards.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn spread(keys: impl Iterator<Item = Uuid>) -> (usize, usize) {
        let mut counts = [0; SHARDS];
        for key in keys {
            counts[Shard::of(key.into()).index()] += 1;
        }
        let least = counts.iter().min().copied().unwrap();
        (least, counts.iter().max().copied().unwrap())
    }

    /// 64,000 keys of each kind that applications have: 1,000 a shard on the average.
    #[test]
    fn users_of_all_kinds_are_spread_over_the_shards() {
        let of_numbers = spread((0..64_000).map(|n| Uuid::from_u64_pair(0, n)));
        let with_zeros = spread((0..64_000).map(|n: u64| Uuid::from_u64_pair(n << 32, 0)));
        let with_low_zeros = spread((0..64_000).map(|n: u64| Uuid::from_u64_pair(0, n << 20)));
        let random = spread((0..64_000).map(|_| Uuid::new_v4()));
        for (least, most) in [of_numbers, with_zeros, with_low_zeros, random] {
            assert!(least > 800 && most < 1_200, "{least} {most}");
        }
    }

    /// Nodes of different versions must agree.
    #[test]
    fn the_shard_of_a_user_never_changes() {
        let shard = |key: u128| Shard::of(Uuid::from_u128(key).into()).number();
        let shards = [0, 1, 2, 1 << 64, u128::MAX].map(shard);
        assert_eq!(shards, [0, 21, 54, 54, 0]);
    }

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let (first, last) = (Shard::new(0).unwrap(), Shard::new(63).unwrap());
        assert_eq!(Shard::new(64), None);
        let both = ShardSet::NONE.with(first).with(last);
        assert!(both.iter().eq([first, last]));
        assert_eq!(both.len(), 2);
        assert_eq!(both.without(first), ShardSet::NONE.with(last));
        assert_eq!(ShardSet::ALL.minus(both).len(), 62);
        assert!(both.minus(both).is_empty());
    }
}
