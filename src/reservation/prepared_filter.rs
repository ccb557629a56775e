//! The filter verb: a `/scheduler/filter` call from its arguments to its response.
//!
//! The facts of the arguments are computed before the cache is locked, and the response is written after it: [`super::filter`]
//! judges the nodes in between.

use std::ops::DerefMut;
use std::time::Instant;

use enum_map::EnumMap;

use super::View;
use super::filter::{FilterProgress, FilterStats};
use super::filter_reason::FilterReason;
use super::incoming_pod::IncomingDemand;
use super::target_node_filter::TargetNodeFilter;
use crate::api::decode_budget::DecodeBudget;
use crate::api::extender_v1::verdicts::{EchoedBody, Verdicts};
use crate::api::extender_v1::{ExtenderArgs, FullNode};
use crate::policy::Policy;

/// The response and its counts for the metrics.
#[derive(Debug)]
pub struct FilterResult {
    /// The ExtenderFilterResult, in the mode of the request.
    pub body: EchoedBody,
    /// The number of nodes that the scheduler sent.
    pub nodes: usize,
    /// The number of refused nodes by reason.
    pub refused: EnumMap<FilterReason, usize>,
}

/// Returns the response in which `refuse` decides each node, and the refused nodes by reason; see [`ExtenderArgs::judge`].
pub fn answer(
    args: &ExtenderArgs<'_>,
    refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<FilterReason>,
) -> FilterResult {
    answer_verdicts(args, args.judge(refuse))
}

/// Returns the response for verdicts on the nodes of `args`.
pub fn answer_verdicts(args: &ExtenderArgs<'_>, verdicts: Verdicts<FilterReason>) -> FilterResult {
    let mut refused = EnumMap::default();
    let body = args.answer(verdicts, |reason: FilterReason| {
        refused[reason] += 1;
        reason.message()
    });
    FilterResult { body, nodes: args.node_count(), refused }
}

/// Returns the response without a cache: a daemon pod is refused on nodes that its own spec excludes. Any other pod is allowed
/// everywhere.
///
/// ```
/// use daemonset_warden::api::extender_v1::ExtenderArgs;
/// use daemonset_warden::policy::Policy;
/// use daemonset_warden::reservation::prepared_filter::filter_standalone;
///
/// let owner = r#"{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "u", "controller": true}"#;
/// let on_n1 = r#"{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}"#;
/// let required = format!(r#"{{"requiredDuringSchedulingIgnoredDuringExecution": {{"nodeSelectorTerms": [{on_n1}]}}}}"#);
/// let metadata = format!(r#"{{"name": "agent-x", "uid": "p", "ownerReferences": [{owner}]}}"#);
/// let pod = format!(r#"{{"metadata": {metadata}, "spec": {{"affinity": {{"nodeAffinity": {required}}}}}}}"#);
/// let body = format!(r#"{{"Pod": {pod}, "NodeNames": ["n1", "n2"]}}"#);
///
/// let args = ExtenderArgs::parse(body.as_bytes())?;
/// let result = filter_standalone(&Policy::default(), &args);
/// let json = String::from_utf8(result.body.to_vec(body.as_bytes())).expect("JSON is UTF-8");
/// assert!(json.contains(r#""NodeNames":["n1"]"#), "the pod is for n1: {json}");
/// assert!(json.contains("were not the daemon pod's target"), "n2 is refused: {json}");
/// # Ok::<(), daemonset_warden::api::extender_v1::BadArgs>(())
/// ```
pub fn filter_standalone(policy: &Policy, args: &ExtenderArgs<'_>) -> FilterResult {
    answer_verdicts(args, PreparedFilter::new(policy, args, &DecodeBudget::default()).judge_standalone())
}

/// The nodes of a call beyond those that the cache has. A cache that is fresh lacks a second's new nodes at most, and a call that
/// names more nodes names some of them often.
const UNKNOWN_NODES: usize = 1_000;

/// A filter call before the cache is locked. The lock is held for [`PreparedFilter::judge_with_cache`] only: neither for reading
/// the pod nor for writing the response.
#[derive(Debug)]
pub struct PreparedFilter<'a> {
    args: &'a ExtenderArgs<'a>,
    target: Option<TargetNodeFilter<'a>>,
    demand: IncomingDemand<'a>,
}

impl<'a> PreparedFilter<'a> {
    /// Computes the facts about the pod and its target.
    pub fn new(policy: &Policy, args: &'a ExtenderArgs<'a>, budget: &DecodeBudget<'_>) -> Self {
        let target = TargetNodeFilter::read(policy, args, budget);
        Self { args, target, demand: IncomingDemand::of(&args.pod) }
    }

    /// Returns the verdicts without a cache; see [`filter_standalone`].
    pub fn judge_standalone(self) -> Verdicts<FilterReason> {
        let Self { args, mut target, .. } = self;
        args.judge(|name, _| target.as_mut()?.refuse(name))
    }

    /// Returns the verdicts with the cache that `lock` locks. In addition, a pod is refused on nodes where it would take reserved
    /// room, and is then assumed on the allowed ones. A pod whose DaemonSet does not exist or does not select it counts as an
    /// ordinary pod.
    ///
    /// A call that names more nodes than there are is not judged: each is allowed, and nothing is assumed. The lock is given to
    /// others in between if there is much to judge.
    pub fn judge_with_cache<G: DerefMut<Target = View>>(
        self,
        mut lock: impl FnMut() -> G,
        now: Instant,
    ) -> (Verdicts<FilterReason>, FilterStats) {
        let Self { args, mut target, demand } = self;
        let mut reasons = Vec::with_capacity(args.node_count());
        let mut progress = FilterProgress::default();
        loop {
            let mut view = lock();
            let View { cache, reservation } = &mut *view;
            if args.node_count() > cache.node_capacity() + UNKNOWN_NODES {
                drop(view);
                return (args.judge(|_, _| None), FilterStats { would_refuse: 0, is_judged: false });
            }
            let mut target = target.as_mut().filter(|_| cache.verified_daemon_set(&args.pod).is_some());
            let mut call = reservation.resume_filter(cache, &demand, progress, now);
            while reasons.len() < args.node_count() && !call.is_long() {
                reasons.push(args.name(reasons.len()).and_then(|name| {
                    let misplaced = target.as_mut().and_then(|target| target.refuse(&name));
                    misplaced.or_else(|| call.refuse(&name))
                }));
            }
            if reasons.len() == args.node_count() {
                let stats = call.finish();
                drop(view);
                return (Verdicts::of_reasons(reasons), stats);
            }
            progress = call.pause();
        }
    }
}
