//! Filter calls: refused and allowed pods, assumed pods, and stale nodes.

use super::*;
use crate::policy::ReservationMode;

/// Returns a node with room for the missing daemon of priority 10 and for 700m besides.
fn world() -> TestCluster {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    let younger = json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}});
    world.daemon_set("d", with(template(json!({"priority": 10})), younger));
    world
}

fn refused(world: &mut TestCluster, pod: &Value) -> bool {
    world.ask_one(pod, "n1").is_some()
}

#[test]
fn who_passes() {
    let labels = |labels: Value| with(pod("p", "800m"), json!({"metadata": {"labels": labels}}));
    let in_namespace = |pod: Value, name: &str| with(pod, json!({"metadata": {"namespace": name}}));
    let name = json!({"app.kubernetes.io/name": "daemonset-warden"});
    let cases = [
        ("ordinary", pod("p", "800m"), true),
        ("small", pod("p", "700m"), false),
        ("of the same priority", priority(pod("p", "800m"), 10), true),
        ("of higher priority", priority(pod("p", "800m"), 11), false),
        ("critical", priority(pod("p", "800m"), 2_000_000_000), false),
        ("ignored", labels(json!({"daemonset-warden.io/ignore": "true"})), false),
        ("in an ignored namespace", in_namespace(pod("p", "800m"), "ignored"), false),
        ("our own", in_namespace(labels(name.clone()), "warden"), false),
        ("named like our own", labels(name), true),
        ("beside our own", in_namespace(pod("p", "800m"), "warden"), true),
    ];
    for (what, pod, expected) in cases {
        let mut world = world();
        world.namespace("ignored", json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}));
        assert_eq!(refused(&mut world, &pod), expected, "{what}");
        assert_eq!(world.ask_one(&pod, "unknown"), None, "{what}: a node that is not known");
    }
}

/// An ordinary pod that came a moment after a critical or ignored one took the room behind it.
#[test]
fn exempt_pods_are_never_refused_and_count_on_their_way() {
    let ignored = json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}});
    let critical = |name: &str| priority(pod(name, "400m"), 2_000_000_000);
    for exempt in [critical("first"), with(pod("first", "400m"), ignored)] {
        let mut world = world();
        assert_eq!(world.ask_one(&pod("alone", "400m"), "n1"), None);
        world.pass(10);
        assert_eq!(world.ask_one(&exempt, "n1"), None);
        assert_eq!(world.ask_one(&pod("next", "400m"), "n1"), Some(FilterReason::Reserved));
        assert_eq!(world.ask_one(&critical("second"), "n1"), None, "a second one is not refused either");
        assert_eq!(world.view.reservation.assumed_len(), 2);
        world.pod(&on(exempt, "n2"));
        world.pass(10);
        assert_eq!(world.ask_one(&pod("next", "400m"), "n1"), None);
    }
    // The critical daemon pod itself: its own hold and its assumption are one.
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", template(json!({"priority": 2_000_001_000})));
    assert_eq!(world.ask_one(&priority(daemon_pod("d", "n1"), 2_000_001_000), "n1"), None);
    assert_eq!(world.ask_one(&pod("p", "700m"), "n1"), None);
    assert_eq!(world.ask_one(&pod("q", "100m"), "n1"), Some(FilterReason::Reserved));
}

#[test]
fn daemon_pods_yield_to_those_that_go_first() {
    let big = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "800m"}}}]}});
    let other = |of: i32| priority(with(daemon_pod("e", "n1"), big.clone()), of);
    for (of, expected) in [(9, true), (10, false), (11, false)] {
        let mut world = world();
        world.daemon_set("e", json!({}));
        world.node("n2", json!({}));
        assert_eq!(refused(&mut world, &other(of)), expected, "{of}");
        assert!(!refused(&mut world, &priority(daemon_pod("d", "n1"), 10)), "its own");
    }
}

