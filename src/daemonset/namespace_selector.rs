//! Node selectors that a namespace gives to its pods behind their authors' backs.
//!
//! The DaemonSet controller knows nothing of them: it creates pods for nodes that they exclude, which then never run there.
//! After kubernetes v1.36.3 plugin/pkg/admission/podnodeselector/admission.go and OpenShift's plugin of the same kind.

use std::collections::BTreeMap;

use crate::api::policy_objects::Namespace;

/// Read by the PodNodeSelector admission plugin.
pub const POD_NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// Read by OpenShift; empty switches the cluster's own default off.
pub const OPENSHIFT_NODE_SELECTOR: &str = "openshift.io/node-selector";

/// A node selector of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSelector {
    /// The annotation that it stands in.
    pub annotation: &'static str,
    /// Labels that a node must have.
    pub labels: BTreeMap<String, String>,
}

impl NamespaceSelector {
    /// The label that a node with these lacks, if any.
    pub fn lacking<'s>(&'s self, node_labels: &BTreeMap<String, String>) -> Option<(&'s str, &'s str)> {
        let lacks = |(key, value): &(&String, &String)| node_labels.get(*key) != Some(*value);
        self.labels.iter().find(lacks).map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The selectors of a namespace that select anything.
pub fn selectors_of(namespace: &Namespace) -> impl Iterator<Item = NamespaceSelector> {
    [POD_NODE_SELECTOR, OPENSHIFT_NODE_SELECTOR].into_iter().filter_map(|annotation| {
        let labels = parse(namespace.metadata.annotations.get(annotation)?);
        (!labels.is_empty()).then_some(NamespaceSelector { annotation, labels })
    })
}

/// `key=value,key=value` (`labels.ConvertSelectorToLabelsMap`); what is none is left to the plugin to refuse.
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
        assert_eq!(selectors[0].lacking(&BTreeMap::new()), Some(("zone", "a")));
        assert_eq!(selectors[0].lacking(&BTreeMap::from([("zone".into(), "a".into())])), None);
    }
}
