//! The oldest DaemonSets of each namespace: room is reserved for these alone, so that the time of an event is bounded.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use crate::api::meta::Metadata;
use crate::cache::DaemonSetId;

/// The DaemonSets of one namespace that may hold room. Each event of a Node looks at all of them.
const MAX_OF_NAMESPACE: usize = 256;
/// The elements of their node selectors, node affinities and tolerations together: sixteen DaemonSets may list a thousand nodes
/// each.
const MAX_ELEMENTS_OF_NAMESPACE: usize = 16_384;

/// The DaemonSets of each namespace by age.
#[derive(Debug, Default)]
pub(super) struct OldestDaemonSets {
    by_namespace: HashMap<String, OfNamespace>,
}

#[derive(Debug, Default)]
struct OfNamespace {
    /// The number of elements of each, the oldest first.
    all: BTreeMap<Age, usize>,
    /// Those that may hold room.
    oldest: HashSet<DaemonSetId>,
}

/// Creation time, UID and id.
type Age = (String, String, DaemonSetId);

fn age(metadata: &Metadata, id: DaemonSetId) -> Age {
    (metadata.creation_timestamp.clone(), metadata.uid.clone(), id)
}

impl OldestDaemonSets {
    /// Adds a DaemonSet with so many elements, or changes their number. Returns the other DaemonSets that are among the oldest, or
    /// not among them any more, because of it.
    pub(super) fn insert(
        &mut self,
        metadata: &Metadata,
        id: DaemonSetId,
        elements: usize,
    ) -> Vec<DaemonSetId> {
        let of_namespace = self.by_namespace.entry_ref(metadata.namespace.as_str()).or_default();
        if of_namespace.all.insert(age(metadata, id), elements) == Some(elements) {
            return Vec::new();
        }
        let mut changed = of_namespace.find_oldest();
        changed.retain(|other| *other != id);
        changed
    }

    /// Removes a DaemonSet. Returns the others that are among the oldest because of it.
    pub(super) fn remove(&mut self, metadata: &Metadata, id: DaemonSetId) -> Vec<DaemonSetId> {
        let Some(of_namespace) = self.by_namespace.get_mut(&metadata.namespace) else { return Vec::new() };
        of_namespace.all.remove(&age(metadata, id));
        of_namespace.oldest.remove(&id);
        let changed = of_namespace.find_oldest();
        if of_namespace.all.is_empty() {
            self.by_namespace.remove(&metadata.namespace);
        }
        changed
    }

    /// Returns true if a DaemonSet is among the oldest of its namespace. False for one that was not added.
    pub(super) fn contains(&self, metadata: &Metadata, id: DaemonSetId) -> bool {
        let of_namespace = self.by_namespace.get(metadata.namespace.as_str());
        of_namespace.is_some_and(|of_namespace| of_namespace.oldest.contains(&id))
    }

    /// Returns true if no DaemonSet is recorded.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_namespace.is_empty()
    }
}

impl OfNamespace {
    /// Finds the oldest. Returns those that were not among them, or are not any more.
    fn find_oldest(&mut self) -> Vec<DaemonSetId> {
        let mut elements = 0;
        let within = self.all.iter().take(MAX_OF_NAMESPACE).take_while(|(_, own)| {
            elements += **own;
            elements <= MAX_ELEMENTS_OF_NAMESPACE
        });
        let oldest: HashSet<DaemonSetId> = within.map(|((_, _, id), _)| *id).collect();
        let changed = oldest.symmetric_difference(&self.oldest).copied().collect();
        self.oldest = oldest;
        changed
    }
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
        const NONE: [DaemonSetId; 0] = [];
        let mut oldest = OldestDaemonSets::default();
        for age in 1..=MAX_OF_NAMESPACE {
            assert_eq!(oldest.insert(&metadata(age), age, 1), NONE);
        }
        assert_eq!(oldest.insert(&metadata(1), 1, 1), NONE, "it is there");
        assert_eq!(oldest.insert(&metadata(999), 999, 1), NONE, "too young");
        assert_eq!(oldest.insert(&metadata(0), 0, 1), [MAX_OF_NAMESPACE]);
        let contains = |oldest: &OldestDaemonSets, age: usize| oldest.contains(&metadata(age), age);
        assert!(contains(&oldest, 0) && !contains(&oldest, MAX_OF_NAMESPACE));
        assert_eq!(oldest.remove(&metadata(5), 5), [MAX_OF_NAMESPACE]);
        assert!(contains(&oldest, MAX_OF_NAMESPACE) && !contains(&oldest, 999));
        // The third has most of the elements, and then more than all.
        let pushed_out = oldest.insert(&metadata(3), 3, MAX_ELEMENTS_OF_NAMESPACE - 200);
        assert_eq!(pushed_out.len(), MAX_OF_NAMESPACE - 201);
        assert!(contains(&oldest, 3) && contains(&oldest, 200) && !contains(&oldest, 250));
        assert_eq!(oldest.insert(&metadata(3), 3, MAX_ELEMENTS_OF_NAMESPACE).len(), 197);
        assert!(contains(&oldest, 2) && !contains(&oldest, 3) && !contains(&oldest, 4));
        let other = Metadata { namespace: "other".to_owned(), ..metadata(7) };
        assert!(
            !oldest.contains(&other, 7)
                && oldest.insert(&other, 7, 1).is_empty()
                && oldest.contains(&other, 7)
        );
        for id in 0..=MAX_OF_NAMESPACE {
            oldest.remove(&metadata(id), id);
        }
        oldest.remove(&metadata(999), 999);
        oldest.remove(&other, 7);
        assert!(oldest.is_empty());
    }
}
