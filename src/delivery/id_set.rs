//! A compact set of routed ids: they come from a sequence, so they lie close together.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rustc_hash::FxHasher;

const BITS: i64 = u64::BITS as i64;

/// A set of ids, with 64 neighbouring ids in a word.
#[derive(Debug, Default)]
pub(super) struct IdSet {
    /// The words, by the common part of their ids. The hash is not keyed: the database chooses the ids.
    words: HashMap<i64, u64, BuildHasherDefault<FxHasher>>,
    len: usize,
}

impl IdSet {
    pub(super) fn contains(&self, id: i64) -> bool {
        let (key, bit) = place(id);
        self.words.get(&key).is_some_and(|word| word & bit != 0)
    }

    /// Adds an id. Returns whether it was not in the set.
    pub(super) fn insert(&mut self, id: i64) -> bool {
        let (key, bit) = place(id);
        let word = self.words.entry(key).or_default();
        let is_new = *word & bit == 0;
        *word |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// How many ids it holds.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.len = 0;
    }
}

fn place(id: i64) -> (i64, u64) {
    (id.div_euclid(BITS), 1 << id.rem_euclid(BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let mut set = IdSet::default();
        let ids = [0, 1, 63, 64, 65, -1, -64, -65, i64::MAX, i64::MIN];
        for (held, id) in ids.into_iter().enumerate() {
            assert!(!set.contains(id), "{id}");
            assert_eq!(set.len(), held);
            assert!(set.insert(id));
            assert!(!set.insert(id));
            assert!(set.contains(id));
        }
        set.clear();
        assert!(ids.iter().all(|id| !set.contains(*id)) && set.len() == 0);
    }
}
