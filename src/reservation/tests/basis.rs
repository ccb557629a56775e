//! The basis of holds: an author's word alone holds room for seconds, and a minute of an hour in all.

use super::*;

/// Returns a node, and a DaemonSet that wants nearly all of it, in a cluster with the limits of production.
fn claimed(change: Value) -> TestCluster {
    let mut world = TestCluster::with_default_limits(|_| {});
    world.node("n1", json!({}));
    world.daemon_set("d", with(template(sized("900m")), change));
    world.pod(&pod("p", "800m"));
    world
}

fn sized(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn is_refused(world: &mut TestCluster) -> bool {
    world.ask_one(&pod("p", "800m"), "n1").is_some()
}

/// Asks each second. Returns the seconds in which the pod was refused.
fn seconds_refused(world: &mut TestCluster, seconds: u64) -> u64 {
    let mut refused = 0;
    for _ in 0..seconds {
        refused += u64::from(is_refused(world));
        world.pass(1);
    }
    refused
}

fn quota(hard: &Value, used: &Value) -> Value {
    json!({"metadata": {"name": "q", "namespace": "default"}, "status": {"hard": hard, "used": used}})
}

fn apply_quota(world: &mut TestCluster, quota: Value) {
    world.event(|cache| cache.apply_resource_quota(object(quota, json!({}))));
}

fn fail_creation(world: &mut TestCluster, time: &str) {
    apply_failure(world, json!({"metadata": {"creationTimestamp": time}, "lastTimestamp": time}));
}

/// Applies an Event about the DaemonSet `d`.
fn apply_failure(world: &mut TestCluster, change: Value) {
    let about = json!({"kind": "DaemonSet", "namespace": "default", "name": "d", "uid": "ds-d"});
    let event =
        json!({"metadata": {"namespace": "default"}, "reason": "FailedCreate", "involvedObject": about});
    let event = object(event, change);
    world.event(|cache| cache.apply_creation_failure(&event));
}

fn ended(reason: EndReason) -> ExpectedWrite {
    ExpectedWrite::Ended("d".into(), reason, true)
}

#[test]
fn a_controller_that_creates_nothing_ends_it_in_seconds() {
    let mut world = claimed(json!({}));
    assert_eq!(seconds_refused(&mut world, 600), 20);
    let wake = ExpectedWrite::Wake("n1".into());
    let held = ExpectedWrite::Holding("d".into());
    assert_eq!(world.writes(), [held, ended(EndReason::NotCreated), wake]);
    // The pod itself is a claim.
    world.pod(&with(daemon_pod("d", "n1"), json!({"spec": sized("900m")})));
    assert!(is_refused(&mut world));
}

#[test]
fn a_failure_to_create_pods_ends_it_at_once_unless_the_next_attempt_succeeds() {
    let mut world = claimed(json!({}));
    assert_eq!(seconds_refused(&mut world, 2), 2);
    fail_creation(&mut world, "2026-01-01T00:00:05Z");
    assert_eq!(seconds_refused(&mut world, 60), 3);
    assert!(world.writes().contains(&ended(EndReason::NotCreated)));
    fail_creation(&mut world, "2026-01-01T00:00:09Z");
    world.daemon_set(
        "d",
        with(template(sized("900m")), json!({"metadata": {"annotations": {"changed": "often"}}})),
    );
    assert_eq!(seconds_refused(&mut world, 60), 0);

    let mut world = claimed(json!({}));
    world.node("n2", json!({}));
    fail_creation(&mut world, "2026-01-01T00:00:05Z");
    world.pass(1);
    world.pod(&with(
        daemon_pod("d", "n2"),
        json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:06Z"}}),
    ));
    assert_eq!(seconds_refused(&mut world, 60), 20, "the controller creates pods, and this one may come");
}

#[test]
fn the_window_follows_a_controller_that_works_on_other_daemon_sets() {
    let mut world = claimed(json!({}));
    world.daemon_set("other", template(json!({"nodeSelector": {"none": "here"}})));
    for second in 0..45 {
        assert!(is_refused(&mut world), "after {second} s");
        let uid = format!("other-{second}");
        world.pod(&with(daemon_pod("other", "n9"), json!({"metadata": {"uid": uid, "name": uid}})));
        world.pass(1);
    }
    world.pod(&with(daemon_pod("d", "n1"), json!({"spec": sized("900m")})));
    assert!(is_refused(&mut world), "the last of many daemon pods");
    world.pass(300);
    assert!(is_refused(&mut world), "it exists");
}

#[test]
fn the_controller_waits_for_transient_taints() {
    let mut world = claimed(json!({}));
    let taints = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    world.node("n1", json!({"spec": {"taints": taints}}));
    world.pass(100);
    assert!(is_refused(&mut world));
    world.node("n1", json!({}));
    assert_eq!(seconds_refused(&mut world, 100), 20);
}

#[test]
fn a_template_that_admission_would_refuse_holds_nothing() {
    let mut world = claimed(json!({"spec": {"template": {"spec": {"priority": 1_999_999_999}}}}));
    world.event(|cache| {
        for (name, value) in [("prod", 1_000_000), ("system-node-critical", 2_000_001_000)] {
            cache
                .apply_priority_class(object(json!({"metadata": {"name": name}, "value": value}), json!({})));
        }
    });
    assert!(!is_refused(&mut world), "the Priority plugin refuses a priority that the class does not give");
    let more_important = priority(pod("vip", "800m"), 1_000_000);
    assert_eq!(world.ask_one(&more_important, "n1"), None);
    world.daemon_set("d", template(with(sized("900m"), json!({"priorityClassName": "typo"}))));
    assert!(!is_refused(&mut world), "the class does not exist");
    world.daemon_set(
        "d",
        template(with(sized("900m"), json!({"priorityClassName": "prod", "priority": 1_000_000}))),
    );
    assert!(is_refused(&mut world) && world.ask_one(&more_important, "n1").is_some());
}

#[test]
fn a_namespace_holds_no_more_than_its_quotas_leave() {
    let mut world = claimed(json!({}));
    apply_quota(&mut world, quota(&json!({"requests.cpu": "1"}), &json!({"requests.cpu": "200m"})));
    assert!(!is_refused(&mut world));
    apply_quota(&mut world, quota(&json!({"requests.cpu": "1"}), &json!({"requests.cpu": "100m"})));
    assert!(is_refused(&mut world));

    // The quota is exactly the daemons, and counts a pod for a while after it has gone.
    let mut world = claimed(json!({}));
    let own = with(on(daemon_pod("d", "n1"), "n1"), json!({"spec": sized("900m")}));
    let other =
        with(own.clone(), json!({"metadata": {"uid": "d-n2", "name": "d-n2"}, "spec": {"nodeName": "n2"}}));
    world.pod(&own);
    world.pod(&other);
    apply_quota(&mut world, quota(&json!({"pods": "2"}), &json!({"pods": "2"})));
    world.pod(&terminating(own));
    world.pass(30);
    world.delete_pod("d-n1");
    fail_creation(&mut world, "2026-01-01T00:01:00Z");
    assert!(is_refused(&mut world), "the status of the quota lags");
    assert_eq!(seconds_refused(&mut world, 100), 59, "a predecessor has been there a moment ago");
}

#[test]
fn a_pod_that_waits_for_something_else_holds_nothing() {
    let condition = |reason: &str, message: &str| json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]}});
    let own = || with(daemon_pod("d", "n1"), json!({"spec": sized("900m")}));
    let cases = [
        ("plain", json!({}), 600),
        ("too little room", condition("Unschedulable", "0/1 nodes are available: 1 Insufficient cpu."), 600),
        ("gates", json!({"spec": {"schedulingGates": [{"name": "g"}]}}), 0),
        ("no such claim", condition("Unschedulable", "persistentvolumeclaim \"x\" not found."), 0),
        ("nobody near", condition("Unschedulable", "1 node(s) didn't match pod affinity rules."), 0),
        // A minute for what may come.
        ("a scheduler that nobody serves", json!({"spec": {"schedulerName": "nobody"}}), 59),
        ("a claim", json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}}), 59),
    ];
    for (what, change, expected) in cases {
        let mut world = claimed(json!({}));
        world.pod(&with(own(), change));
        let refused = seconds_refused(&mut world, 700);
        assert_eq!(refused, expected, "{what}");
    }
}

