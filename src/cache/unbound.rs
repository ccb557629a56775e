//! The pods that are not bound, by their names: a Binding names a pod, and not always its UID.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use super::PodId;

/// The ids of the unbound pods. They are found by the hash of their names, so that no name is kept a second time.
#[derive(Debug, Default)]
pub(super) struct UnboundPods {
    /// Each with its hash, for a table that grows.
    table: HashTable<(u64, PodId)>,
    hasher: DefaultHashBuilder,
}

impl UnboundPods {
    /// Adds a pod that is not there.
    pub(super) fn insert(&mut self, namespace: &str, name: &str, id: PodId) {
        let hash = self.hash(namespace, name);
        self.table.insert_unique(hash, (hash, id), |(hash, _)| *hash);
    }

    /// Removes a pod, if it is there.
    pub(super) fn remove(&mut self, namespace: &str, name: &str, id: PodId) {
        let hash = self.hash(namespace, name);
        if let Ok(entry) = self.table.find_entry(hash, |(_, own)| *own == id) {
            entry.remove();
        }
    }

    /// Returns the first pod with the hash of these names for which `is_it` is true.
    pub(super) fn find(&self, namespace: &str, name: &str, is_it: impl Fn(PodId) -> bool) -> Option<PodId> {
        self.table.find(self.hash(namespace, name), |(_, id)| is_it(*id)).map(|(_, id)| *id)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, namespace: &str, name: &str, id: PodId) -> bool {
        self.find(namespace, name, |own| own == id).is_some()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn hash(&self, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((namespace, name))
    }
}
