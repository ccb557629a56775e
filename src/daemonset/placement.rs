//! Whether a node should run a pod of a DaemonSet.
//!
//! After kubernetes v1.36.3 pkg/controller/daemon/daemon_controller.go (`NodeShouldRunDaemonPod`, `predicates`).

use std::fmt;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::daemon_pod::with_daemon_tolerations;
use crate::api::node::Node;
use crate::api::pod::PodSpec;
use crate::scheduling::node_affinity::required_node_affinity_matches;
use crate::scheduling::taints::{NO_EXECUTE, any_tolerates, find_untolerated_taint, keeps_pods_off};

/// What the controller makes of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement<'n> {
    /// Whether it creates a pod there.
    pub should_run: bool,
    /// Whether it leaves a pod there that already runs.
    pub should_continue_running: bool,
    /// Why it does not create one; `None` when it does.
    pub reason: Option<Reason<'n>>,
}

/// Why a DaemonSet does not create a pod on a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason<'n> {
    /// The template names another node.
    NodeName(String),
    /// The node lacks a label of the template's nodeSelector.
    NodeSelector {
        /// The label's key.
        key: String,
        /// The value that it should have.
        value: String,
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

/// What `template` makes of `node`.
///
/// Resources, ports, conditions and `spec.unschedulable` itself are not looked at: the controller creates the pod and the
/// scheduler finds out.
pub fn node_should_run_daemon_pod<'n>(template: &PodSpec, node: &'n Node) -> Placement<'n> {
    let tolerations = with_daemon_tolerations(&template.tolerations, template.host_network);
    place(template, &tolerations, node)
}

/// [`node_should_run_daemon_pod`] with the template's tolerations already merged with the controller's: merge once, ask for
/// every node.
pub fn place<'n>(template: &PodSpec, tolerations: &[Toleration], node: &'n Node) -> Placement<'n> {
    if let Some(reason) = excluded(template, node) {
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

/// True if node name, node selector, node affinity and taints let a pod onto a node. Taints that `ignores` are not looked at.
pub fn admits(
    spec: &PodSpec,
    tolerations: &[Toleration],
    node: &Node,
    ignores: impl Fn(&Taint) -> bool,
) -> bool {
    let mut taints = node.spec.taints.iter().filter(|taint| keeps_pods_off(taint) && !ignores(taint));
    excluded(spec, node).is_none() && taints.all(|taint| any_tolerates(tolerations, taint))
}

/// Why the template's nodeName, nodeSelector or required affinity excludes the node.
pub fn excluded(template: &PodSpec, node: &Node) -> Option<Reason<'static>> {
    let name = &node.metadata.name;
    let labels = &node.metadata.labels;
    if !template.node_name.is_empty() && template.node_name != *name {
        return Some(Reason::NodeName(template.node_name.clone()));
    }
    let missing = template.node_selector.iter().find(|(key, value)| labels.get(*key) != Some(value));
    if let Some((key, value)) = missing {
        return Some(Reason::NodeSelector { key: key.clone(), value: value.clone() });
    }
    let required = template.affinity.node_affinity.required.as_ref();
    let matches = required_node_affinity_matches(&template.node_selector, required, name, labels);
    (!matches).then_some(Reason::NodeAffinity)
}
