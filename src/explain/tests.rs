//! The choice among several pods, and the state that follows. tests/data/explain has goldens of all states.

use std::sync::Arc;

use super::inventory::Inventory;
use super::{DaemonPodState, RowFilter, explain};
use crate::api::meta::TypeMeta;
use crate::policy::Policy;

/// Returns the state, pod and reason of DaemonSet `s/a` with this spec on node `n` with these pods: name, metadata, spec, status.
fn row(spec: &str, pods: &[(&str, &str, &str, &str)]) -> (DaemonPodState, Option<String>, String) {
    let mut inventory = Inventory::new(Arc::new(Policy::default()));
    let mut apply = |api_version: &str, kind: &str, json: &str| {
        let kind = TypeMeta { api_version: api_version.into(), kind: kind.into() };
        assert!(inventory.apply(&kind, json).unwrap());
    };
    for (name, metadata, pod_spec, status) in pods {
        let owner =
            r#""ownerReferences":[{"apiVersion":"apps/v1","kind":"DaemonSet","name":"a","controller":true}]"#;
        let pod = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"s","labels":{{"a":"b"}},{owner}{metadata}}},"spec":{pod_spec},"status":{status}}}"#
        );
        apply("v1", "Pod", &pod);
    }
    let daemon_set = format!(
        r#"{{"metadata":{{"name":"a","namespace":"s"}},"spec":{{"selector":{{"matchLabels":{{"a":"b"}}}}{spec}}}}}"#
    );
    apply("apps/v1", "DaemonSet", &daemon_set);
    apply("v1", "Node", r#"{"metadata":{"name":"n"}}"#);
    let mut rows = explain(&inventory.cluster, &inventory.failures, &RowFilter::default());
    let row = rows.next().unwrap();
    (row.state, row.pod.map(str::to_owned), row.reason)
}

const BOUND: &str = r#"{"nodeName":"n"}"#;
const UNBOUND: &str = r#"{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}}}}"#;
const FAILED: &str = r#"{"phase":"Failed","reason":"Evicted"}"#;

#[test]
fn of_several_pods_the_right_one_counts() {
    let surge = r#","updateStrategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}"#;
    let at = |time: &str| format!(r#","creationTimestamp":"2026-01-01T00:00:0{time}Z""#);
    let (old, new) = (at("1"), at("2"));
    let leaving = r#","deletionTimestamp":"2026-01-01T00:01:00Z""#;
    let see = |spec: &str, pods: &[(&str, &str, &str, &str)]| {
        let (state, pod, _) = row(spec, pods);
        (state, pod)
    };
    let is = |state, pod: &str| (state, Some(pod.to_owned()));
    let two = [("old", old.as_str(), BOUND, "{}"), ("new", new.as_str(), UNBOUND, "{}")];
    assert_eq!(see(surge, &two), is(DaemonPodState::Pending, "new"));
    assert_eq!(see("", &two), is(DaemonPodState::Running, "old"));
    assert_eq!(
        see("", &[("x", leaving, BOUND, "{}"), ("y", "", UNBOUND, "{}")]),
        is(DaemonPodState::Pending, "y")
    );
    assert_eq!(see("", &[("x", leaving, BOUND, "{}")]), is(DaemonPodState::Missing, "x"));
    assert_eq!(see("", &[("x", "", BOUND, FAILED)]), is(DaemonPodState::Missing, "x"));
    assert_eq!(
        see("", &[("x", "", BOUND, FAILED), ("y", "", BOUND, "{}")]),
        is(DaemonPodState::Running, "y")
    );
    assert_eq!(see("", &[]), (DaemonPodState::Missing, None));
}

#[test]
fn messages_are_one_line_of_bounded_length() {
    let message = format!(
        r#"{{"conditions":[{{"type":"PodScheduled","status":"False","message":"a\nb\u001b[2J{}"}}]}}"#,
        "x".repeat(5000)
    );
    let (state, _, reason) = row("", &[("x", "", UNBOUND, &message)]);
    assert_eq!(state, DaemonPodState::Pending);
    assert!(reason.starts_with("not scheduled: a b [2Jxx") && reason.chars().count() < 1100, "{reason}");
}

#[test]
fn a_node_that_is_too_small_for_its_daemons_and_a_pod_that_admission_refuses() {
    let mut inventory = Inventory::new(Arc::new(Policy::default()));
    let mut apply = |api_version: &str, kind: &str, json: &str| {
        let kind = TypeMeta { api_version: api_version.into(), kind: kind.into() };
        assert!(inventory.apply(&kind, json).unwrap());
    };
    let daemon_set = |name: &str, at: &str, cpu: &str, more: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"s","creationTimestamp":"{at}"}},"spec":{{"selector":{{"matchLabels":{{"a":"{name}"}}}},"template":{{"spec":{{{more}"containers":[{{"resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}}}}}"#
        )
    };
    apply("apps/v1", "DaemonSet", &daemon_set("old", "2026-01-01T00:00:00Z", "250m", ""));
    apply("apps/v1", "DaemonSet", &daemon_set("mid", "2026-01-02T00:00:00Z", "100m", ""));
    apply(
        "apps/v1",
        "DaemonSet",
        &daemon_set("new", "2026-01-03T00:00:00Z", "10m", r#""priorityClassName":"none","#),
    );
    apply("scheduling.k8s.io/v1", "PriorityClass", r#"{"metadata":{"name":"prod"},"value":5}"#);
    apply("v1", "Node", r#"{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":"300m","pods":"10"}}}"#);
    let rows = explain(&inventory.cluster, &inventory.failures, &RowFilter::default());
    let reasons: Vec<(String, String)> = rows.map(|row| (row.daemon_set, row.reason)).collect();
    let says = |name: &str, text: &str| {
        reasons.iter().any(|(daemon_set, reason)| daemon_set.ends_with(name) && reason.contains(text))
    };
    assert!(says("/mid", "this node is too small for its daemons: 350m of 300m cpu"), "{reasons:?}");
    assert!(!says("/old", "too small") && !says("/new", "too small"), "{reasons:?}");
    assert!(says("/new", "the priority class does not exist"), "{reasons:?}");
}
