//! The oldest DaemonSets of each namespace: room is reserved for these alone, so that the time of an event is bounded, whoever writes
//! DaemonSets.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::api::meta::Metadata;
use crate::cache::DaemonSetId;

/// The DaemonSets of one namespace that may hold room. Each event of a Node looks at all of them.
const MAX_OF_NAMESPACE: usize = 256;

/// The DaemonSets of each namespace by age.
#[derive(Debug, Default)]
pub(super) struct OldestDaemonSets {
    by_namespace: HashMap<String, BTreeSet<Key>>,
}

/// Creation time, UID and id.
type Key = (String, String, DaemonSetId);

impl OldestDaemonSets {
    /// Adds a DaemonSet. Returns the one that is not among the oldest any more because of it.
    pub(super) fn insert(&mut self, metadata: &Metadata, id: DaemonSetId) -> Option<DaemonSetId> {
        let all = self.by_namespace.entry_ref(metadata.namespace.as_str()).or_default();
        if !all.insert(key(metadata, id)) {
            return None;
        }
        all.iter().nth(MAX_OF_NAMESPACE).map(|(_, _, id)| *id)
    }

    /// Removes a DaemonSet. Returns the one that may be among the oldest because of it.
    pub(super) fn remove(&mut self, metadata: &Metadata, id: DaemonSetId) -> Option<DaemonSetId> {
        let all = self.by_namespace.get_mut(&metadata.namespace)?;
        all.remove(&key(metadata, id));
        if all.is_empty() {
            self.by_namespace.remove(&metadata.namespace);
            return None;
        }
        all.iter().nth(MAX_OF_NAMESPACE - 1).map(|(_, _, id)| *id)
    }

    /// Returns true if a DaemonSet is among the oldest of its namespace. False for one that was not added.
    pub(super) fn contains(&self, metadata: &Metadata) -> bool {
        let Some(all) = self.by_namespace.get(metadata.namespace.as_str()) else { return false };
        let is_it = |(created, uid, _): &Key| *created == metadata.creation_timestamp && *uid == metadata.uid;
        all.iter().take(MAX_OF_NAMESPACE).any(is_it)
    }

    /// Returns true if no DaemonSet is recorded.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }
}

fn key(metadata: &Metadata, id: DaemonSetId) -> Key {
    (metadata.creation_timestamp.clone(), metadata.uid.clone(), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_each_namespace() {
        let metadata = |age: usize| Metadata {
            namespace: "tenant".to_owned(),
            uid: format!("u{age}"),
            creation_timestamp: format!("{age:05}"),
            ..Metadata::default()
        };
        let mut oldest = OldestDaemonSets::default();
        for age in 1..=MAX_OF_NAMESPACE {
            assert_eq!(oldest.insert(&metadata(age), age), None);
        }
        assert_eq!(oldest.insert(&metadata(1), 1), None, "it is there");
        assert_eq!(oldest.insert(&metadata(999), 999), Some(999), "the youngest itself");
        assert_eq!(oldest.insert(&metadata(0), 0), Some(MAX_OF_NAMESPACE));
        assert!(oldest.contains(&metadata(0)) && !oldest.contains(&metadata(MAX_OF_NAMESPACE)));
        assert_eq!(oldest.remove(&metadata(5), 5), Some(MAX_OF_NAMESPACE));
        assert!(oldest.contains(&metadata(MAX_OF_NAMESPACE)) && !oldest.contains(&metadata(999)));
        let other = Metadata { namespace: "other".to_owned(), ..metadata(7) };
        assert!(!oldest.contains(&other) && oldest.insert(&other, 7).is_none() && oldest.contains(&other));
        for id in 0..=7_000 {
            oldest.remove(&metadata(id), id);
            oldest.remove(&Metadata { namespace: "other".to_owned(), ..metadata(id) }, id);
        }
        assert!(oldest.is_empty());
    }
}