/// However the author goes about it: other templates, other names, labels that come and go, pods that come and go.
#[test]
fn a_namespace_keeps_others_waiting_for_a_minute_of_an_hour() {
    let mut world = claimed(json!({}));
    let (mut refused, mut uid) = (0, "ds-d".to_owned());
    for second in 0..3500_u64 {
        match second % 7 {
            0 => {
                let change = template(with(sized("900m"), json!({"hostNetwork": second % 2 == 0})));
                world.daemon_set("d", with(change, json!({"metadata": {"uid": uid}})));
            }
            3 => {
                world.delete_daemon_set(&uid);
                uid = format!("ds-again-{second}");
                world.daemon_set("d", with(template(sized("900m")), json!({"metadata": {"uid": uid}})));
            }
            5 => world.daemon_set(&format!("other-{}", second % 5), template(sized("900m"))),
            _ => {}
        }
        refused += u64::from(is_refused(&mut world));
        world.pass(1);
    }
    assert!((50..=60).contains(&refused), "{refused} s");
    assert!(
        world
            .writes()
            .iter()
            .any(|write| matches!(write, ExpectedWrite::Ended(_, EndReason::BudgetSpent, _)))
    );
    // The next hour.
    world.pass(200);
    world.delete_daemon_set(&uid);
    world.daemon_set("d", with(template(sized("900m")), json!({"metadata": {"uid": "ds-once-more"}})));
    assert!(is_refused(&mut world));
}

