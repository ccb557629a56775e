//! `namespace-node-selector`: a node selector of the namespace that contradicts the template's or hides nodes from it.

use super::{LiveData, LiveRule, nodes};
use crate::api::field::{Error, Path};
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

fn check(data: &LiveData<'_>) -> Vec<Error> {
    let namespace = data.cluster.namespace(&data.daemon_set.metadata.namespace);
    namespace.into_iter().flat_map(selectors_of).filter_map(|selector| fault(data, &selector)).collect()
}

fn fault(data: &LiveData<'_>, selector: &NamespaceSelector) -> Option<Error> {
    let path = Path::new("spec.template.spec.nodeSelector");
    let own = &data.daemon_set.spec.template.spec.node_selector;
    let annotation = selector.annotation;
    let contradicts = |(key, value): &(&String, &String)| own.get(*key).is_some_and(|own| own != *value);
    if let Some((key, value)) = selector.labels.iter().find(contradicts) {
        let detail = format!("the namespace's {annotation} wants {key}={value}: every pod would be refused");
        return Some(Error::invalid(path, own, detail));
    }
    let hidden =
        data.matching.iter().filter(|(_, node)| selector.missing_label(&node.metadata.labels).is_some());
    let count = hidden.count();
    let all = nodes(data.matching.len());
    let detail = format!(
        "the namespace's {annotation} hides {count} of the {all} that the DaemonSet is for: pods there never run"
    );
    (count > 0).then(|| Error::forbidden(path, detail))
}
