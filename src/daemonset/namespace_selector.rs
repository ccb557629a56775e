//! Node selectors that admission plugins add to the pods of a namespace.
//!
//! The DaemonSet controller does not read them: it creates pods for nodes that they exclude, and such a pod never runs.
//! After kubernetes v1.36.3 plugin/pkg/admission/podnodeselector/admission.go and OpenShift's plugin of the same kind.

use std::collections::BTreeMap;

use crate::api::policy_objects::Namespace;

/// The annotation that the PodNodeSelector admission plugin reads.
pub const POD_NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The annotation that OpenShift reads. An empty value turns off the cluster's default selector.
pub const OPENSHIFT_NODE_SELECTOR: &str = "openshift.io/node-selector";

/// A node selector in an annotation of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSelector {
    /// The key of the annotation.
    pub annotation: &'static str,
    /// The labels that a node must have.
    pub labels: BTreeMap<String, String>,
}

impl NamespaceSelector {
    /// Returns the first label of the selector, as key and value, that a node with `node_labels` does not have. Returns `None` if
    /// the node has them all.
    pub fn missing_label<'s>(&'s self, node_labels: &BTreeMap<String, String>) -> Option<(&'s str, &'s str)> {
        let lacks = |(key, value): &(&String, &String)| node_labels.get(*key) != Some(*value);
        self.labels.iter().find(lacks).map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Returns the node selectors in the annotations of a namespace; an annotation without a label gives none.
pub fn selectors_of(namespace: &Namespace) -> impl Iterator<Item = NamespaceSelector> {
    [POD_NODE_SELECTOR, OPENSHIFT_NODE_SELECTOR].into_iter().filter_map(|annotation| {
        let labels = parse(namespace.metadata.annotations.get(annotation)?);
        (!labels.is_empty()).then_some(NamespaceSelector { annotation, labels })
    })
}

/// Parses `key=value,key=value` (`labels.ConvertSelectorToLabelsMap`). A part of another form is skipped, although the plugin
/// refuses it.
fn parse(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let trimmed =
        pairs.map(|(key, value)| (key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()));
    trimmed.filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_pairs() {
        assert_eq!(
            parse(" a=b, c = d ,, e,=f"),
            BTreeMap::from([("a", "b"), ("c", "d")].map(|(key, value)| (key.into(), value.into())))
        );
        let namespace: Namespace = serde_json::from_str(
            r#"{"metadata":{"annotations":{"openshift.io/node-selector":"","scheduler.alpha.kubernetes.io/node-selector":"zone=a"}}}"#,
        )
        .unwrap();
        let selectors: Vec<_> = selectors_of(&namespace).collect();
        assert_eq!(selectors.len(), 1);
        assert_eq!(selectors[0].missing_label(&BTreeMap::new()), Some(("zone", "a")));
        assert_eq!(selectors[0].missing_label(&BTreeMap::from([("zone".into(), "a".into())])), None);
    }
}
