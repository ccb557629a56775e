//! The marks of a daemon pod: its controller, its target node, and the tolerations that the controller adds.
//!
//! After kubernetes v1.36.3 pkg/controller/daemon/util/daemonset_util.go (`GetTargetNodeName`,
//! `AddOrUpdateDaemonPodTolerations`, `ReplaceDaemonSetPodNodeNameNodeAffinity`).

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration};

use crate::api::meta::{GroupKind, Metadata, OwnerReference};
use crate::api::pod::{MIRROR_ANNOTATION, PodSpec};
use crate::scheduling::node_affinity::METADATA_NAME;
use crate::scheduling::taints::{NO_EXECUTE, NO_SCHEDULE};

/// The label with the hash of the template; the DaemonSet controller writes it on each pod.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// The label with the generation of the template; the DaemonSet controller writes it on each pod.
pub const GENERATION_LABEL: &str = "pod-template-generation";
/// The annotation with the generation of the template; it stands on the DaemonSet in apps/v1.
pub const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// The `schedulerName` that legacy DaemonSet controllers wrote into their pods, which they bound themselves. No scheduler has this
/// name.
pub const LEGACY_SCHEDULER_NAME: &str = "kubernetes.io/daemonset-controller";

/// Returns the reference to the pod's controller. Returns `None` if the controller is not of one of `kinds`, and for a mirror pod,
/// which belongs to the kubelet.
///
/// Every user who may create pods can write such a reference. Never grant rights for it alone that the author of the pod does not
/// have.
pub fn daemon_set_reference<'p>(kinds: &[GroupKind], pod: &'p Metadata) -> Option<&'p OwnerReference> {
    let is_daemon_set = |owner: &&OwnerReference| {
        kinds.iter().any(|kind| kind.kind == owner.kind && kind.group == owner.group())
    };
    pod.controller().filter(is_daemon_set).filter(|_| !pod.annotations.contains_key(MIRROR_ANNOTATION))
}

/// Returns the target node of a daemon pod as the DaemonSet controller reads it (`GetTargetNodeName`): `spec.nodeName`, else the
/// value of the first `metadata.name In` among the fields of the required node affinity. Returns `None` if there is no such field,
/// or if it does not have exactly one value.
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

/// Returns true if `required` allows only `node`, in the form that the DaemonSet controller writes. Returns false for any other
/// form that allows only `node`.
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

/// Returns the node selector terms that allow only `node`, in the form that the DaemonSet controller writes.
pub fn target_terms(node: &str) -> Vec<NodeSelectorTerm> {
    let field = NodeSelectorRequirement {
        key: METADATA_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    vec![NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![field]) }]
}

/// Key and effect of the taints that daemon pods tolerate; the last taint only with `hostNetwork`.
const TOLERATED: [(&str, &str); 7] = [
    // The node controller must not evict daemon pods while the node is not ready or unreachable: they belong to the node.
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    // Daemon pods run on a node under pressure too: one of them may report or end the pressure.
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    // A cordoned node gets its daemon pods.
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
    // The network plugin itself is a daemon pod.
    ("node.kubernetes.io/network-unavailable", NO_SCHEDULE),
];

/// Returns key and effect of the tolerations that the DaemonSet controller gives each pod, in its order. All have operator Exists.
pub fn daemon_tolerations(host_network: bool) -> &'static [(&'static str, &'static str)] {
    if host_network { &TOLERATED } else { &TOLERATED[..TOLERATED.len() - 1] }
}

/// Returns the toleration for one entry of [`daemon_tolerations`].
pub fn toleration(key: &str, effect: &str) -> Toleration {
    Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    }
}

/// Returns `existing` with the daemon tolerations, as the DaemonSet controller merges them. A toleration with the key, operator,
/// value and effect of a daemon toleration is replaced in its place, which drops its seconds. Missing daemon tolerations are
/// appended.
pub fn with_daemon_tolerations(existing: &[Toleration], host_network: bool) -> Vec<Toleration> {
    let mut merged = existing.to_vec();
    for (key, effect) in daemon_tolerations(host_network) {
        let daemon_toleration = toleration(key, effect);
        let mut found = false;
        let is_same = |own: &&mut Toleration| {
            let fields = [&own.key, &own.operator, &own.value, &own.effect];
            is_same_toleration(fields.map(|field| field.as_deref().unwrap_or_default()), (key, effect))
        };
        for own in merged.iter_mut().filter(is_same) {
            own.clone_from(&daemon_toleration);
            found = true;
        }
        if !found {
            merged.push(daemon_toleration);
        }
    }
    merged
}

/// Returns true if a toleration differs at most in its seconds from the daemon toleration of this key and effect
/// (`MatchToleration`: an empty operator is not Exists). A missing field is empty, as in Go.
pub fn is_same_toleration(
    [own_key, operator, value, own_effect]: [&str; 4],
    (key, effect): (&str, &str),
) -> bool {
    own_key == key && own_effect == effect && operator == "Exists" && value.is_empty()
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
