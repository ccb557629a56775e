//! Pods that were let through and whose binding has not been seen yet.
//!
//! The scheduler decides faster than our watch tells us: without the assumed two pods pass into the same room. Each is charged
//! to every node that it was offered and let onto, because only one of them is the one it went to and nobody has said which.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::cache::DaemonSetId;
use crate::scheduling::resources::Resources;

/// For how long a pod is charged whose binding does not show: a binding takes milliseconds, but for volumes that are made first.
const ASSUMED_POD_TTL: Duration = Duration::from_secs(5);

/// The pods that are on their way to a node.
#[derive(Debug, Default)]
pub struct AssumedPods {
    entries: Vec<AssumedPod>,
    /// How many pods are charged to a node and to no other: nearly always to none, and every call asks for every node.
    only_on: HashMap<usize, usize>,
}

#[derive(Debug)]
struct AssumedPod {
    uid: Arc<str>,
    requests: Resources,
    daemon_set: Option<DaemonSetId>,
    until: Instant,
    nodes: NodeSet,
    /// The one node of `nodes`, if it is one.
    only: Option<usize>,
}

impl AssumedPods {
    /// Enters a pod, of a DaemonSet or of none, in place of what it was charged before. Whether a charge ended by that: it
    /// was let through before, and now nowhere.
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

    /// Takes a pod out: its binding was seen, it was deleted, or it was refused. Whether it was there.
    pub fn forget(&mut self, uid: &str) -> bool {
        let at = self.entries.iter().position(|entry| &*entry.uid == uid);
        if let Some(at) = at {
            let entry = self.entries.swap_remove(at);
            self.decrement_only_on(entry.only);
        }
        at.is_some()
    }

    /// Takes out the pods that have not been bound in time. Whether there were any.
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

    /// What is charged to a node by pods other than `uid` that can have gone nowhere else; `None` for nothing.
    pub fn assumed_only_on(&self, node: usize, uid: &str) -> Option<Resources> {
        if self.only_on.is_empty() || !self.only_on.contains_key(&node) {
            return None;
        }
        let mut certain = Resources::default();
        for charge in self.entries.iter().filter(|charge| charge.only == Some(node) && &*charge.uid != uid) {
            certain.add(&charge.requests);
        }
        Some(certain)
    }

    /// Takes what is charged to a node from what is free on it, but for the pod `uid` itself, and for daemon pods that room is
    /// kept for anyway: theirs has been taken off already.
    pub fn subtract_assumed(
        &self,
        free: &mut Resources,
        node: usize,
        uid: &str,
        is_kept_for: impl Fn(DaemonSetId) -> bool,
    ) {
        for entry in self.entries.iter().filter(|entry| entry.nodes.contains(node) && &*entry.uid != uid) {
            if !entry.daemon_set.is_some_and(&is_kept_for) {
                free.subtract(&entry.requests);
            }
        }
    }

    /// Whether a pod is charged to a node.
    pub fn is_assumed_on(&self, uid: &str, node: usize) -> bool {
        self.entries.iter().any(|entry| &*entry.uid == uid && entry.nodes.contains(node))
    }

    /// How many pods are charged.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is charged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A set of node ids, a bit each.
#[derive(Debug, Default, Clone)]
pub struct NodeSet {
    bits: Vec<u64>,
}

impl NodeSet {
    /// An empty set with room for ids below `nodes`.
    pub fn with_capacity(nodes: usize) -> Self {
        Self { bits: Vec::with_capacity(nodes.div_ceil(64)) }
    }

    /// Puts an id in.
    pub fn insert(&mut self, id: usize) {
        if id / 64 >= self.bits.len() {
            self.bits.resize(id / 64 + 1, 0);
        }
        self.bits[id / 64] |= 1 << (id % 64);
    }

    /// Whether an id is in.
    pub fn contains(&self, id: usize) -> bool {
        self.bits.get(id / 64).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    /// The one id that is in, if it is one.
    fn only(&self) -> Option<usize> {
        let mut words = self.bits.iter().enumerate().filter(|(_, word)| **word != 0);
        let (at, word) = words.next()?;
        (words.next().is_none() && word.is_power_of_two()).then(|| at * 64 + word.trailing_zeros() as usize)
    }

    /// Whether nothing is in.
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
    fn charges_once_and_never_the_pod_itself() {
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
    fn only_a_pod_with_one_node_to_go_to_is_there_for_certain() {
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
