//! Assumed pods: allowed on nodes by a filter call, and not yet seen bound.
//!
//! The scheduler decides faster than the watch brings the binding, so without these two pods could take the same room. A pod is
//! assumed on every node that the call allowed, because the scheduler has not said which of them it took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::cache::DaemonSetId;
use crate::scheduling::resources::Resources;

/// The time after which an assumed pod is forgotten. A binding takes milliseconds, unless volumes have to be made first.
const ASSUMED_POD_TTL: Duration = Duration::from_secs(5);

/// The pods that are assumed on nodes, each for five seconds at most.
#[derive(Debug, Default)]
pub struct AssumedPods {
    entries: Vec<AssumedPod>,
    /// The number of pods that are assumed on one node only, by node. It is nearly always empty, which keeps the check of each node
    /// of a filter call cheap.
    only_on: HashMap<usize, usize>,
}

#[derive(Debug)]
struct AssumedPod {
    uid: Arc<str>,
    requests: Resources,
    daemon_set: Option<DaemonSetId>,
    until: Instant,
    nodes: NodeSet,
    /// The only node of `nodes`, if there is one only.
    only: Option<usize>,
}

impl AssumedPods {
    /// Assumes a pod on `nodes`, in place of those of an earlier call. Returns true if the pod was assumed before and `nodes` is
    /// empty, so that it has only been forgotten.
    pub fn assume(
        &mut self,
        uid: Arc<str>,
        requests: Resources,
        daemon_set: Option<DaemonSetId>,
        nodes: NodeSet,
        now: Instant,
    ) -> bool {
        let was_there = self.forget(&uid);
        if nodes.is_empty() {
            return was_there;
        }
        let only = nodes.only();
        if let Some(node) = only {
            *self.only_on.entry(node).or_default() += 1;
        }
        self.entries.push(AssumedPod {
            uid,
            requests,
            daemon_set,
            until: now + ASSUMED_POD_TTL,
            nodes,
            only,
        });
        false
    }

    /// Forgets a pod that is bound, deleted or refused. Returns true if it was assumed.
    pub fn forget(&mut self, uid: &str) -> bool {
        let at = self.entries.iter().position(|entry| &*entry.uid == uid);
        if let Some(at) = at {
            let entry = self.entries.swap_remove(at);
            self.decrement_only_on(entry.only);
        }
        at.is_some()
    }

    /// Forgets the pods that were not bound within five seconds. Returns true if there were any.
    pub fn expire(&mut self, now: Instant) -> bool {
        let over: Vec<AssumedPod> = self.entries.extract_if(.., |entry| entry.until <= now).collect();
        over.iter().for_each(|entry| self.decrement_only_on(entry.only));
        !over.is_empty()
    }

