//! Assumed pods: allowed on nodes by a filter call or for a binding, and not yet seen bound.
//!
//! The scheduler decides faster than the watch brings the binding, so without these two pods could take the same room. A pod is
//! assumed on every node that the call allowed, because the scheduler has not said which of them it took. A binding says it: then
//! the pod is assumed on that node only. A later review of another node does not take back what was allowed, for anybody can send
//! one: the pod counts on both, for a few seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use slab::Slab;

use super::node_set::NodeSet;
use crate::cache::{DaemonSetId, NodeId};
use crate::scheduling::resources::Resources;

/// The time after which an assumed pod is forgotten. A binding takes milliseconds, unless volumes have to be made first.
const ASSUMED_POD_TTL: Duration = Duration::from_secs(5);
/// The time after which an assumed pod with claims is forgotten: the scheduler itself waits so long for its volumes
/// (`bindTimeoutSeconds` of the plugin VolumeBinding, 600 by default).
const ASSUMED_CLAIMS_TTL: Duration = Duration::from_secs(600);
/// The most assumed pods; beyond, the oldest is forgotten. A scheduler has a few in flight, and one that waits for volumes more.
const MAX_ASSUMED: usize = 8_192;
/// The nodes to which one pod may be about to be bound. A scheduler binds a pod to one; after a binding that failed it may choose
/// another before the time of the first is up.
const MAX_BINDINGS: usize = 4;
/// The most that is counted of one pod, in the scheduler's units: more than any node has, and sums of it cannot overflow.
const MAX_AMOUNT: i64 = 1 << 49;

/// The work of forgetting pods before the lock is given to others, in nodes that they are assumed on: a fraction of a millisecond.
const EXPIRY_WORK: usize = 20_000;
/// The work for a pod besides: thousands of daemon pods may be assumed on one node.
const POD_WORK: usize = 500;

/// The pods that [`AssumedPods::expire`] has forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    /// True if a pod was forgotten.
    pub any: bool,
    /// True if more are to be forgotten.
    pub is_cut: bool,
}

/// A pod that a call has allowed.
#[derive(Debug)]
pub struct AllowedPod {
    /// The UID.
    pub uid: Arc<str>,
    /// The requested amounts.
    pub requests: Resources,
    /// The verified DaemonSet of the pod.
    pub daemon_set: Option<DaemonSetId>,
    /// True if the scheduler waits for claims of the pod before it binds it.
    pub needs_claims: bool,
}

/// The assumed pods. Look-ups take the same time however many there are.
#[derive(Debug, Default)]
pub struct AssumedPods {
    entries: Slab<AssumedPod>,
    by_uid: HashMap<Arc<str>, usize>,
    /// The entries in the order in which they end; the number decides between equal times.
    by_end: BTreeMap<(Instant, u64), usize>,
    next_number: u64,
    /// The sum of the requests of the pods that are assumed on each node.
    sums: Vec<Resources>,
    /// The daemon pods that are assumed on each node: few, for a daemon pod is for one node.
    daemon_pods: HashMap<NodeId, Vec<usize>>,
    /// The number and the requests of the pods that are assumed on this node only.
    only_on: HashMap<NodeId, (usize, Resources)>,
    /// The number of pods for which a binding was allowed.
    about_to_be_bound: usize,
}

#[derive(Debug)]
struct AssumedPod {
    pod: AllowedPod,
    since: Instant,
    end: (Instant, u64),
    nodes: NodeSet,
    /// The only node of `nodes`, if there is one only.
    only: Option<NodeId>,
    /// The nodes among them to which a binding was allowed, with the times.
    bindings: Vec<(NodeId, Instant)>,
}

impl AssumedPods {
    /// Assumes a pod on `nodes`, in place of those of an earlier filter call. Returns true if the pod was assumed before and is on
    /// no node now.
    pub fn assume(&mut self, mut pod: AllowedPod, mut nodes: NodeSet, now: Instant) -> bool {
        let bindings = self.take_bindings(&pod.uid, now);
        bindings.iter().for_each(|(node, _)| nodes.insert(*node));
        // Anybody can send a filter call with this UID. The binding was judged by the pod in the cache.
        if !bindings.is_empty()
            && let Some(known) = self.get(&pod.uid)
        {
            (pod.requests, pod.daemon_set) = (known.pod.requests.clone(), known.pod.daemon_set);
        }
        self.assume_with(pod, nodes, bindings, now)
    }

