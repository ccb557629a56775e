//! What makes a pod a daemon pod, which node it is for, and what its controller gives it.
//!
//! After kubernetes v1.36.3 pkg/controller/daemon/util/daemonset_util.go (`GetTargetNodeName`,
//! `AddOrUpdateDaemonPodTolerations`, `ReplaceDaemonSetPodNodeNameNodeAffinity`).

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration};

use crate::api::meta::{GroupKind, Metadata, OwnerReference};
use crate::api::pod::{MIRROR_ANNOTATION, PodSpec};
use crate::scheduling::node_affinity::METADATA_NAME;
use crate::scheduling::taints::{NO_EXECUTE, NO_SCHEDULE};

/// The label that the controller writes on each pod: the hash of the template that it was made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// The label that the controller writes on each pod: the generation of the template that it was made from.
pub const GENERATION_LABEL: &str = "pod-template-generation";
/// The annotation by which apps/v1 carries the generation of a DaemonSet's template.
pub const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// The scheduler name that controllers wrote which bound daemon pods themselves; no scheduler owns it.
pub const LEGACY_SCHEDULER_NAME: &str = "kubernetes.io/daemonset-controller";

/// The reference to the DaemonSet that controls a pod, if that is one of `kinds`.
///
/// Anybody who may create pods can write such a reference: on its own it earns nothing that the author of a pod could not
/// write anyway. Mirror pods are the kubelet's and are nobody's daemon pods.
pub fn daemon_set_reference<'p>(kinds: &[GroupKind], pod: &'p Metadata) -> Option<&'p OwnerReference> {
    let is_daemon_set = |owner: &&OwnerReference| {
        kinds.iter().any(|kind| kind.kind == owner.kind && kind.group == owner.group())
    };
    pod.controller().filter(is_daemon_set).filter(|_| !pod.annotations.contains_key(MIRROR_ANNOTATION))
}

/// The node that a daemon pod is for, as its controller reads it (`GetTargetNodeName`): `spec.nodeName`, else the one value of
/// the first `metadata.name In` among the fields of its required node affinity. `None` when there is none or several.
pub fn target_node_name(spec: &PodSpec) -> Option<&str> {
    if !spec.node_name.is_empty() {
        return Some(&spec.node_name);
    }
    target_in_affinity(spec.affinity.node_affinity.required.as_ref()?)
}

fn target_in_affinity(required: &NodeSelector) -> Option<&str> {
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == METADATA_NAME && field.operator == "In");
    match names.next()?.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}

/// Whether `required` allows `node` alone, in the controller's own form.
pub fn is_target_affinity(required: &NodeSelector, node: &str) -> bool {
    let [term] = required.node_selector_terms.as_slice() else { return false };
    let no_expressions = term.match_expressions.as_deref().unwrap_or_default().is_empty();
    no_expressions
        && match term.match_fields.as_deref() {
            Some([field]) => {
                field.key == METADATA_NAME
                    && field.operator == "In"
                    && field.values.as_deref() == Some(&[node.to_owned()])
            }
            _ => false,
        }
}

/// The terms that allow `node` alone.
pub fn target_terms(node: &str) -> Vec<NodeSelectorTerm> {
    let field = NodeSelectorRequirement {
        key: METADATA_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    vec![NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![field]) }]
}

/// Key and effect of the taints that daemon pods tolerate; the last for those on the host's network only.
const TOLERATED: [(&str, &str); 7] = [
    // The node's controller must not evict daemon pods while the node is not ready or cannot be reached: they belong to it.
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    // Daemon pods are not kept off a node that is short of something: they may be what reports or mends it.
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    // A cordoned node keeps its daemons.
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
    // The network plugin itself is a daemon.
    ("node.kubernetes.io/network-unavailable", NO_SCHEDULE),
];

/// Key and effect of the tolerations that the controller gives each daemon pod, in its order; all with operator Exists.
pub fn daemon_tolerations(host_network: bool) -> &'static [(&'static str, &'static str)] {
    if host_network { &TOLERATED } else { &TOLERATED[..TOLERATED.len() - 1] }
}

