//! First-ready annotations: a Node gets a bounded number, and those of deleted DaemonSets are removed.

use super::*;
use crate::policy::ReservationMode;
use crate::reservation::first_ready::MAX_FIRST_READY;
use crate::reservation::gate::first_ready_annotation;

/// Returns the change of a Node that sets the annotations of these DaemonSets.
fn recorded(uids: &[&str]) -> Value {
    let annotations: serde_json::Map<_, _> =
        uids.iter().map(|uid| (first_ready_annotation(uid), json!("2026-01-01T00:00:00Z"))).collect();
    json!({"metadata": {"annotations": annotations}})
}

fn fresh() -> TestCluster {
    let mut world = TestCluster::new();
    world.observe_freshness(CacheFreshness::Fresh);
    world
}

/// Moves the clock in steps of a quarter of a second, and returns the removals with their second.
fn sweep(world: &mut TestCluster, seconds: u64) -> Vec<(u64, ExpectedWrite)> {
    let mut removals = Vec::new();
    for step in 1..=4 * seconds {
        world.now += Duration::from_millis(250);
        world.view.reservation.sweep_first_ready(&world.view.cache, true, world.now);
        let removed = world.writes().into_iter().filter(|write| matches!(write, ExpectedWrite::Forget(..)));
        removals.extend(removed.map(|write| (step / 4, write)));
    }
    removals
}

fn forget(node: &str, uids: &[&str]) -> ExpectedWrite {
    ExpectedWrite::Forget(node.to_owned(), uids.iter().map(|uid| (*uid).to_owned()).collect())
}

#[test]
fn annotations_of_deleted_daemon_sets_go_after_ten_minutes() {
    let mut world = fresh();
    world.daemon_set("d", json!({}));
    world.daemon_set("e", json!({}));
    world.node("n1", recorded(&["ds-d", "ds-e", "never-seen"]));
    let removed = sweep(&mut world, 900);
    assert_eq!(removed[0], (600, forget("n1", &["never-seen"])));
    assert!(removed[1..].iter().all(|(second, _)| *second >= 660), "asked again only when the patch is lost");
    world.node("n1", recorded(&["ds-d", "ds-e"]));
    assert_eq!(sweep(&mut world, 900), []);
    world.delete_daemon_set("ds-d");
    assert_eq!(sweep(&mut world, 599), []);
    assert_eq!(sweep(&mut world, 2)[0].1, forget("n1", &["ds-d"]));
    world.node("n1", recorded(&["ds-e"]));
    assert_eq!(sweep(&mut world, 900), []);
}

#[test]
fn a_gap_of_a_watch_begins_the_time_anew() {
    let mut world = fresh();
    world.node("n1", recorded(&["gone"]));
    assert_eq!(sweep(&mut world, 590), []);
    world.observe_freshness(CacheFreshness::CatchingUp);
    assert_eq!(sweep(&mut world, 1), []);
    world.observe_freshness(CacheFreshness::Fresh);
    assert_eq!(sweep(&mut world, 599), []);
    // Another kind of DaemonSet is not listed.
    world.view.reservation.sweep_first_ready(&world.view.cache, false, world.now);
    assert_eq!(sweep(&mut world, 599), []);
    // The DaemonSet comes late, and is deleted.
    world.daemon_set("x", json!({"metadata": {"uid": "gone"}}));
    assert_eq!(sweep(&mut world, 5), []);
    world.delete_daemon_set("gone");
    assert_eq!(sweep(&mut world, 599), []);
    assert_eq!(sweep(&mut world, 3).len(), 1);
}

#[test]
fn nothing_is_written_in_mode_off() {
    let mut world = TestCluster::with(|policy| policy.reservation.mode = ReservationMode::Off);
    world.observe_freshness(CacheFreshness::Fresh);
    world.node("n1", recorded(&["gone"]));
    assert_eq!(sweep(&mut world, 700), []);
}

#[test]
fn removals_have_a_rate() {
    let mut world = fresh();
    for node in 0..100 {
        world.node(&format!("n{node}"), recorded(&["gone", "another"]));
    }
    assert_eq!(sweep(&mut world, 595), []);
    let removed = sweep(&mut world, 50);
    assert!((40..=51).contains(&removed.len()), "{}", removed.len());
    let ExpectedWrite::Forget(_, uids) = &removed[0].1 else { panic!("{removed:?}") };
    assert_eq!(uids.len(), 2, "all of a Node with one patch");
}

/// Returns a cluster with a gate of a Ready daemon pod on n1, which has the annotations of `others`.
fn gated(others: &[&str]) -> TestCluster {
    let mut world = fresh();
    world.namespace("kube-system", json!({}));
    world.node("n1", recorded(others));
    let namespace = json!({"metadata": {"namespace": "kube-system"}});
    let gate = json!({"metadata": {"annotations": {"daemonset-warden.io/ready-before-pods": "FirstReady"}}});
    world.daemon_set("d", with(namespace.clone(), gate));
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    world.pod(&with(on(daemon_pod("d", "n1"), "n1"), with(namespace, ready)));
    world
}

#[test]
fn a_node_gets_a_bounded_number_of_annotations() {
    let others: Vec<String> = (0..MAX_FIRST_READY).map(|number| format!("other-{number}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    assert!(gated(&others[1..]).writes().contains(&ExpectedWrite::Remember("ds-d".into())));
    let mut world = gated(&others);
    assert!(!world.writes().contains(&ExpectedWrite::Remember("ds-d".into())));
    assert_eq!(world.ask_one(&pod("p", "100m"), "n1"), None, "the gate is open all the same");
    // One of them goes.
    world.node("n1", recorded(&others[1..]));
    assert!(world.writes().contains(&ExpectedWrite::Remember("ds-d".into())));
}

/// Another replica that does not know the kind removes it again and again.
#[test]
fn an_annotation_that_is_removed_is_written_once_more() {
    let mut world = gated(&[]);
    let remember = ExpectedWrite::Remember("ds-d".into());
    for expected in [true, true, false, false] {
        world.pass(61);
        world.node("n1", json!({"metadata": {"labels": {"again": format!("{:?}", world.now)}}}));
        assert_eq!(world.writes().contains(&remember), expected);
        world.node("n1", recorded(&["ds-d"]));
        world.refresh_all();
        world.node("n1", json!({}));
        world.refresh_all();
        assert_eq!(world.ask_one(&pod("p", "100m"), "n1"), None);
    }
}