#[test]
fn forged_references_gain_nothing() {
    let big = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "800m"}}}]}});
    let genuine = priority(with(daemon_pod("e", "n1"), big), 10);
    let owner = |change: Value| {
        let mut owner = genuine["metadata"]["ownerReferences"][0].clone();
        json_patch::merge(&mut owner, &change);
        with(genuine.clone(), json!({"metadata": {"ownerReferences": [owner]}}))
    };
    let cases = [
        ("genuine", genuine.clone(), false),
        ("another UID", owner(json!({"uid": "ds-x"})), true),
        ("no controller", owner(json!({"controller": false})), true),
        ("another kind", owner(json!({"kind": "ReplicaSet"})), true),
        ("another group", owner(json!({"apiVersion": "example.com/v1"})), true),
        ("another namespace", with(genuine.clone(), json!({"metadata": {"namespace": "other"}})), true),
        ("not selected", with(genuine.clone(), json!({"metadata": {"labels": {"app": "x"}}})), true),
        (
            "for another node",
            with(genuine.clone(), json!({"spec": {"affinity": daemon_pod("e", "n2")["spec"]["affinity"]}})),
            true,
        ),
        ("for no node", with(genuine.clone(), json!({"spec": {"affinity": null}})), true),
    ];
    for (what, pod, expected) in cases {
        let mut world = world();
        world.namespace("other", json!({}));
        world.node("n2", json!({}));
        world.daemon_set("e", json!({}));
        assert_eq!(refused(&mut world, &pod), expected, "{what}");
        // It is no pod of the DaemonSet once it is bound either.
        world.pod(&on(pod, "n1"));
        let is_own = world.view.cache.daemon_set("ds-e").unwrap().1.pods.len() == 1;
        let is_genuine = !expected || what.starts_with("for ");
        assert_eq!(is_own, is_genuine, "{what}");
    }
}

#[test]
fn the_ledger_keeps_two_pods_out_of_the_same_room() {
    let mut world = world();
    world.node("n2", json!({}));
    let fast = pod("fast", "400m");
    assert_eq!(world.ask(&fast, &["n1", "n2"]), [None, None]);
    assert_eq!(world.ask(&fast, &["n1", "n2"]), [None, None], "never against itself");
    assert_eq!(
        world.ask(&pod("next", "400m"), &["n1", "n2"]),
        [Some(FilterReason::Reserved); 2],
        "assumed on both"
    );
    assert_eq!(world.ask(&pod("small", "300m"), &["n1", "n2"]), [None, None]);
    assert_eq!(world.ask(&pod("small", "300m"), &["n2"]), [None], "replaced: nothing on n1 any more");
    assert_eq!(world.ask_one(&pod("third", "300m"), "n1"), None);
    assert_eq!(world.view.reservation.assumed_len(), 3);
    world.writes();
    world.pod(&on(fast, "n2"));
    assert_eq!(
        world.writes(),
        [ExpectedWrite::Wake("n1".into())],
        "the next one may have been tried too early"
    );
    world.delete_pod("small");
    assert_eq!(world.view.reservation.assumed_len(), 2, "not known: only time ends it");
    world.pod(&pod("small", "300m"));
    world.delete_pod("small");
    assert_eq!(world.view.reservation.assumed_len(), 1);
    world.pass(5);
    assert_eq!(world.view.reservation.assumed_len(), 0);
    assert_eq!(world.ask(&pod("next", "400m"), &["n1", "n2"]), [None, Some(FilterReason::Reserved)]);
}

#[test]
fn a_charge_that_ends_wakes_those_whom_it_kept_off() {
    let mut world = world();
    assert_eq!(world.ask_one(&pod("fast", "400m"), "n1"), None);
    assert_eq!(world.ask_one(&pod("next", "400m"), "n1"), Some(FilterReason::Reserved));
    world.writes();
    world.pass(4);
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!(world.writes(), [ExpectedWrite::Wake("n1".into())]);
    assert_eq!(world.ask_one(&pod("next", "400m"), "n1"), None);
    world.pass(10);
    assert_eq!(world.writes(), [], "no pod waits");
}