    /// Assumes a pod on the node that it is about to be bound to. With `is_last_word` that is in place of the nodes of a filter
    /// call, or else beside them: where no apiserver asks about bindings, somebody else has sent the review.
    pub fn assume_binding(&mut self, mut pod: AllowedPod, node: NodeId, is_last_word: bool, now: Instant) {
        let mut nodes = NodeSet::default();
        if let Some(known) = self.get(&pod.uid) {
            // Its scheduler waits for its volumes, and binds it to no other node.
            let waits_elsewhere = known.only.is_some_and(|only| only != node) && known.bindings.is_empty();
            if known.pod.needs_claims && waits_elsewhere {
                return;
            }
            pod.needs_claims |= known.pod.needs_claims;
            if !is_last_word {
                nodes = known.nodes.clone();
            }
        }
        let mut bindings = self.take_bindings(&pod.uid, now);
        bindings.retain(|(own, _)| *own != node);
        if bindings.len() >= MAX_BINDINGS {
            bindings.remove(0);
        }
        bindings.push((node, now));
        bindings.iter().for_each(|(node, _)| nodes.insert(*node));
        self.assume_with(pod, nodes, bindings, now);
    }

    /// Takes the bindings of a pod whose time is not up, the oldest first.
    fn take_bindings(&mut self, uid: &str, now: Instant) -> Vec<(NodeId, Instant)> {
        let Some(id) = self.by_uid.get(uid) else { return Vec::new() };
        let mut bindings = std::mem::take(&mut self.entries[*id].bindings);
        self.about_to_be_bound -= usize::from(!bindings.is_empty());
        bindings.retain(|(_, at)| now.saturating_duration_since(*at) < ASSUMED_POD_TTL);
        bindings
    }

    fn assume_with(
        &mut self,
        mut pod: AllowedPod,
        nodes: NodeSet,
        bindings: Vec<(NodeId, Instant)>,
        now: Instant,
    ) -> bool {
        let was_there = self.forget(&pod.uid);
        if nodes.is_empty() {
            return was_there;
        }
        if self.entries.len() >= MAX_ASSUMED
            && let Some(oldest) = self.by_end.first_key_value().map(|(_, oldest)| *oldest)
        {
            // Filter calls, which anybody can send, push out no binding.
            if bindings.is_empty() && !self.entries[oldest].bindings.is_empty() {
                return was_there;
            }
            self.remove(oldest);
        }
        pod.requests.cap(MAX_AMOUNT);
        for node in nodes.iter() {
            if node >= self.sums.len() {
                self.sums.resize_with(node + 1, Resources::default);
            }
            self.sums[node].add(&pod.requests);
        }
        let only = nodes.only();
        if let Some(node) = only {
            let (pods, requests) = self.only_on.entry(node).or_default();
            *pods += 1;
            requests.add(&pod.requests);
        }
        let (uid, is_daemon_pod) = (pod.uid.clone(), pod.daemon_set.is_some());
        let end = self.next_end(now);
        self.about_to_be_bound += usize::from(!bindings.is_empty());
        let id = self.entries.insert(AssumedPod { pod, since: now, end, nodes, only, bindings });
        if is_daemon_pod {
            for node in self.entries[id].nodes.iter() {
                self.daemon_pods.entry(node).or_default().push(id);
            }
        }
        self.by_uid.insert(uid, id);
        self.by_end.insert(end, id);
        false
    }

    /// Forgets a pod that is bound, deleted or refused. Returns true if it was assumed.
    pub fn forget(&mut self, uid: &str) -> bool {
        let id = self.by_uid.get(uid).copied();
        id.inspect(|id| self.remove(*id)).is_some()
    }

