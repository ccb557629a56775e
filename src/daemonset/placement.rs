//! The DaemonSet controller's decision to run a pod of a DaemonSet on a node.
//!
//! After kubernetes v1.36.3 pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`, `predicates`).

use std::fmt;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::daemon_pod::with_daemon_tolerations;
use crate::api::node::Node;
use crate::api::pod::PodSpec;
use crate::scheduling::node_affinity::required_node_affinity_matches;
use crate::scheduling::taints::{NO_EXECUTE, any_tolerates, blocks_scheduling, find_untolerated_taint};

/// The decision of the DaemonSet controller about one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement<'n> {
    /// True if the controller creates a pod on the node.
    pub should_run: bool,
    /// True if the controller leaves a pod that already runs on the node.
    pub should_continue_running: bool,
    /// The reason not to create a pod; `None` if `should_run`.
    pub reason: Option<Reason<'n>>,
}

/// The reason for a DaemonSet to have no pod on a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason<'n> {
    /// The template names another node.
    NodeName(&'n str),
    /// The node lacks a label of the template's nodeSelector.
    NodeSelector {
        /// The key of the label.
        key: &'n str,
        /// The value that the template asks for.
        value: &'n str,
    },
    /// No term of the template's required node affinity matches.
    NodeAffinity,
    /// The first taint that the daemon pod does not tolerate.
    Taint(&'n Taint),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeName(name) => write!(f, "the template's nodeName is {name}"),
            Self::NodeSelector { key, value } => {
                write!(f, "the node doesn't match the template's nodeSelector {key}={value}")
            }
            Self::NodeAffinity => f.write_str("the node doesn't match the template's required node affinity"),
            Self::Taint(taint) => {
                let value = taint.value.as_deref().filter(|value| !value.is_empty());
                let value = value.map_or_else(String::new, |value| format!("={value}"));
                write!(
                    f,
                    "the daemon pod doesn't tolerate the node's taint {}{value}:{}",
                    taint.key, taint.effect
                )
            }
        }
    }
}

/// Returns the DaemonSet controller's decision about a pod of `template` on `node`.
///
/// Resources, ports, conditions and `spec.unschedulable` itself do not count: the controller creates the pod regardless, and the
/// scheduler checks them.
///
/// ```
/// use daemonset_warden::api::{node::Node, pod::PodSpec};
/// use daemonset_warden::daemonset::placement::node_should_run_daemon_pod;
///
/// let template: PodSpec = serde_json::from_str(r#"{"nodeSelector":{"disk":"ssd"}}"#)?;
/// let mut node = Node::default();
/// let placement = node_should_run_daemon_pod(&template, &node);
/// assert!(!placement.should_run);
/// assert_eq!(
///     placement.reason.unwrap().to_string(),
///     "the node doesn't match the template's nodeSelector disk=ssd"
/// );
///
/// node.metadata.labels.insert("disk".into(), "ssd".into());
/// assert!(node_should_run_daemon_pod(&template, &node).should_run);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn node_should_run_daemon_pod<'n>(template: &'n PodSpec, node: &'n Node) -> Placement<'n> {
    let tolerations = with_daemon_tolerations(&template.tolerations, template.host_network);
    place(template, &tolerations, node)
}

/// Returns the decision of [`node_should_run_daemon_pod`], for a caller that decides about many nodes. `tolerations` are those of
/// the template, merged once by [`with_daemon_tolerations`].
pub fn place<'n>(template: &'n PodSpec, tolerations: &[Toleration], node: &'n Node) -> Placement<'n> {
    if let Some(reason) = exclusion(template, node) {
        return Placement { should_run: false, should_continue_running: false, reason: Some(reason) };
    }
    match find_untolerated_taint(&node.spec.taints, tolerations) {
        None => Placement { should_run: true, should_continue_running: true, reason: None },
        Some(taint) => {
            let mut evicting = node.spec.taints.iter().filter(|taint| taint.effect == NO_EXECUTE);
            Placement {
                should_run: false,
                should_continue_running: evicting.all(|taint| any_tolerates(tolerations, taint)),
                reason: Some(Reason::Taint(taint)),
            }
        }
    }
}

/// Returns true if node name, node selector, node affinity and taints allow a pod on a node. `tolerations` are all that the pod
/// has. Taints that `ignores` returns true for do not count.
pub fn admits(
    spec: &PodSpec,
    tolerations: &[Toleration],
    node: &Node,
    ignores: impl Fn(&Taint) -> bool,
) -> bool {
    exclusion(spec, node).is_none() && tolerates(tolerations, node, ignores)
}

/// Returns true if `tolerations` allow a pod on a node with these taints. Taints that `ignores` returns true for do not count.
pub fn tolerates(tolerations: &[Toleration], node: &Node, ignores: impl Fn(&Taint) -> bool) -> bool {
    let mut taints = node.spec.taints.iter().filter(|taint| blocks_scheduling(taint) && !ignores(taint));
    taints.all(|taint| any_tolerates(tolerations, taint))
}

/// Returns the reason if the template's nodeName, nodeSelector or required node affinity excludes the node; `None` if they allow
/// it.
fn exclusion<'t>(template: &'t PodSpec, node: &Node) -> Option<Reason<'t>> {
    let name = &node.metadata.name;
    let labels = &node.metadata.labels;
    if !template.node_name.is_empty() && template.node_name != *name {
        return Some(Reason::NodeName(&template.node_name));
    }
    let missing = template.node_selector.iter().find(|(key, value)| labels.get(*key) != Some(value));
    if let Some((key, value)) = missing {
        return Some(Reason::NodeSelector { key, value });
    }
    let required = template.affinity.node_affinity.required.as_ref();
    let matches = required_node_affinity_matches(&template.node_selector, required, name, labels);
    (!matches).then_some(Reason::NodeAffinity)
}
