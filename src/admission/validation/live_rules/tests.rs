//! Every live-data rule on a small cluster: its faults, and the cases without one.

mod bounds;

use std::sync::Arc;

use super::*;
use crate::api::meta::TypeMeta;
use crate::explain::inventory::Inventory;
use crate::policy::Policy;

/// Builds a cluster of these objects: kind, and the object in JSON.
fn inventory(objects: &[(&str, &str)]) -> Inventory {
    let mut inventory = Inventory::new(Arc::new(Policy::default()));
    for (kind, json) in objects {
        let api_version = match *kind {
            "DaemonSet" => "apps/v1",
            "PriorityClass" => "scheduling.k8s.io/v1",
            _ => "v1",
        };
        let kind = TypeMeta { api_version: api_version.into(), kind: (*kind).into() };
        assert!(inventory.apply(&kind, json).unwrap(), "{kind:?}");
    }
    inventory
}

/// Returns the faults that a rule finds in a DaemonSet `s/a` with this spec.
fn found(rule: &str, objects: &[(&str, &str)], spec: &str) -> Vec<String> {
    let inventory = inventory(objects);
    let daemon_set = format!(r#"{{"metadata":{{"name":"a","namespace":"s"}},"spec":{spec}}}"#);
    let daemon_set: DaemonSet = serde_json::from_str(&daemon_set).unwrap();
    let read = |call: &mut dyn FnMut(&Cache)| {
        call(&inventory.cluster);
        Ok(())
    };
    let data = LiveData::read(&read, "apps", &daemon_set).unwrap();
    let rule = LIVE_RULES.iter().find(|own| own.id == rule).unwrap();
    (rule.check)(&data).iter().map(ToString::to_string).collect()
}

const N1: (&str, &str) = (
    "Node",
    r#"{"metadata":{"name":"n1","labels":{"zone":"a"}},"spec":{"taints":[{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}]},"status":{"allocatable":{"cpu":"1","pods":"10"}}}"#,
);
const N2: (&str, &str) = (
    "Node",
    r#"{"metadata":{"name":"n2","labels":{"zone":"b"}},"spec":{},"status":{"allocatable":{"cpu":"2","pods":"10"}}}"#,
);

#[test]
fn no_matching_node() {
    let spec = r#"{"template":{"spec":{"nodeSelector":{"zone":"c"}}}}"#;
    let rule = "no-matching-node";
    assert_eq!(
        found(rule, &[N1, N2], spec),
        [
            "spec.template.spec: Forbidden: none of the cluster's 2 nodes matches: the node doesn't match the template's nodeSelector zone=c (2 nodes)"
        ]
    );
    assert!(found(rule, &[], spec).is_empty() && found(rule, &[N1], "{}").is_empty());
}

#[test]
fn does_not_fit() {
    let spec =
        r#"{"template":{"spec":{"priority":5,"containers":[{"resources":{"requests":{"cpu":"1500m"}}}]}}}"#;
    let important = (
        "Pod",
        r#"{"metadata":{"name":"p","namespace":"s","uid":"p"},"spec":{"nodeName":"n2","priority":5,"containers":[{"resources":{"requests":{"cpu":"1"}}}]}}"#,
    );
    let ordinary = (
        "Pod",
        r#"{"metadata":{"name":"o","namespace":"s","uid":"o"},"spec":{"nodeName":"n2","priority":4,"containers":[{"resources":{"requests":{"cpu":"1"}}}]}}"#,
    );
    let rule = "does-not-fit";
    assert_eq!(
        found(rule, &[N1, N2, important], spec),
        [
            "spec.template.spec.containers: Forbidden: will not fit on 2 of 2 nodes: cpu: asks 1500m, 1 of 1 free (on 2 nodes, worst n1)"
        ]
    );
    assert!(found(rule, &[N2, ordinary], spec).is_empty(), "it may preempt");
    assert!(found(rule, &[N1, N2], "{}").is_empty());
}

#[test]
fn overlapping_selector() {
    let spec = r#"{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}}}}"#;
    let other = |namespace: &str, label: &str| {
        format!(
            r#"{{"metadata":{{"name":"other","namespace":"{namespace}"}},"spec":{{"selector":{{"matchLabels":{{"a":"{label}"}}}},"template":{{"metadata":{{"labels":{{"a":"{label}","c":"d"}}}}}}}}}}"#
        )
    };
    let rule = "overlapping-selector";
    let faults = found(rule, &[("DaemonSet", &other("s", "b"))], spec);
    assert!(faults.len() == 1 && faults[0].ends_with("overlaps with DaemonSet other"), "{faults:?}");
    assert!(found(rule, &[("DaemonSet", &other("t", "b"))], spec).is_empty());
    assert!(found(rule, &[("DaemonSet", &other("s", "c"))], spec).is_empty());
}

#[test]
fn classes_and_quotas() {
    let class = |name: &str| format!(r#"{{"template":{{"spec":{{"priorityClassName":"{name}"}}}}}}"#);
    let high = ("PriorityClass", r#"{"metadata":{"name":"high"},"value":7}"#);
    assert_eq!(found("missing-priority-class", &[], &class("high")).len(), 1);
    assert!(found("missing-priority-class", &[high], &class("high")).is_empty());
    assert!(found("missing-priority-class", &[], &class("system-node-critical")).is_empty());

    let quota = (
        "ResourceQuota",
        r#"{"metadata":{"name":"q","namespace":"s"},"spec":{"scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["system-node-critical"]}]}}}"#,
    );
    assert_eq!(found("critical-class-quota", &[], &class("system-node-critical")).len(), 1);
    assert!(found("critical-class-quota", &[quota], &class("system-node-critical")).is_empty());
    assert!(found("critical-class-quota", &[], &class("high")).is_empty());
}

#[test]
fn namespace_node_selector() {
    let namespace =
        ("Namespace", r#"{"metadata":{"name":"s","annotations":{"openshift.io/node-selector":"zone=a"}}}"#);
    let rule = "namespace-node-selector";
    assert_eq!(
        found(rule, &[namespace, N1, N2], "{}"),
        [
            "spec.template.spec.nodeSelector: Forbidden: the namespace's openshift.io/node-selector hides 1 of the 2 nodes that the DaemonSet is for: pods there never run"
        ]
    );
    let contradicts = found(rule, &[namespace], r#"{"template":{"spec":{"nodeSelector":{"zone":"b"}}}}"#);
    assert!(contradicts.len() == 1 && contradicts[0].contains("wants zone=a"), "{contradicts:?}");
    let same = r#"{"template":{"spec":{"nodeSelector":{"zone":"a"}}}}"#;
    assert!(found(rule, &[namespace, N1, N2], same).is_empty() && found(rule, &[N1], "{}").is_empty());
}

#[test]
fn wedged_rollout() {
    let known = (
        "DaemonSet",
        r#"{"metadata":{"name":"a","namespace":"s","uid":"u"},"spec":{"selector":{"matchLabels":{"a":"b"}}}}"#,
    );
    let ready = (
        "Pod",
        r#"{"metadata":{"name":"p","namespace":"s","uid":"p","labels":{"a":"b"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"DaemonSet","name":"a","uid":"u","controller":true}]},"spec":{"nodeName":"n2"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
    );
    let spec = |budget: &str| {
        format!(
            r#"{{"selector":{{"matchLabels":{{"a":"b"}}}},"updateStrategy":{{"rollingUpdate":{{"maxUnavailable":{budget}}}}},"template":{{"metadata":{{"labels":{{"new":"1"}}}}}}}}"#
        )
    };
    let rule = "wedged-rollout";
    let faults = found(rule, &[N1, N2, known, ready], &spec("1"));
    assert!(faults.len() == 1 && faults[0].contains("down on 1 of 2 nodes"), "{faults:?}");
    assert_eq!(found(rule, &[N1, N2, known, ready], &spec("\"50%\"")).len(), 1);
    assert!(found(rule, &[N1, N2, known, ready], &spec("2")).is_empty());
    assert!(found(rule, &[N1, N2, known], &spec("1")).is_empty(), "down everywhere: replaced at once");
    assert!(found(rule, &[N1, N2, ready], &spec("1")).is_empty(), "a new one");
}

#[test]
fn virtual_nodes() {
    let fargate =
        ("Node", r#"{"metadata":{"name":"f","labels":{"eks.amazonaws.com/compute-type":"fargate"}}}"#);
    assert_eq!(found("virtual-nodes", &[N1, fargate], "{}").len(), 1);
    assert!(found("virtual-nodes", &[N1], "{}").is_empty());
}