#[test]
fn daemon_pods_that_land_cost_nothing() {
    let mut world = claimed(json!({}));
    for _ in 0..30 {
        assert_eq!(seconds_refused(&mut world, 10), 10);
        world.pod(&with(on(daemon_pod("d", "n1"), "n1"), json!({"spec": sized("900m")})));
        world.refresh_all();
        world.delete_pod("d-n1");
    }
    assert!(world.view.reservation.wait_budgets.is_empty());
}

#[test]
fn a_restart_opens_no_window_again() {
    let created = |at: &str| json!({"metadata": {"creationTimestamp": at}});
    let mut world = TestCluster::with_default_limits(|_| {});
    world.node("n1", created("2026-01-01T00:00:00Z"));
    world.node("n2", created("2026-01-01T01:00:00Z"));
    world.daemon_set("d", with(template(sized("900m")), created("2026-01-01T00:00:00Z")));
    let View { cache, reservation } = &mut world.view;
    reservation.begin_start(cache, world.now);
    reservation.refresh_all(cache, world.now);
    reservation.finish_start();
    let refused = world.ask(&pod("p", "800m"), &["n1", "n2"]);
    assert_eq!(refused, [None, Some(FilterReason::Reserved)], "the second node has just joined");

    // A rollout is under way: the controller has created a pod a moment ago.
    let mut world = TestCluster::with_default_limits(|_| {});
    world.node("n1", created("2026-01-01T00:00:00Z"));
    world.daemon_set("d", with(template(sized("900m")), created("2026-01-01T00:00:00Z")));
    world.pod(&with(on(daemon_pod("d", "n2"), "n2"), created("2026-01-01T00:59:55Z")));
    world.node("n3", created("2026-01-01T01:00:00Z"));
    let View { cache, reservation } = &mut world.view;
    reservation.begin_start(cache, world.now);
    reservation.refresh_all(cache, world.now);
    reservation.finish_start();
    assert!(is_refused(&mut world));
}

/// An author of Events can name any UID and any time.
#[test]
fn a_forged_failure_ends_nobody_elses_window() {
    let early = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}});
    let forged = [
        json!({"metadata": {"namespace": "tenant"}, "involvedObject": {"namespace": "tenant"}}),
        json!({"metadata": {"namespace": "tenant"}}),
        json!({"involvedObject": {"name": "x"}}),
    ];
    for change in forged {
        let mut world = claimed(json!({}));
        apply_failure(
            &mut world,
            with(with(early.clone(), json!({"lastTimestamp": "9999-12-31T23:59:59Z"})), change),
        );
        assert_eq!(seconds_refused(&mut world, 60), 20);
    }
    // A failure of its own, in the far future, is over with the next pod.
    let mut world = claimed(json!({}));
    apply_failure(&mut world, with(early, json!({"lastTimestamp": "9999-12-31T23:59:59Z"})));
    assert_eq!(seconds_refused(&mut world, 60), 3);
    let created = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:06Z"}});
    world.pod(&with(daemon_pod("d", "n2"), created));
    world.node("n2", json!({}));
    assert_eq!(seconds_refused(&mut world, 60), 20);
}

#[test]
fn a_quota_of_one_pod_is_room_on_one_node() {
    let mut world = TestCluster::with_default_limits(|_| {});
    apply_quota(&mut world, quota(&json!({"pods": "2", "requests.cpu": "2"}), &json!({})));
    let nodes = ["n1", "n2", "n3", "n4"];
    nodes.iter().for_each(|name| world.node(name, json!({})));
    for name in ["d", "e"] {
        world.daemon_set(
            name,
            template(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "400m"}}}]})),
        );
    }
    let held = |world: &mut TestCluster| {
        let refused = world.ask(&pod("p", "800m"), &nodes);
        refused.iter().filter(|reason| reason.is_some()).count()
    };
    for _ in 0..3 {
        assert_eq!(held(&mut world), 1, "two pods, both of the first node that is looked at");
        world.pass(1);
    }
    // The pods that come and go leave no room behind that the quota would not take.
    for name in nodes {
        world.pod(&on(daemon_pod("d", name), name));
        world.refresh_all();
        world.delete_pod(&format!("d-{name}"));
        world.refresh_all();
        assert!(held(&mut world) <= 2);
    }
}

