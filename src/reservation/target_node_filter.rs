//! The nodes that a daemon pod's own spec excludes.

use super::filter_reason::FilterReason;
use crate::api::decode_budget::DecodeBudget;
use crate::api::extender_v1::{ExtenderArgs, FullNode};
use crate::api::pod::{Pod, PodSpec};
use crate::daemonset::daemon_pod::{daemon_set_reference, target_node_name};
use crate::policy::Policy;
use crate::policy::opt_out::is_opted_out;
use crate::scheduling::node_affinity::required_node_affinity_matches;
use crate::scheduling::taints::find_untolerated_taint;

/// The Nodes of the target's name that are judged. A scheduler sends one; those beyond are allowed.
const MAX_TARGETS: usize = 8;

/// The filter of one daemon pod's nodes.
#[derive(Debug, Clone)]
pub struct TargetNodeFilter<'p> {
    target: &'p str,
    spec: &'p PodSpec,
    /// The verdicts on the Nodes of the target's name, in order, if Nodes were sent whole.
    verdicts: std::vec::IntoIter<Option<FilterReason>>,
}

impl<'p> TargetNodeFilter<'p> {
    /// Returns the filter of the pod of `args`; `None` for a pod that passes on every node: an ordinary one, one that opted out,
    /// and a daemon pod without a target. Judges the target, which takes time and memory for a pod with many terms or a Node with
    /// many labels: call it before the cache is locked.
    pub fn read(policy: &Policy, args: &'p ExtenderArgs<'_>, budget: &DecodeBudget<'_>) -> Option<Self> {
        let filter = Self::new(policy, &args.pod)?;
        let targets = args.nodes_named(filter.target, MAX_TARGETS);
        let verdicts: Vec<_> = targets.map(|node| filter.judge(node, budget)).collect();
        Some(Self { verdicts: verdicts.into_iter(), ..filter })
    }

    fn new(policy: &Policy, pod: &'p Pod) -> Option<Self> {
        daemon_set_reference(&policy.daemon_set_kinds, &pod.metadata)?;
        if is_opted_out(&pod.metadata.labels) {
            return None;
        }
        Some(Self { target: target_node_name(&pod.spec)?, spec: &pod.spec, verdicts: Vec::new().into_iter() })
    }

    /// Returns the reason for which the pod is refused on the node `name`. Call it for each node, in order.
    pub fn refuse(&mut self, name: &str) -> Option<FilterReason> {
        if name == self.target { self.verdicts.next().flatten() } else { Some(FilterReason::NotTarget) }
    }

    /// Judges the target. A part of the Node that cannot be read refuses nothing: the scheduler has read it, and checks it itself.
    fn judge(&self, node: &FullNode<'_>, budget: &DecodeBudget<'_>) -> Option<FilterReason> {
        if let Some(labels) = node.labels(budget) {
            let required = self.spec.affinity.node_affinity.required.as_ref();
            if !required_node_affinity_matches(&self.spec.node_selector, required, self.target, &labels) {
                return Some(FilterReason::NodeSelector);
            }
        }
        let taints = node.taints(budget)?;
        find_untolerated_taint(&taints, &self.spec.tolerations).map(|_| FilterReason::Taint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut filter = TargetNodeFilter::new(&policy, &pod).unwrap();
        assert_eq!((filter.refuse("n2"), filter.refuse("n1")), (Some(FilterReason::NotTarget), None));
        let refuse =
            |labels, taints| filter.judge(&FullNode::new(Some(labels), taints), &DecodeBudget::default());
        let ssd = r#"{"disk":"ssd"}"#;
        let tainted = Some(r#"[{"key":"gpu","effect":"NoSchedule"},{"key":"a","effect":"NoExecute"}]"#);
        assert_eq!(refuse("{}", tainted), Some(FilterReason::NodeSelector));
        assert_eq!(refuse("null", None), Some(FilterReason::NodeSelector));
        assert_eq!(refuse(ssd, tainted), Some(FilterReason::Taint));
        assert_eq!(refuse(ssd, Some(r#"[{"key":"gpu","effect":"NoSchedule"}]"#)), None);
        assert_eq!(refuse(ssd, Some(r#"[{"key":"a","effect":"PreferNoSchedule"}]"#)), None);
        assert_eq!(refuse(ssd, Some("null")), None);
        assert_eq!(refuse("[]", Some("{}")), None, "what cannot be read refuses nothing");
    }
}
