//! The ends of holds and gates: their reasons, their Events and the wakes.

use super::*;
use crate::policy::Policy;
use crate::reservation::gate::first_ready_annotation;

fn short(policy: &mut Policy) {
    policy.reservation.hold_timeout = Duration::from_secs(10);
    policy.reservation.wait_timeout = Duration::from_secs(30);
}

/// Returns a node with a hold that has refused `p`, which waits.
fn held() -> TestCluster {
    let mut world = TestCluster::with(short);
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&pod("p", "800m"));
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.writes(), [ExpectedWrite::Holding("d".into())]);
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.writes(), [], "said once");
    world
}

fn ended(reason: EndReason) -> ExpectedWrite {
    ExpectedWrite::Ended("d".into(), reason, true)
}

fn wake() -> ExpectedWrite {
    ExpectedWrite::Wake("n1".into())
}

#[test]
fn every_way_to_end() {
    let mut world = held();
    world.pod(&on(daemon_pod("d", "n1"), "n1"));
    assert_eq!(world.writes(), [ended(EndReason::Landed), wake()], "tried a moment ago");
    let mut world = held();
    world.pass(4);
    world.pod(&on(daemon_pod("d", "n1"), "n1"));
    assert_eq!(world.writes(), [ended(EndReason::Landed)], "the binding itself wakes it");

    let mut world = held();
    world.pass(4);
    world.delete_daemon_set("ds-d");
    assert_eq!(
        world.writes(),
        [ended(EndReason::NotWanted), wake()],
        "the scheduler does not look at DaemonSets"
    );

    let mut world = held();
    world.pass(4);
    world.delete_namespace("default");
    assert_eq!(world.writes(), [ended(EndReason::NotWanted), wake()]);

    let mut world = held();
    world.pod(&priority(on(pod("vip", "800m"), "n1"), 5));
    assert_eq!(world.writes(), [ended(EndReason::CannotFit), wake()]);
    world.delete_pod("vip");
    world.ask_one(&pod("p", "800m"), "n1");
    assert!(world.writes().contains(&ExpectedWrite::Holding("d".into())), "it can again");

    let mut world = held();
    world.delete_node("n1");
    assert_eq!(world.writes(), [ended(EndReason::NodeGone)]);

    let mut world = held();
    world.pass(9);
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!(world.writes(), [ended(EndReason::HoldTimeout), wake()]);
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), None);
    world.pass(100);
    assert_eq!(world.writes(), []);

    let mut world = held();
    world.pod(&on(pod("o", "900m"), "n1"));
    world.pass(29);
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!(world.writes(), [ended(EndReason::WaitTimeout), wake()]);
}

#[test]
fn only_time_in_which_it_keeps_somebody_off_counts() {
    // No pod waits.
    let mut world = TestCluster::with(short);
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pass(1000);
    assert_eq!(world.ask_one(&pod("p", "800m"), "n1"), Some(FilterReason::Reserved));

    // The pod that was refused goes elsewhere.
    let mut world = held();
    world.pass(5);
    world.pod(&on(pod("p", "800m"), "n2"));
    world.pass(1000);
    assert_eq!(world.writes(), []);
    world.pod(&pod("q", "800m"));
    assert_eq!(world.ask_one(&pod("q", "800m"), "n1"), Some(FilterReason::Reserved));
    world.pass(3);
    assert_eq!(world.writes(), [], "what was spent stays spent, and no more");
    world.pass(2);
    assert_eq!(world.writes(), [ended(EndReason::HoldTimeout), wake()]);

    // The DaemonSet is not desired on the node for a while.
    let mut world = held();
    world.pass(5);
    world.daemon_set("d", template(json!({"nodeSelector": {"zone": "a"}})));
    world.pass(100);
    world.writes();
    world.node("n1", json!({"metadata": {"labels": {"zone": "a"}}}));
    world.pass(100);
    assert_eq!(world.writes(), []);

    // Room comes and goes: each of the two times is counted for itself.
    let mut world = held();
    for _ in 0..4 {
        world.pass(2);
        world.pod(&on(pod("o", "900m"), "n1"));
        world.pass(7);
        world.delete_pod("o");
        world.writes();
    }
    world.pass(1);
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!(world.writes(), [ended(EndReason::HoldTimeout), wake()]);
}

#[test]
fn armed_again() {
    let expired = || {
        let mut world = held();
        world.pass(10);
        assert_eq!(world.writes(), [ended(EndReason::HoldTimeout), wake()]);
        world
    };
    let keeps = |world: &mut TestCluster| world.ask_one(&pod("p", "800m"), "n1").is_some();
    let mut world = expired();
    world.pod(&on(daemon_pod("d", "n1"), "n1"));
    world.refresh_all();
    world.delete_pod("d-n1");
    assert!(keeps(&mut world), "landed once");
    let mut world = expired();
    world.pod(&daemon_pod("d", "n1"));
    world.delete_pod("d-n1");
    world.pod(&daemon_pod("d", "n1"));
    assert!(!keeps(&mut world), "a new pod is not enough");
    let mut world = expired();
    world.daemon_set("d", template(json!({"hostNetwork": true})));
    assert!(!keeps(&mut world), "another template gives no time back");
    let mut world = expired();
    world.node("n1", json!({"metadata": {"uid": "another"}}));
    assert!(keeps(&mut world), "another node");
    let mut world = expired();
    world.node("n1", json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}));
    world.refresh_all();
    world.node("n1", json!({}));
    assert!(!keeps(&mut world), "a label that comes and goes");

    // Nor does a template that changes while room is reserved.
    let mut world = held();
    for change in 0..9 {
        world.pass(1);
        world.daemon_set("d", template(json!({"terminationGracePeriodSeconds": change, "nodeSelector": {}})));
        assert!(keeps(&mut world));
    }
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!(world.writes(), [ended(EndReason::HoldTimeout), wake()]);
}