#[test]
fn a_spent_budget_ends_the_holds_of_quiet_nodes_too() {
    let mut world = claimed(json!({}));
    world.node("n2", json!({}));
    for node in ["n1", "n2"] {
        world.pod(&with(
            daemon_pod("d", node),
            json!({"spec": with(sized("900m"), json!({"schedulerName": "nobody"}))}),
        ));
    }
    world.pod(&pod("q", "800m"));
    assert!((58..=60).contains(&seconds_refused(&mut world, 100)));
    let mut refused = 0;
    for _ in 0..100 {
        refused += u64::from(world.ask_one(&pod("q", "800m"), "n2").is_some());
        world.pass(1);
    }
    assert!(refused <= 1, "{refused} s on the other node");
}

#[test]
fn pods_that_are_made_anew_give_no_time_back() {
    let mut world = claimed(json!({}));
    let message = "0/1 nodes are available: 1 Insufficient cpu.";
    let condition = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}});
    let claim = json!({"spec": with(sized("900m"), json!({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}))});
    let mut refused = 0;
    for round in 0..30 {
        let uid = format!("d-{round}");
        let own = with(daemon_pod("d", "n1"), json!({"metadata": {"uid": uid, "name": uid}}));
        world.pod(&with(own.clone(), json!({"spec": sized("900m")})));
        world.pod(&with(with(own, claim.clone()), condition.clone()));
        refused += seconds_refused(&mut world, 20);
        world.delete_pod(&uid);
    }
    assert!(refused <= 60, "{refused} s");
}

/// `kubectl delete pod`, or a new template while the pods of the old one wait.
#[test]
fn the_window_opens_again_when_a_waiting_pod_goes() {
    let mut world = claimed(json!({}));
    assert_eq!(seconds_refused(&mut world, 2), 2);
    world.pod(&with(daemon_pod("d", "n1"), json!({"spec": sized("900m")})));
    world.pass(30);
    world.delete_pod("d-n1");
    assert_eq!(seconds_refused(&mut world, 60), 20);
}

#[test]
fn a_quota_that_is_exactly_the_daemons_does_not_end_the_care_for_events_that_are_missing() {
    let mut world = claimed(json!({}));
    apply_quota(&mut world, quota(&json!({"pods": "1"}), &json!({"pods": "1"})));
    world.pod(&with(on(daemon_pod("d", "n1"), "n1"), json!({"spec": sized("900m")})));
    assert_eq!(
        world.ask_one(&pod("p", "800m"), "n1"),
        Some(FilterReason::StaleCache),
        "the daemon has left, by the scheduler"
    );
}

#[test]
fn gates_in_the_template_hold_nothing() {
    let mut world = claimed(json!({"spec": {"template": {"spec": {"schedulingGates": [{"name": "g"}]}}}}));
    assert!(!is_refused(&mut world));
}

/// Pods may be listed before their DaemonSet.
#[test]
fn an_old_failure_does_not_count_after_a_restart() {
    let mut world = TestCluster::with_default_limits(|_| {});
    world.node("n1", json!({}));
    world.node("n2", json!({}));
    world.pod(&with(
        on(daemon_pod("d", "n2"), "n2"),
        json!({"metadata": {"creationTimestamp": "2026-01-01T00:30:00Z"}}),
    ));
    world.daemon_set("d", template(sized("900m")));
    fail_creation(&mut world, "2026-01-01T00:10:00Z");
    assert_eq!(seconds_refused(&mut world, 60), 20);
}

/// A tenant's pod that waits for room may wait for an hour. Others' holds beside it cost them nothing.
#[test]
fn a_hold_that_is_not_the_cause_is_not_charged() {
    let mut world = TestCluster::with_default_limits(|_| {});
    world.node("n1", json!({}));
    world.namespace("other", json!({}));
    world.daemon_set("tenants", template(sized("900m")));
    world.pod(&with(daemon_pod("tenants", "n1"), json!({"spec": sized("900m")})));
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    world.daemon_set("d", with(template(sized("50m")), elsewhere.clone()));
    let uncertain = with(sized("50m"), json!({"schedulerName": "nobody"}));
    world.pod(&with(with(daemon_pod("d", "n1"), elsewhere), json!({"spec": uncertain})));
    world.pod(&pod("p", "800m"));
    assert_eq!(seconds_refused(&mut world, 100), 100);
    assert!(world.view.reservation.wait_budgets.is_empty());
    world.pod(&pod("small", "80m"));
    for _ in 0..3 {
        assert!(world.ask_one(&pod("small", "80m"), "n1").is_some());
        world.pass(1);
    }
    assert!(!world.view.reservation.wait_budgets.is_empty(), "it would go in beside the tenant's");
}
