//! Which nodes a pod may not go to, as `/scheduler/filter` answers: the texts, and the judgement of daemon pods that needs
//! nothing but the pod itself.

use std::time::Instant;

use super::filter::FilterStats;
use super::filter_reason::FilterReason;
use crate::api::extender_v1::{EchoedBody, ExtenderArgs, FullNode};
use crate::api::pod::{Pod, PodSpec};
use crate::cache::Cache;
use crate::daemonset::daemon_pod::{daemon_set_reference, target_node_name};
use crate::policy::Policy;
use crate::policy::opt_out::is_opted_out;
use crate::scheduling::node_affinity::required_node_affinity_matches;
use crate::scheduling::taints::find_untolerated_taint;

/// The answer and what it says, for the metrics.
#[derive(Debug)]
pub struct FilterResult {
    /// An ExtenderFilterResult in the mode asked.
    pub body: EchoedBody,
    /// How many nodes were sent.
    pub nodes: usize,
    /// How many of them were refused, by [`FilterReason::index`].
    pub refused: [usize; FilterReason::ALL.len()],
}

/// Answers what `refuse` says about each node, and counts the refused nodes by reason; see [`ExtenderArgs::filter`].
pub fn answer(
    args: &ExtenderArgs<'_>,
    refuse: impl FnMut(&str, Option<&FullNode<'_>>) -> Option<FilterReason>,
) -> FilterResult {
    let mut refused = [0; FilterReason::ALL.len()];
    let body = args.filter(refuse, |refusal: FilterReason| {
        refused[refusal.index()] += 1;
        refusal.message()
    });
    FilterResult { body, nodes: args.node_count(), refused }
}

/// The answer without a cluster to look at: daemon pods are judged by what they say of themselves, others pass.
pub fn alone(policy: &Policy, args: &ExtenderArgs<'_>) -> FilterResult {
    let judge = TargetNodeFilter::new(policy, &args.pod);
    answer(args, |name, node| judge.as_ref()?.refuse(name, node))
}

/// The answer with a cluster: what calls itself a daemon pod and is none is an ordinary pod, and room is kept.
pub fn in_cluster(cluster: &mut Cache, args: &ExtenderArgs<'_>, now: Instant) -> (FilterResult, FilterStats) {
    let policy = cluster.policy().clone();
    let is_genuine = cluster.genuine_target(&args.pod).is_some();
    let judge = is_genuine.then(|| TargetNodeFilter::new(&policy, &args.pod)).flatten();
    let mut call = cluster.judge(&args.pod, now);
    let result = answer(args, |name, node| {
        let misplaced = judge.as_ref().and_then(|judge| judge.refuse(name, node));
        misplaced.or_else(|| call.refuse(name))
    });
    (result, call.finish())
}

/// Judges the nodes of one daemon pod.
#[derive(Debug, Clone, Copy)]
pub struct TargetNodeFilter<'p> {
    target: &'p str,
    spec: &'p PodSpec,
}

impl<'p> TargetNodeFilter<'p> {
    /// A judge of `pod`; `None` for a pod that passes everywhere as far as it tells itself: an ordinary one, one that is
    /// labelled to be left alone, and a daemon pod without a target.
    pub fn new(policy: &Policy, pod: &'p Pod) -> Option<Self> {
        daemon_set_reference(&policy.daemon_set_kinds, &pod.metadata)?;
        if is_opted_out(&pod.metadata.labels) {
            return None;
        }
        Some(Self { target: target_node_name(&pod.spec)?, spec: &pod.spec })
    }

    /// Why the pod may not go to the node `name`, of which `node` was sent where nodes are sent whole.
    pub fn refuse(&self, name: &str, node: Option<&FullNode<'_>>) -> Option<FilterReason> {
        if name != self.target {
            return Some(FilterReason::NotTarget);
        }
        // What cannot be read of a node does not keep its daemon pod off: the scheduler has read it, and says so itself.
        let node = node?;
        if let Some(labels) = node.labels() {
            let required = self.spec.affinity.node_affinity.required.as_ref();
            if !required_node_affinity_matches(&self.spec.node_selector, required, name, &labels) {
                return Some(FilterReason::NodeSelector);
            }
        }
        let taints = node.taints()?;
        find_untolerated_taint(&taints, &self.spec.tolerations).map(|_| FilterReason::Taint)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn texts_and_labels_are_distinct_and_constant() {
        let texts: BTreeSet<_> = FilterReason::ALL.iter().map(|refusal| refusal.message()).collect();
        let labels: BTreeSet<_> = FilterReason::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!((texts.len(), labels.len()), (6, 6));
        assert!(FilterReason::ALL.iter().enumerate().all(|(index, refusal)| refusal.index() == index));
        // They are written between quotes as they are.
        assert!(texts.iter().all(|text| !text.contains(['"', '\\', '%']) && text.starts_with("node(s) ")));
    }

    fn pod(owner: &str, labels: &str, spec: &str) -> Pod {
        let text = format!(
            r#"{{"metadata":{{"labels":{labels},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"{owner}","name":"d","uid":"1","controller":true}}]}},"spec":{spec}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_daemon_pods_with_a_target_are_judged() {
        let policy = Policy::default();
        let bound = r#"{"nodeName":"n1"}"#;
        assert!(TargetNodeFilter::new(&policy, &pod("DaemonSet", "{}", bound)).is_some());
        assert!(TargetNodeFilter::new(&policy, &pod("DaemonSet", "{}", "{}")).is_none());
        assert!(TargetNodeFilter::new(&policy, &pod("ReplicaSet", "{}", bound)).is_none());
        let ignored = r#"{"daemonset-warden.io/ignore":"true"}"#;
        assert!(TargetNodeFilter::new(&policy, &pod("DaemonSet", ignored, bound)).is_none());
        let not_ignored = r#"{"daemonset-warden.io/ignore":"false"}"#;
        assert!(TargetNodeFilter::new(&policy, &pod("DaemonSet", not_ignored, bound)).is_some());
    }

    #[test]
    fn the_target_is_judged_by_selector_then_taints() {
        let policy = Policy::default();
        let spec = r#"{"nodeName":"n1","nodeSelector":{"disk":"ssd"},"tolerations":[{"key":"gpu","operator":"Exists"}]}"#;
        let pod = pod("DaemonSet", "{}", spec);
        let judge = TargetNodeFilter::new(&policy, &pod).unwrap();
        let refuse = |labels, taints| judge.refuse("n1", Some(&FullNode::new(Some(labels), taints)));
        let ssd = r#"{"disk":"ssd"}"#;
        let tainted = Some(r#"[{"key":"gpu","effect":"NoSchedule"},{"key":"a","effect":"NoExecute"}]"#);
        assert_eq!(judge.refuse("n2", None), Some(FilterReason::NotTarget));
        assert_eq!(judge.refuse("n1", None), None);
        assert_eq!(refuse("{}", tainted), Some(FilterReason::NodeSelector));
        assert_eq!(refuse("null", None), Some(FilterReason::NodeSelector));
        assert_eq!(refuse(ssd, tainted), Some(FilterReason::Taint));
        assert_eq!(refuse(ssd, Some(r#"[{"key":"gpu","effect":"NoSchedule"}]"#)), None);
        assert_eq!(refuse(ssd, Some(r#"[{"key":"a","effect":"PreferNoSchedule"}]"#)), None);
        assert_eq!(refuse(ssd, Some("null")), None);
        assert_eq!(refuse("[]", Some("{}")), None, "what cannot be read refuses nothing");
    }
}
