//! The ids of the pods by their UIDs, in parts: a table that grows moves all of its entries at once, under the cache's lock.

use std::sync::Arc;

use hashbrown::HashMap;

use super::PodId;

/// The number of parts. Of 150,000 pods each has 2,400, which move in a fraction of a millisecond; in one table they take ten.
const PARTS: usize = 64;

/// A map from UIDs to ids.
#[derive(Debug)]
pub(super) struct PodIds(Box<[HashMap<Arc<str>, PodId>]>);

impl Default for PodIds {
    fn default() -> Self {
        Self((0..PARTS).map(|_| HashMap::new()).collect())
    }
}

impl PodIds {
    /// Returns the id of a pod; `None` if it is not there.
    pub(super) fn get(&self, uid: &str) -> Option<PodId> {
        self.0[part_of(uid)].get(uid).copied()
    }

    /// Returns the kept UID and the id of a pod; `None` if it is not there.
    pub(super) fn get_key_value(&self, uid: &str) -> Option<(Arc<str>, PodId)> {
        self.0[part_of(uid)].get_key_value(uid).map(|(uid, id)| (uid.clone(), *id))
    }

    /// Adds a pod, or replaces its id.
    pub(super) fn insert(&mut self, uid: Arc<str>, id: PodId) {
        self.0[part_of(&uid)].insert(uid, id);
    }

    /// Removes a pod. Returns its id; `None` if it is not there.
    pub(super) fn remove(&mut self, uid: &str) -> Option<PodId> {
        self.0[part_of(uid)].remove(uid)
    }

    /// Returns the UIDs, in no order.
    pub(super) fn uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().flat_map(HashMap::keys)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(HashMap::is_empty)
    }
}

/// Returns the part of a UID, by its last characters: the apiserver chooses UIDs at random.
fn part_of(uid: &str) -> usize {
    let last = uid.bytes().rev().take(3);
    last.fold(0, |part, byte| part * 31 + usize::from(byte)) % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_about_as_large() {
        let mut ids = PodIds::default();
        for id in 0..64_000_usize {
            ids.insert(format!("7c9e6679-7425-40de-944b-{id:012x}").into(), id);
        }
        let largest = ids.0.iter().map(HashMap::len).max();
        assert!(largest.is_some_and(|pods| pods < 3_000), "{largest:?}");
        assert_eq!((ids.get("7c9e6679-7425-40de-944b-0000000000ff"), ids.get("none")), (Some(255), None));
        assert_eq!(ids.uids().count(), 64_000);
    }
}