/// The toleration of one entry of [`daemon_tolerations`].
pub fn toleration(key: &str, effect: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    }
}

/// `existing` with the daemon tolerations: an entry of the same key, operator, value and effect is replaced in its place
/// (its seconds are dropped), what is not there is appended.
pub fn with_daemon_tolerations(existing: &[Toleration], host_network: bool) -> Vec<Toleration> {
    let mut merged = existing.to_vec();
    for (key, effect) in daemon_tolerations(host_network) {
        let wanted = toleration(key, effect);
        let mut found = false;
        for own in merged.iter_mut().filter(|own| is_same_toleration(own, key, effect)) {
            own.clone_from(&wanted);
            found = true;
        }
        if !found {
            merged.push(wanted);
        }
    }
    merged
}

/// Whether `own` differs from the daemon toleration in its seconds at most (`MatchToleration`: empty is not Exists).
pub fn is_same_toleration(own: &Toleration, key: &str, effect: &str) -> bool {
    own.key.as_deref() == Some(key)
        && own.effect.as_deref() == Some(effect)
        && own.operator.as_deref() == Some("Exists")
        && own.value.as_deref().unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> PodSpec {
        serde_json::from_str(json).unwrap()
    }

    fn required(terms: &str) -> String {
        format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{terms}}}}}}}}}"#
        )
    }

    #[test]
    fn target_is_the_first_single_name() {
        let name = |operator: &str, values: &str| {
            format!(r#"{{"key":"metadata.name","operator":"{operator}","values":{values}}}"#)
        };
        let fields = |fields: &[String]| format!(r#"{{"matchFields":[{}]}}"#, fields.join(","));
        let cases = [
            ("[]".to_owned(), None),
            (r#"[{"matchExpressions":[{"key":"a","operator":"Exists"}]}]"#.to_owned(), None),
            (format!("[{}]", fields(&[name("In", r#"["n1"]"#)])), Some("n1")),
            (format!("[{}]", fields(&[name("NotIn", r#"["n0"]"#), name("In", r#"["n1"]"#)])), Some("n1")),
            (format!("[{{}},{}]", fields(&[name("In", r#"["n1"]"#)])), Some("n1")),
            (format!("[{}]", fields(&[name("In", r#"["n1","n2"]"#), name("In", r#"["n3"]"#)])), None),
            (format!("[{}]", fields(&[name("In", "[]")])), None),
        ];
        for (terms, expected) in cases {
            assert_eq!(target_node_name(&spec(&required(&terms))), expected, "{terms}");
        }
        assert_eq!(target_node_name(&spec("{}")), None);
        assert_eq!(target_node_name(&spec(r#"{"nodeName":"n9"}"#)), Some("n9"));
    }

    #[test]
    fn target_terms_are_the_controllers_form() {
        let required = NodeSelector { node_selector_terms: target_terms("n1") };
        assert!(is_target_affinity(&required, "n1") && !is_target_affinity(&required, "n2"));
        assert_eq!(target_in_affinity(&required), Some("n1"));
    }

    #[test]
    fn tolerations_merge_in_place_and_are_idempotent() {
        let existing: Vec<Toleration> = serde_json::from_str(
            r#"[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},
                {"operator":"Exists"},
                {"key":"node.kubernetes.io/disk-pressure","operator":"Exists"},
                {"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}]"#,
        )
        .unwrap();
        let merged = with_daemon_tolerations(&existing, false);
        assert_eq!(merged.len(), 4 + 5);
        assert_eq!((merged[0].toleration_seconds, merged[3].toleration_seconds), (None, None));
        assert_eq!(merged[1..3], existing[1..3]);
        assert_eq!(with_daemon_tolerations(&merged, false), merged);
        assert_eq!(with_daemon_tolerations(&merged, true).len(), merged.len() + 1);
    }
}
