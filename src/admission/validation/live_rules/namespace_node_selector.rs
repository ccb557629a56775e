//! `namespace-node-selector`: a node selector of the namespace that contradicts the template's or hides nodes from it.

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, ErrorList, Path};
use crate::api::node::Node;
use crate::api::policy_objects::Namespace;
use crate::daemonset::namespace_selector::{NamespaceSelector, selectors_of};
use crate::policy::Level;

pub(super) const RULE: LiveRule = LiveRule {
    id: "namespace-node-selector",
    default_level: Level::Warn,
    finds: "a node selector in an annotation of the namespace that contradicts the template's, or excludes some of the DaemonSet's nodes",
    rationale: "The DaemonSet controller does not read the namespace's selector (`scheduler.alpha.kubernetes.io/node-selector` of the PodNodeSelector plugin, `openshift.io/node-selector`): it creates pods for the excluded nodes, which stay Pending or are created and deleted without end. Set the annotation to an empty value, or select the same nodes in the template.",
    source: "plugin/pkg/admission/podnodeselector/admission.go (`Admit`)",
    check,
};

/// The selectors of the DaemonSet's namespace, each with the number of the DaemonSet's nodes that it excludes.
#[derive(Debug, Default)]
pub(super) struct HiddenNodes(Vec<(NamespaceSelector, usize)>);

impl HiddenNodes {
    pub(super) fn new(namespace: Option<&Namespace>) -> Self {
        Self(namespace.into_iter().flat_map(selectors_of).map(|selector| (selector, 0)).collect())
    }

    /// Counts one of the DaemonSet's nodes.
    pub(super) fn add(&mut self, node: &Node) {
        for (selector, count) in &mut self.0 {
            *count += usize::from(selector.missing_label(&node.metadata.labels).is_some());
        }
    }
}

fn check(data: &LiveData<'_>) -> ErrorList {
    data.hidden_nodes.0.iter().filter_map(|(selector, hidden)| fault(data, selector, *hidden)).collect()
}

fn fault(data: &LiveData<'_>, selector: &NamespaceSelector, hidden: usize) -> Option<Error> {
    let path = Path::new("spec.template.spec.nodeSelector");
    let own = &data.daemon_set.spec.template.spec.node_selector;
    let annotation = selector.annotation;
    let contradicts = |(key, value): &(&String, &String)| own.get(*key).is_some_and(|own| own != *value);
    if let Some((key, value)) = selector.labels.iter().find(contradicts) {
        let detail = format!("the namespace's {annotation} wants {key}={value}: every pod would be refused");
        return Some(Error::invalid(path, own, detail));
    }
    let all = nodes(data.matching);
    let detail = format!(
        "the namespace's {annotation} hides {hidden} of the {all} that the DaemonSet is for: pods there never run"
    );
    (hidden > 0).then(|| Error::forbidden(path, detail))
}