#[test]
fn daemon_pods_are_charged_where_nothing_is_kept_for_them() {
    let mut world = world();
    world.daemon_set("low", template(json!({"priority": 0})));
    assert_eq!(world.ask_one(&priority(daemon_pod("low", "n1"), 0), "n1"), None);
    // Room is reserved for both: 400m are left. A pod of higher priority than one of them still counts that one as assumed.
    assert_eq!(world.ask_one(&pod("p", "400m"), "n1"), None);
    world.pass(6);
    assert_eq!(world.ask_one(&priority(daemon_pod("low", "n1"), 0), "n1"), None);
    assert_eq!(world.ask_one(&priority(pod("q", "500m"), 5), "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.ask_one(&priority(pod("q", "400m"), 5), "n1"), None);
}

#[test]
fn a_view_that_is_behind_refuses_for_two_seconds() {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&on(daemon_pod("d", "n1"), "n1"));
    world.pod(&on(pod("o", "700m"), "n1"));
    let asks = pod("p", "300m");
    assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::StaleCache));
    assert_eq!(world.ask_one(&priority(asks.clone(), 1), "n1"), None, "more important than any daemon");
    assert_eq!(world.ask_one(&pod("tiny", "0"), "n1"), None);
    assert_eq!(world.writes(), []);
    world.pass(1);
    assert_eq!((world.ask_one(&asks, "n1"), world.writes()), (Some(FilterReason::StaleCache), vec![]));
    world.pass(1);
    assert_eq!(world.writes(), [ExpectedWrite::Wake("n1".into())]);
    assert_eq!(world.ask_one(&asks, "n1"), None, "gave up");
    assert_eq!(world.ask_one(&pod("tiny", "0"), "n1"), None);
    assert_eq!(world.ask_one(&asks, "n1"), None, "a pod that fits anyway proves nothing");
    // The watch brings the end of the other pod. From here on the cache is fresh for the node, and can fall behind again.
    world.delete_pod("o");
    world.pod(&on(pod("o", "700m"), "n1"));
    assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::StaleCache));
    world.writes();
    world.delete_pod("o");
    assert_eq!(world.writes(), [ExpectedWrite::Wake("n1".into())], "tried too early");
    assert_eq!(world.ask_one(&asks, "n1"), None);
}

/// The DaemonSet controller has created a pod for a node that the cache does not know yet: the cache is behind.
#[test]
fn a_node_that_only_its_daemon_pod_tells_of_is_waited_for() {
    let mut world = TestCluster::new();
    world.daemon_set("d", template(json!({"priority": 10})));
    world.node("n1", json!({"metadata": {"labels": {"any": "node"}}}));
    world.pod(&priority(daemon_pod("d", "n2"), 10));
    let asks = pod("p", "100m");
    assert_eq!(world.ask_one(&asks, "n2"), Some(FilterReason::StaleCache));
    assert_eq!(world.ask_one(&asks, "n3"), None, "no pod tells of it");
    assert_eq!(world.ask_one(&priority(asks.clone(), 11), "n2"), None);
    assert_eq!(world.ask_one(&priority(daemon_pod("d", "n2"), 10), "n2"), None, "its own");
    assert_eq!(world.ask_one(&asks, "n2"), Some(FilterReason::StaleCache));
    // The Node comes: its holds are known from now on, and the refused pod may have been tried too early.
    world.node("n2", json!({}));
    assert!(world.writes().contains(&ExpectedWrite::Wake("n2".into())));
    assert_eq!(world.ask(&asks, &["n2"]), [None]);
    assert_eq!(world.ask_one(&pod("big", "800m"), "n2"), Some(FilterReason::Reserved));

    // The Node never comes: pods are refused for two seconds at most.
    world.pod(&priority(with(daemon_pod("d", "n4"), json!({"metadata": {"uid": "d4"}})), 10));
    assert_eq!(world.ask_one(&asks, "n4"), Some(FilterReason::StaleCache));
    world.pass(2);
    assert!(world.writes().iter().any(|done| matches!(done, ExpectedWrite::Wake(_))));
    assert_eq!(world.ask_one(&asks, "n4"), None);
}

#[test]
fn audit_counts_and_off_does_nothing() {
    for (mode, audited) in [(ReservationMode::Audit, 1), (ReservationMode::Off, 0)] {
        let mut world = TestCluster::with(|policy| policy.reservation.mode = mode);
        world.node("n1", json!({}));
        world.daemon_set("d", json!({}));
        let asks = object(pod("p", "800m"), json!({}));
        let View { cache, reservation } = &mut world.view;
        let mut call = reservation.begin_filter(cache, &asks, world.now);
        assert_eq!(call.refuse("n1"), None);
        assert_eq!(call.finish().would_refuse, audited);
        world.pass(100);
        assert_eq!((world.writes(), world.view.reservation.waiting_len()), (vec![], 0));
        assert_eq!(world.missing("n1").is_empty(), mode == ReservationMode::Off);
    }
}
