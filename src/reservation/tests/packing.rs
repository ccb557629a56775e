//! The order among the daemon pods of a node.

use super::*;

fn created(at: &str) -> Value {
    json!({"metadata": {"creationTimestamp": at}})
}

fn sized(cpu: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn daemon_set_of(world: &mut TestCluster, name: &str, cpu: &str, at: &str) {
    world.daemon_set(name, with(json!({"spec": {"template": sized(cpu)}}), created(at)));
}

#[test]
fn among_equals_the_older_daemon_set_goes_first() {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    daemon_set_of(&mut world, "later", "600m", "2026-02-01T00:00:00Z");
    daemon_set_of(&mut world, "first", "600m", "2026-01-01T00:00:00Z");
    let own = |name: &str| with(daemon_pod(name, "n1"), sized("600m"));
    world.pod(&own("later"));
    assert_eq!(
        world.ask_one(&own("later"), "n1"),
        Some(FilterReason::Reserved),
        "also before the other has a pod"
    );
    world.pod(&own("first"));
    assert_eq!(world.ask_one(&own("later"), "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.ask_one(&own("first"), "n1"), None);
    world.pod(&on(own("first"), "n1"));
    assert_eq!(world.ask_one(&own("later"), "n1"), None, "the scheduler says that it does not fit");
}

#[test]
fn a_daemon_pod_that_cannot_fit_beside_those_before_it_holds_nothing() {
    let mut world = TestCluster::new();
    world.node("n1", json!({"status": {"allocatable": {"cpu": "300m"}}}));
    daemon_set_of(&mut world, "critical", "250m", "2026-01-01T00:00:00Z");
    daemon_set_of(&mut world, "agent", "100m", "2026-01-02T00:00:00Z");
    daemon_set_of(&mut world, "third", "10m", "2026-01-03T00:00:00Z");
    world.pod(&on(with(daemon_pod("critical", "n1"), sized("250m")), "n1"));
    world.pod(&with(daemon_pod("agent", "n1"), sized("100m")));
    world.pod(&with(daemon_pod("third", "n1"), sized("10m")));
    assert_eq!(world.ask_one(&with(daemon_pod("third", "n1"), sized("10m")), "n1"), None);
    assert_eq!(world.ask_one(&pod("p", "40m"), "n1"), None);
    assert_eq!(world.ask_one(&pod("q", "45m"), "n1"), Some(FilterReason::Reserved), "the third needs 10m");
    let text = "this node is too small for its daemons: 350m of 300m cpu";
    assert_eq!(
        world.writes(),
        [ExpectedWrite::TooSmall("agent".into(), text.into()), ExpectedWrite::Holding("third".into())]
    );
    let stats = world.view.reservation.stats();
    assert_eq!((stats.too_small, stats.holds), (1, 1));
    world.node("n1", json!({"status": {"allocatable": {"cpu": "400m"}}}));
    assert_eq!(world.ask_one(&pod("p", "50m"), "n1"), Some(FilterReason::Reserved), "the node has grown");
}
