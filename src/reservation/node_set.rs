//! A set of nodes.

/// A set of node ids, one bit each.
#[derive(Debug, Default, Clone)]
pub struct NodeSet {
    bits: Vec<u64>,
}

impl NodeSet {
    /// Makes room for ids below `nodes`, so that none is made while they are added.
    pub fn reserve(&mut self, nodes: usize) {
        self.bits.reserve(nodes.div_ceil(64).saturating_sub(self.bits.len()));
    }

    /// Adds an id.
    pub fn insert(&mut self, id: usize) {
        if id / 64 >= self.bits.len() {
            self.bits.resize(id / 64 + 1, 0);
        }
        self.bits[id / 64] |= 1 << (id % 64);
    }

    /// Removes an id.
    pub fn remove(&mut self, id: usize) {
        if let Some(word) = self.bits.get_mut(id / 64) {
            *word &= !(1 << (id % 64));
        }
    }

    /// Returns true if the id is in the set.
    pub fn contains(&self, id: usize) -> bool {
        self.bits.get(id / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    /// Returns the ids in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(at, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at * 64 + bit)
        })
    }

    /// Returns the id if the set has one only.
    pub fn only(&self) -> Option<usize> {
        let mut words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        let (at, word) = words.next()?;
        (words.next().is_none() && word.is_power_of_two()).then(|| at * 64 + word.trailing_zeros() as usize)
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.bits.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns true if the set has no id.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|word| *word == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(added in prop::collection::vec(0..200_usize, 0..20), removed in prop::collection::vec(0..300_usize, 0..20)) {
            let (mut set, mut expected) = (NodeSet::default(), BTreeSet::new());
            for id in added {
                set.insert(id);
                expected.insert(id);
            }
            for id in removed {
                set.remove(id);
                expected.remove(&id);
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert!(expected.iter().all(|id| set.contains(*id)) && !set.contains(1000));
            prop_assert_eq!(set.only(), expected.first().copied().filter(|_| expected.len() == 1));
            prop_assert_eq!(set.is_empty(), expected.is_empty());
        }
    }
}