    /// Forgets pods that were not bound in time, as many as `EXPIRY_WORK` allows. A pod with claims that was allowed on one node
    /// has more of it while it is pending, by `is_pending` for its UID: on several nodes it would take the room of many pods.
    pub fn expire(&mut self, now: Instant, is_pending: impl Fn(&str) -> bool) -> Expiry {
        let mut expiry = Expiry::default();
        let mut work = 0;
        while let Some((end, id)) = self.by_end.first_key_value().map(|(end, id)| (*end, *id))
            && end.0 <= now
        {
            if work >= EXPIRY_WORK {
                expiry.is_cut = true;
                break;
            }
            let AssumedPod { pod, since, only, nodes, .. } = &self.entries[id];
            work += POD_WORK + nodes.len();
            if only.is_some() && pod.needs_claims && now < *since + ASSUMED_CLAIMS_TTL && is_pending(&pod.uid)
            {
                self.by_end.remove(&end);
                let end = self.next_end(now);
                self.entries[id].end = end;
                self.by_end.insert(end, id);
            } else {
                self.remove(id);
                expiry.any = true;
            }
        }
        expiry
    }

    fn next_end(&mut self, now: Instant) -> (Instant, u64) {
        self.next_number += 1;
        (now + ASSUMED_POD_TTL, self.next_number)
    }

    fn remove(&mut self, id: usize) {
        let AssumedPod { pod, end, nodes, only, bindings, .. } = self.entries.remove(id);
        self.about_to_be_bound -= usize::from(!bindings.is_empty());
        self.by_uid.remove(&pod.uid);
        self.by_end.remove(&end);
        for node in nodes.iter() {
            self.sums[node].subtract(&pod.requests);
            if pod.daemon_set.is_some()
                && let Entry::Occupied(mut pods) = self.daemon_pods.entry(node)
            {
                pods.get_mut().retain(|own| *own != id);
                if pods.get().is_empty() {
                    pods.remove();
                }
            }
        }
        if let Some(node) = only
            && let Entry::Occupied(mut entry) = self.only_on.entry(node)
        {
            let (pods, requests) = entry.get_mut();
            *pods -= 1;
            requests.subtract(&pod.requests);
            if *pods == 0 {
                entry.remove();
            }
        }
    }

    /// Returns the requests of the pods other than `uid` that are assumed on this node only; `None` if there are none.
    pub fn assumed_only_on(&self, node: NodeId, uid: &str) -> Option<Resources> {
        if self.only_on.is_empty() {
            return None;
        }
        let (pods, requests) = self.only_on.get(&node)?;
        let own = self.get(uid).filter(|own| own.only == Some(node));
        if *pods == usize::from(own.is_some()) {
            return None;
        }
        let mut requests = requests.clone();
        if let Some(own) = own {
            requests.subtract(&own.pod.requests);
        }
        Some(requests)
    }

    /// Subtracts the requests of the pods that are assumed on a node from `free`. Leaves out the pod `uid`, and the pods of
    /// DaemonSets for which `has_hold_for` is true: their room has been subtracted already.
    pub fn subtract_assumed(
        &self,
        free: &mut Resources,
        node: NodeId,
        uid: &str,
        has_hold_for: impl Fn(DaemonSetId) -> bool,
    ) {
        if self.entries.is_empty() {
            return;
        }
        let Some(sum) = self.sums.get(node) else { return };
        free.subtract(sum);
        let own = self.by_uid.get(uid).copied().filter(|own| self.entries[*own].nodes.contains(node));
        let has_hold = |id: &usize| self.entries[*id].pod.daemon_set.is_some_and(&has_hold_for);
        let daemon_pods = self.daemon_pods.get(&node).into_iter().flatten().copied();
        let left_out = daemon_pods.filter(|id| Some(*id) != own && has_hold(id)).chain(own);
        left_out.for_each(|id| free.add(&self.entries[id].pod.requests));
    }

    /// The number of pods for which a binding was allowed and has not been seen.
    pub fn about_to_be_bound(&self) -> usize {
        self.about_to_be_bound
    }

    /// Returns true if a pod is assumed.
    pub fn contains(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }

    /// Returns true if a pod is assumed on a node.
    pub fn is_assumed_on(&self, uid: &str, node: NodeId) -> bool {
        self.get(uid).is_some_and(|entry| entry.nodes.contains(node))
    }

