//! The nodes on which a daemon pod is desired, and those that lack it.

use super::*;

fn taint(key: &str, effect: &str) -> Value {
    json!({"spec": {"taints": [{"key": key, "effect": effect}]}})
}

fn label(key: &str, value: &str) -> Value {
    json!({"metadata": {"labels": {key: value}}})
}

#[test]
fn wanted_by_node() {
    let cases = [
        ("plain", json!({}), true),
        ("not ready", taint("node.kubernetes.io/not-ready", "NoSchedule"), true),
        ("unreachable", taint("node.kubernetes.io/unreachable", "NoExecute"), true),
        ("no network", taint("node.kubernetes.io/network-unavailable", "NoSchedule"), true),
        ("not initialized", taint("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"), true),
        ("startup taint", taint("example.com/agent-not-ready", "NoExecute"), true),
        ("cordoned", taint("node.kubernetes.io/unschedulable", "NoSchedule"), true),
        ("other taint", taint("dedicated", "NoSchedule"), false),
        ("other taint that only discourages", taint("dedicated", "PreferNoSchedule"), true),
        ("autoscaler removes it", taint("ToBeDeletedByClusterAutoscaler", "NoSchedule"), false),
        ("karpenter removes it", taint("karpenter.sh/disrupted", "NoSchedule"), false),
        ("being deleted", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
        ("virtual kubelet", label("type", "virtual-kubelet"), false),
        ("fargate", label("eks.amazonaws.com/compute-type", "fargate"), false),
        ("ignored", label("daemonset-warden.io/ignore", "true"), false),
        ("ignored, but not", label("daemonset-warden.io/ignore", "false"), true),
    ];
    for (what, change, expected) in cases {
        let startup = "example.com/agent-not-ready".to_owned();
        let mut world = TestCluster::with(|policy| policy.reservation.startup_taints = vec![startup]);
        world.daemon_set("d", template(json!({"tolerations": []})));
        world.node("n1", change);
        assert_eq!(!world.missing("n1").is_empty(), expected, "{what}");
    }
}

#[test]
fn wanted_by_daemon_set() {
    let affinity = |key: &str| {
        let terms = json!([{"matchExpressions": [{"key": key, "operator": "Exists"}]}]);
        template(json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}}))
    };
    let labelled = json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}});
    let cases = [
        ("selects the node", template(json!({"nodeSelector": {"zone": "a"}})), true),
        ("selects others", template(json!({"nodeSelector": {"zone": "b"}})), false),
        ("affinity matches", affinity("zone"), true),
        ("affinity does not", affinity("rack"), false),
        ("names the node", template(json!({"nodeName": "n1"})), true),
        ("names another", template(json!({"nodeName": "n2"})), false),
        ("is being deleted", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
        ("is ignored", labelled.clone(), false),
        ("its pods are ignored", json!({"spec": {"template": labelled}}), false),
        ("on delete", json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}), true),
    ];
    for (what, change, expected) in cases {
        let mut world = TestCluster::new();
        world.node("n1", label("zone", "a"));
        world.daemon_set("d", change);
        assert_eq!(!world.missing("n1").is_empty(), expected, "{what}");
    }
}

#[test]
fn wanted_by_namespace() {
    let named = |name: &str| json!({"matchLabels": {"team": name}});
    let cases = [
        ("plain", json!({}), json!({}), true),
        ("selected", named("a"), json!({"metadata": {"labels": {"team": "a"}}}), true),
        ("not selected", named("a"), json!({"metadata": {"labels": {"team": "b"}}}), false),
        (
            "ignored",
            json!({}),
            json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}),
            false,
        ),
        ("ending", json!({}), terminating(json!({})), false),
    ];
    for (what, selector, change, expected) in cases {
        let selector = serde_json::from_value(selector).unwrap();
        let mut world = TestCluster::with(|policy| policy.reservation.namespace_selector = selector);
        world.daemon_set("d", json!({}));
        world.node("n1", json!({}));
        world.namespace("default", change);
        assert_eq!(!world.missing("n1").is_empty(), expected, "{what}");
        world.delete_namespace("default");
        assert!(world.missing("n1").is_empty(), "{what}: without its namespace");
    }
}

#[test]
fn missing_by_pods() {
    let own = || daemon_pod("d", "n1");
    let bound = || on(own(), "n1");
    let phase = |pod: Value, phase: &str| with(pod, json!({"status": {"phase": phase}}));
    let again = |pod: Value| with(pod, json!({"metadata": {"uid": "again", "name": "again"}}));
    let cases = [
        ("none", vec![], true, true),
        ("not bound", vec![own()], true, true),
        ("bound", vec![bound()], false, false),
        ("bound, not Ready", vec![phase(bound(), "Pending")], false, false),
        ("bound and terminating", vec![terminating(bound())], true, true),
        ("failed", vec![phase(bound(), "Failed")], true, true),
        ("succeeded", vec![phase(bound(), "Succeeded")], true, true),
        ("terminating, and the next not bound", vec![terminating(bound()), again(own())], true, true),
        ("terminating, and the next bound", vec![terminating(bound()), again(bound())], false, false),
        ("bound, and another not", vec![bound(), again(own())], false, true),
        (
            "bound, and another terminating that never was",
            vec![bound(), terminating(again(own()))],
            false,
            false,
        ),
        ("bound elsewhere", vec![on(own(), "n2")], true, true),
    ];
    for (what, pods, expected, expected_with_surge) in cases {
        for surges in [false, true] {
            let mut world = TestCluster::new();
            world.node("n1", json!({}));
            let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": u8::from(surges), "maxUnavailable": 0}});
            world.daemon_set("d", json!({"spec": {"updateStrategy": surge}}));
            pods.iter().for_each(|pod| world.pod(pod));
            let expected = if surges { expected_with_surge } else { expected };
            assert_eq!(!world.missing("n1").is_empty(), expected, "{what}, surge: {surges}");
        }
    }
}

#[test]
fn a_label_starts_and_ends_it() {
    let mut world = TestCluster::new();
    world.daemon_set("d", template(json!({"nodeSelector": {"zone": "a"}})));
    world.node("n1", json!({}));
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), None);
    world.node("n1", label("zone", "a"));
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.writes(), [ExpectedWrite::Holding("d".into())]);
    world.node("n1", json!({}));
    assert_eq!(
        world.writes(),
        [ExpectedWrite::Ended("d".into(), EndReason::NotWanted, true), ExpectedWrite::Wake("n1".into())]
    );
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), None);
}

#[test]
fn a_node_of_the_same_name_is_another() {
    let mut world = TestCluster::new();
    world.daemon_set("d", json!({}));
    world.node("n1", json!({}));
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));
    world.delete_node("n1");
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), None);
    world.node("n1", json!({"metadata": {"uid": "another"}}));
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));
    world.writes();
    // Deleted and created again between two refreshes.
    world.node("n1", json!({"metadata": {"uid": "a third"}}));
    assert_eq!(world.writes(), [ExpectedWrite::Ended("d".into(), EndReason::NodeGone, true)]);
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));
}