#[test]
fn room_that_opens_wakes() {
    let smaller =
        template(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}));
    let mut world = held();
    world.pass(5);
    world.daemon_set("d", smaller);
    assert_eq!(world.writes(), [wake()], "it asks for less");
    let mut world = held();
    world.pass(5);
    world.event(|cache| {
        cache.apply_priority_class(object(json!({"metadata": {"name": "low"}, "value": -1}), json!({})));
    });
    world.daemon_set("d", template(json!({"priorityClassName": "low"})));
    assert_eq!(world.writes(), [wake()], "it is less important");
    let mut world = held();
    world.node("n1", json!({"status": {"allocatable": {"cpu": "2"}}}));
    assert_eq!(world.writes(), [wake()], "the node has grown, and we may have been asked before we saw it");

    let mut world = held();
    world.delete_pod("p");
    world.delete_daemon_set("ds-d");
    assert_eq!(world.writes(), [ended(EndReason::NotWanted)], "no pod waits");
    let mut world = held();
    assert_eq!(world.ask(&pod("p", "800m"), &["n1", "n2"]), [Some(FilterReason::Reserved), None]);
    world.pass(3);
    world.delete_daemon_set("ds-d");
    assert_eq!(world.writes(), [ended(EndReason::NotWanted)], "it passed elsewhere");
}

/// Returns a node with a gate of a DaemonSet in `kube-system`, which is selected.
fn gated(kind: &str) -> TestCluster {
    let mut world = TestCluster::with(short);
    world.namespace("kube-system", json!({}));
    world.node("n1", json!({}));
    world.daemon_set("d", gate(kind));
    world.pod(&pod("p", "100m"));
    world
}

fn gate(kind: &str) -> Value {
    json!({"metadata": {"namespace": "kube-system", "annotations": {"daemonset-warden.io/ready-before-pods": kind}}})
}

fn agent(ready: bool) -> Value {
    let change = json!({
        "metadata": {"namespace": "kube-system"},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    with(on(daemon_pod("d", "n1"), "n1"), change)
}

#[test]
fn gates_open_with_readiness() {
    let asks = pod("p", "100m");
    for (kind, again) in [("FirstReady", None), ("Always", Some(FilterReason::DaemonPodNotReady))] {
        let mut world = gated(kind);
        assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::DaemonPodNotReady), "{kind}");
        for exempt in [
            priority(asks.clone(), 2_000_000_000),
            daemon_pod("d", "n1"),
            with(asks.clone(), json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}})),
        ] {
            let exempt = with(exempt, json!({"metadata": {"namespace": "kube-system"}}));
            assert_eq!(world.ask_one(&exempt, "n1"), None, "{kind}");
        }
        world.pod(&agent(false));
        assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::DaemonPodNotReady), "{kind}");
        world.writes();
        world.pod(&agent(true));
        let mut expected = vec![wake()];
        if kind == "FirstReady" {
            expected.insert(0, ExpectedWrite::Remember("ds-d".into()));
        }
        assert_eq!(world.writes(), expected, "{kind}");
        assert_eq!(world.ask_one(&asks, "n1"), None, "{kind}");
        world.pod(&agent(false));
        assert_eq!(world.ask_one(&asks, "n1"), again, "{kind}: not Ready again");
    }
    let mut world = gated("Sometimes");
    assert_eq!(world.ask_one(&asks, "n1"), None);
    let mut world = gated("FirstReady");
    world.node("n1", json!({"metadata": {"annotations": {first_ready_annotation("ds-d"): "true"}}}));
    assert_eq!(world.ask_one(&asks, "n1"), None, "remembered");
    let mut world = TestCluster::with(short);
    world.node("n1", json!({}));
    world.daemon_set("d", with(gate("Always"), json!({"metadata": {"namespace": "default"}})));
    assert_eq!(world.ask_one(&asks, "n1"), None, "a namespace whose DaemonSets may not");
}

#[test]
fn gates_end() {
    let asks = pod("p", "100m");
    let mut world = gated("Always");
    assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::DaemonPodNotReady));
    world.pass(9);
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!(world.writes(), [ExpectedWrite::GateExpired("d".into()), wake()]);
    assert_eq!(world.ask_one(&asks, "n1"), None);
    world.node("n1", json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}));
    world.refresh_all();
    world.node("n1", json!({}));
    assert_eq!(world.ask_one(&asks, "n1"), None, "a label that comes and goes");

    let mut world = gated("Always");
    assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::DaemonPodNotReady));
    world.pass(5);
    world.daemon_set("d", gate("no more"));
    assert_eq!(world.writes(), [wake()], "the scheduler does not look at DaemonSets");
    assert_eq!(world.ask_one(&asks, "n1"), None);

    // Gates do not depend on whether the DaemonSet may hold.
    let none = serde_json::from_value(json!({"matchLabels": {"none": "x"}})).unwrap();
    let mut world = TestCluster::with(|policy| policy.reservation.namespace_selector = none);
    world.namespace("kube-system", json!({}));
    world.node("n1", json!({}));
    world.daemon_set("d", gate("Always"));
    assert!(world.missing("n1").is_empty());
    assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::DaemonPodNotReady));
}