    fn get(&self, uid: &str) -> Option<&AssumedPod> {
        self.by_uid.get(uid).map(|id| &self.entries[*id])
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(milli_cpu: i64) -> Resources {
        Resources { milli_cpu, ..Resources::default() }
    }

    fn set(ids: &[usize]) -> NodeSet {
        let mut set = NodeSet::default();
        ids.iter().for_each(|id| set.insert(*id));
        set
    }

    fn allowed(uid: &str, milli_cpu: i64, daemon_set: Option<DaemonSetId>) -> AllowedPod {
        AllowedPod { uid: uid.into(), requests: cpu(milli_cpu), daemon_set, needs_claims: false }
    }

    fn is_blank(assumed: &AssumedPods) -> bool {
        let AssumedPods { entries, by_uid, by_end, sums, daemon_pods, only_on, .. } = assumed;
        assert!(assumed.about_to_be_bound == 0 || !entries.is_empty());
        let none = sums.iter().all(|sum| *sum == Resources::default());
        none && entries.is_empty()
            && by_uid.is_empty()
            && by_end.is_empty()
            && daemon_pods.is_empty()
            && only_on.is_empty()
    }

    #[test]
    fn subtracts_each_assumed_pod_once_and_not_the_incoming_one() {
        let now = Instant::now();
        let mut assumed = AssumedPods::default();
        assumed.assume(allowed("a", 100, None), set(&[3, 70]), now);
        assumed.assume(allowed("a", 200, Some(7)), set(&[3, 70]), now);
        let free = |assumed: &AssumedPods, node, uid, kept| {
            let mut free = cpu(1000);
            assumed.subtract_assumed(&mut free, node, uid, |daemon_set| daemon_set == kept);
            free.milli_cpu
        };
        assert_eq!(
            (free(&assumed, 3, "b", 8), free(&assumed, 4, "b", 8), free(&assumed, 70, "a", 8)),
            (800, 1000, 1000)
        );
        assert_eq!((free(&assumed, 3, "b", 7), free(&assumed, 3, "a", 7)), (1000, 1000));
        assert!(
            assumed.is_assumed_on("a", 70)
                && !assumed.is_assumed_on("a", 71)
                && !assumed.is_assumed_on("b", 70)
        );
        let none = |_: &str| false;
        assert!(!assumed.expire(now + ASSUMED_POD_TTL / 2, none).any);
        assert!(assumed.expire(now + ASSUMED_POD_TTL, none).any);
        assert!(is_blank(&assumed) && !assumed.forget("a"));
        assert!(!assumed.assume(allowed("a", 1, None), NodeSet::default(), now));
        assert!(!assumed.assume(allowed("a", 1, None), set(&[3]), now));
        assert!(assumed.assume(allowed("a", 1, None), NodeSet::default(), now));
        assert!(is_blank(&assumed));
    }

    #[test]
    fn assumed_only_on_counts_pods_with_one_allowed_node() {
        let now = Instant::now();
        let mut assumed = AssumedPods::default();
        let on = |assumed: &AssumedPods, node, uid| {
            assumed.assumed_only_on(node, uid).map(|certain| certain.milli_cpu)
        };
        assumed.assume(allowed("a", 100, None), set(&[70]), now);
        assumed.assume(allowed("b", 200, Some(1)), set(&[70]), now);
        assumed.assume(allowed("c", 400, None), set(&[70, 71]), now);
        assumed.assume(allowed("d", 800, None), set(&[3, 70]), now);
        assert_eq!((on(&assumed, 70, "x"), on(&assumed, 70, "a")), (Some(300), Some(200)));
        assert_eq!([3, 71, 6].map(|node| on(&assumed, node, "x")), [None; 3]);
        assumed.assume(allowed("a", 100, None), set(&[3]), now);
        assert_eq!((on(&assumed, 70, "x"), on(&assumed, 3, "x")), (Some(200), Some(100)));
        assert_eq!((on(&assumed, 3, "a"), on(&assumed, 70, "b")), (None, None));
        assumed.forget("b");
        assert_eq!((on(&assumed, 70, "x"), on(&assumed, 3, "x")), (None, Some(100)));
        assert!(assumed.expire(now + ASSUMED_POD_TTL, |_| false).any && is_blank(&assumed));
    }

    #[test]
    fn a_pod_whose_volumes_are_made_stays_assumed_until_it_is_bound() {
        let start = Instant::now();
        let mut assumed = AssumedPods::default();
        let with_claims = |uid: &str| AllowedPod { needs_claims: true, ..allowed(uid, 100, None) };
        assumed.assume(with_claims("pending"), set(&[1]), start);
        assumed.assume(with_claims("never seen"), set(&[1]), start);
        let mut tick = |seconds: u64| {
            assumed.expire(start + Duration::from_secs(seconds), |uid| uid == "pending");
            assumed.len()
        };
        assert_eq!([4, 5, 60, 599, 600, 606].map(&mut tick), [2, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn a_binding_counts_on_its_node_alone_and_no_later_review_takes_it_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let on = |assumed: &AssumedPods| {
            (0..9).filter(|node| assumed.is_assumed_on("a", *node)).collect::<Vec<_>>()
        };
        let mut assumed = AssumedPods::default();
        assumed.assume(allowed("a", 100, None), set(&[1, 2, 3]), start);
        assumed.assume_binding(allowed("a", 100, None), 2, true, start);
        assumed.assume_binding(allowed("a", 100, None), 2, true, start);
        assert_eq!((on(&assumed), assumed.about_to_be_bound()), (vec![2], 1));
        assumed.assume(allowed("a", 100, None), set(&[4]), at(2));
        assert_eq!((on(&assumed), assumed.about_to_be_bound()), (vec![2, 4], 1));
        assumed.assume_binding(allowed("a", 100, None), 5, true, at(4));
        assert_eq!(on(&assumed), [2, 5], "both bindings, and no node of the filter");
        assumed.assume_binding(allowed("a", 100, None), 6, true, at(5));
        assert_eq!(on(&assumed), [5, 6], "the time of the first is up");
        (0..9).for_each(|node| assumed.assume_binding(allowed("a", 100, None), node, true, at(5)));
        assert_eq!(on(&assumed), [5, 6, 7, 8], "the newest");
        assert!(assumed.expire(at(10), |_| false).any && is_blank(&assumed));
        assert_eq!(assumed.about_to_be_bound(), 0);
    }

    /// Anybody can send a filter call, and, where no apiserver asks about bindings, a review.
    #[test]
    fn forged_calls_take_nothing_back() {
        let now = Instant::now();
        let mut assumed = AssumedPods::default();
        assumed.assume_binding(allowed("bound", 100, None), 1, true, now);
        assumed.assume(allowed("bound", 0, None), set(&[1, 2]), now);
        assert_eq!(assumed.sums[1].milli_cpu, 100, "the amounts are those of the pod that was judged");
        for pod in 0..MAX_ASSUMED {
            assumed.assume(allowed(&format!("p{pod}"), 1, None), set(&[5]), now);
        }
        assert!(assumed.is_assumed_on("bound", 1), "a flood of filter calls pushes out no binding");

        let mut assumed = AssumedPods::default();
        assumed.assume(allowed("filtered", 100, None), set(&[1, 2]), now);
        assumed.assume_binding(allowed("filtered", 100, None), 3, false, now);
        assert!((1..4).all(|node| assumed.is_assumed_on("filtered", node)));
        let with_claims = AllowedPod { needs_claims: true, ..allowed("claims", 100, None) };
        assumed.assume(with_claims, set(&[1]), now);
        assumed.assume_binding(allowed("claims", 100, None), 2, true, now);
        assert!(assumed.is_assumed_on("claims", 1) && !assumed.is_assumed_on("claims", 2));
        assumed.assume_binding(allowed("claims", 100, None), 1, true, now);
        assumed.expire(now + Duration::from_secs(60), |_| true);
        assert!(assumed.is_assumed_on("claims", 1), "for as long as its volumes may take");
    }

    #[test]
    fn many_pods_and_huge_requests_are_bounded() {
        let now = Instant::now();
        let mut assumed = AssumedPods::default();
        for pod in 0..MAX_ASSUMED + 100 {
            assumed.assume(allowed(&format!("p{pod}"), i64::MAX, None), set(&[5]), now);
        }
        assert_eq!(assumed.len(), MAX_ASSUMED);
        assert!(
            !assumed.is_assumed_on("p99", 5) && assumed.is_assumed_on("p100", 5),
            "the oldest are forgotten"
        );
        let expiry = assumed.expire(now + ASSUMED_POD_TTL, |_| false);
        assert!(
            expiry.any && expiry.is_cut && assumed.len() > MAX_ASSUMED - 100,
            "a few for each hold of the lock"
        );
        for pod in 0..MAX_ASSUMED + 100 {
            assumed.forget(&format!("p{pod}"));
        }
        assert!(is_blank(&assumed), "no sum has overflowed");
    }
}