    fn decrement_only_on(&mut self, node: Option<usize>) {
        if let Some(node) = node
            && let Entry::Occupied(mut count) = self.only_on.entry(node)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Returns the requests of the pods, other than `uid`, that are assumed on this node only. `None` if no pod is assumed on this
    /// node only.
    pub fn assumed_only_on(&self, node: usize, uid: &str) -> Option<Resources> {
        if self.only_on.is_empty() || !self.only_on.contains_key(&node) {
            return None;
        }
        let mut requests = Resources::default();
        for pod in self.entries.iter().filter(|pod| pod.only == Some(node) && &*pod.uid != uid) {
            requests.add(&pod.requests);
        }
        Some(requests)
    }

    /// Subtracts the requests of the pods that are assumed on a node from `free`. Leaves out the pod `uid`, and the pods of
    /// DaemonSets for which `has_hold_for` is true: their room has been subtracted already.
    pub fn subtract_assumed(
        &self,
        free: &mut Resources,
        node: usize,
        uid: &str,
        has_hold_for: impl Fn(DaemonSetId) -> bool,
    ) {
        for entry in self.entries.iter().filter(|entry| entry.nodes.contains(node) && &*entry.uid != uid) {
            if !entry.daemon_set.is_some_and(&has_hold_for) {
                free.subtract(&entry.requests);
            }
        }
    }

    /// Returns true if a pod is assumed on a node.
    pub fn is_assumed_on(&self, uid: &str, node: usize) -> bool {
        self.entries.iter().any(|entry| &*entry.uid == uid && entry.nodes.contains(node))
    }

    /// The number of assumed pods.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if no pod is assumed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A set of node ids, one bit each.
#[derive(Debug, Default, Clone)]
pub struct NodeSet {
    bits: Vec<u64>,
}

impl NodeSet {
    /// Returns an empty set with room for ids below `nodes`.
    pub fn with_capacity(nodes: usize) -> Self {
        Self { bits: Vec::with_capacity(nodes.div_ceil(64)) }
    }

    /// Adds an id.
    pub fn insert(&mut self, id: usize) {
        if id / 64 >= self.bits.len() {
            self.bits.resize(id / 64 + 1, 0);
        }
        self.bits[id / 64] |= 1 << (id % 64);
    }

    /// Returns true if the id is in the set.
    pub fn contains(&self, id: usize) -> bool {
        self.bits.get(id / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    /// Returns the id if the set has exactly one, else `None`.
    fn only(&self) -> Option<usize> {
        let mut words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        let (at, word) = words.next()?;
        (words.next().is_none() && word.is_power_of_two()).then(|| at * 64 + word.trailing_zeros() as usize)
    }

    /// Returns true if the set has no id.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|word| *word == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(milli_cpu: i64) -> Resources {
        Resources { milli_cpu, ..Resources::default() }
    }

    #[test]
    fn subtracts_each_assumed_pod_once_and_not_the_incoming_one() {
        let now = Instant::now();
        let mut nodes = NodeSet::with_capacity(100);
        nodes.insert(3);
        nodes.insert(70);
        let mut assumed = AssumedPods::default();
        assumed.assume("a".into(), cpu(100), None, nodes.clone(), now);
        assumed.assume("a".into(), cpu(200), Some(7), nodes.clone(), now);
        let free = |assumed: &AssumedPods, node, uid, kept| {
            let mut free = cpu(1000);
            assumed.subtract_assumed(&mut free, node, uid, |daemon_set| daemon_set == kept);
            free.milli_cpu
        };
        assert_eq!(
            (free(&assumed, 3, "b", 8), free(&assumed, 4, "b", 8), free(&assumed, 70, "a", 8)),
            (800, 1000, 1000)
        );
        assert_eq!(free(&assumed, 3, "b", 7), 1000);
        assert!(
            assumed.is_assumed_on("a", 70)
                && !assumed.is_assumed_on("a", 71)
                && !assumed.is_assumed_on("b", 70)
        );
        assert!(!assumed.expire(now + ASSUMED_POD_TTL / 2));
        assert!(assumed.expire(now + ASSUMED_POD_TTL));
        assert!(assumed.is_empty() && !assumed.forget("a"));
        assert!(!assumed.assume("a".into(), cpu(1), None, NodeSet::default(), now));
        assert!(!assumed.assume("a".into(), cpu(1), None, nodes, now));
        assert!(assumed.assume("a".into(), cpu(1), None, NodeSet::default(), now));
        assert!(assumed.is_empty());
    }

    #[test]
    fn assumed_only_on_counts_pods_with_one_allowed_node() {
        let now = Instant::now();
        let set = |ids: &[usize]| {
            let mut set = NodeSet::default();
            ids.iter().for_each(|id| set.insert(*id));
            set
        };
        let mut assumed = AssumedPods::default();
        let on = |assumed: &AssumedPods, node, uid| {
            assumed.assumed_only_on(node, uid).map(|certain| certain.milli_cpu)
        };
        assumed.assume("a".into(), cpu(100), None, set(&[70]), now);
        assumed.assume("b".into(), cpu(200), Some(1), set(&[70]), now);
        assumed.assume("c".into(), cpu(400), None, set(&[70, 71]), now);
        assumed.assume("d".into(), cpu(800), None, set(&[3, 70]), now);
        assert_eq!((on(&assumed, 70, "x"), on(&assumed, 70, "a")), (Some(300), Some(200)));
        assert_eq!([3, 71, 6].map(|node| on(&assumed, node, "x")), [None; 3]);
        assumed.assume("a".into(), cpu(100), None, set(&[3]), now);
        assert_eq!((on(&assumed, 70, "x"), on(&assumed, 3, "x")), (Some(200), Some(100)));
        assumed.forget("b");
        assert_eq!((on(&assumed, 70, "x"), on(&assumed, 3, "x")), (None, Some(100)));
        assert!(assumed.expire(now + ASSUMED_POD_TTL) && assumed.only_on.is_empty());
    }
}
