//! Reviews of bindings.

use super::*;
use crate::api::binding::Binding;
use crate::policy::ReservationMode;
use crate::reservation::bind::BindVerdict;

fn binding<'a>(pod: &'a str, node: &'a str) -> Binding<'a> {
    Binding { namespace: "default".into(), pod: pod.into(), pod_uid: pod.into(), node: node.into() }
}

/// Returns a node with room for the missing pod of `d` and for 700m besides, and pods that wait.
fn world() -> TestCluster {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", template(json!({"priority": 10})));
    for (name, cpu) in [("small", "300m"), ("middle", "400m"), ("large", "800m")] {
        world.pod(&tried(pod(name, cpu)));
    }
    world
}

/// Returns a pod that a scheduler has tried and failed.
fn tried(pod: Value) -> Value {
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulerError"});
    with(pod, json!({"status": {"conditions": [condition]}}))
}

impl TestCluster {
    fn judge(&mut self, binding: &Binding<'_>) -> BindVerdict {
        let View { cache, reservation } = &mut self.view;
        reservation.judge_bind(cache, binding, false, self.now)
    }

    fn judge_dry_run(&mut self, binding: &Binding<'_>) -> BindVerdict {
        let View { cache, reservation } = &mut self.view;
        reservation.judge_bind(cache, binding, true, self.now)
    }

    /// Returns the message of the refusal of a pod on `n1`; `None` if it is allowed.
    fn refusal(&mut self, pod: &str) -> Option<String> {
        match self.judge(&binding(pod, "n1")) {
            BindVerdict::Refused(refusal) => Some(refusal.message),
            _ => None,
        }
    }
}

#[test]
fn the_message_names_the_node_the_daemon_sets_and_the_amounts() {
    let mut world = world();
    assert_eq!(
        world.refusal("large").unwrap(),
        r#"node "n1" reserves room for daemon pods that have not landed yet: default/d (300m cpu); this pod asks 800m cpu, and 700m is left beside them"#
    );
    for name in ["e", "f", "g"] {
        world.daemon_set(name, json!({"spec": {"template": {"spec": {"priority": 10}}}}));
    }
    world.pod(&on(pod("o", "100m"), "n1"));
    let message = world.refusal("large").unwrap();
    assert!(
        message.contains("default/d (300m cpu), default/e (300m cpu), default/f (300m cpu); this"),
        "{message}"
    );
    assert!(message.ends_with("and 0 is left beside them"), "{message}");
}

#[test]
fn a_message_about_ports_names_no_amount() {
    let ports = json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}], "resources": {"requests": {"cpu": "100m"}}}]});
    let mut world = world();
    world.daemon_set("d", template(ports.clone()));
    world.pod(&tried(with(pod("p", "1m"), json!({"spec": ports}))));
    assert_eq!(
        world.refusal("p").unwrap(),
        r#"node "n1" reserves ports of the host for daemon pods that have not landed yet: default/d; this pod asks for one of them"#
    );
}

#[test]
fn a_pod_that_was_let_through_counts_until_its_binding_is_seen() {
    let mut world = world();
    assert_eq!(world.judge(&binding("middle", "n1")), BindVerdict::Allowed);
    assert_eq!(
        world.judge(&binding("middle", "n1")),
        BindVerdict::Allowed,
        "the scheduler asks again after a 5xx"
    );
    assert!(world.refusal("middle").is_none() && world.refusal("large").is_some());
    assert_eq!(world.view.reservation.bind_assumed_len(), 1);
    world.pod(&tried(pod("other", "400m")));
    assert!(world.refusal("other").is_some(), "700m are left beside the daemon, and 400m of them are taken");
    world.pod(&on(pod("middle", "400m"), "n1"));
    assert_eq!((world.view.reservation.bind_assumed_len(), world.view.reservation.take_unjudged()), (0, 0));
    assert_eq!(world.judge(&binding("small", "n1")), BindVerdict::Allowed);
}

/// Two schedulers, or a review that nobody's scheduler has sent, choose another node a moment later.
#[test]
fn a_later_review_of_another_node_takes_nothing_back() {
    let mut world = world();
    world.node("n2", json!({}));
    assert_eq!(world.judge(&binding("middle", "n1")), BindVerdict::Allowed);
    assert_eq!(world.judge(&binding("middle", "n2")), BindVerdict::Allowed);
    world.pod(&tried(pod("other", "400m")));
    for node in ["n1", "n2"] {
        assert!(matches!(world.judge(&binding("other", node)), BindVerdict::Refused(_)), "{node}");
    }
    world.pass(5);
    assert_eq!(world.judge(&binding("other", "n1")), BindVerdict::Allowed, "for five seconds");
}

#[test]
fn the_facts_come_from_the_cache_and_not_from_the_review() {
    let mut world = world();
    let unknown = |world: &mut TestCluster, binding: Binding<'_>| {
        let first = world.judge(&binding);
        world.pass(2);
        (matches!(first, BindVerdict::Refused(_)), world.judge(&binding))
    };
    let with_uid = |uid: &'static str| Binding { pod_uid: uid.into(), ..binding("small", "n1") };
    let cases = [
        ("another UID", with_uid("other")),
        ("the UID of another pod", with_uid("middle")),
        ("a pod that does not exist", binding("none", "n1")),
        ("another namespace", Binding { namespace: "kube-system".into(), ..binding("small", "n1") }),
        ("a node that does not exist", binding("large", "n9")),
    ];
    for (what, binding) in cases {
        assert_eq!(unknown(&mut world, binding), (true, BindVerdict::Unknown), "{what}: for two seconds");
    }
    assert_eq!(world.view.reservation.assumed_len(), 0);
    // Without a UID the names decide.
    assert_eq!(world.judge(&with_uid("")), BindVerdict::Allowed);
    // A pod that is bound already: the apiserver refuses it.
    world.pod(&on(pod("small", "300m"), "n1"));
    world.pass(10);
    assert_eq!(unknown(&mut world, binding("small", "n1")).1, BindVerdict::Unknown);
    assert_eq!(world.view.reservation.assumed_len(), 0);
}

#[test]
fn nothing_waits_for_an_unknown_pod_where_no_room_is_reserved() {
    let mut world = world();
    world.pod(&on(priority(daemon_pod("d", "n1"), 10), "n1"));
    world.refresh_all();
    assert_eq!(world.judge(&binding("none", "n1")), BindVerdict::Unknown);
    // No DaemonSet has such a priority.
    world.pod(&priority(tried(pod("important", "800m")), 11));
    assert_eq!(world.judge(&binding("important", "n9")), BindVerdict::Unknown);
}

#[test]
fn exempt_pods_and_daemon_pods_are_allowed_and_count() {
    let critical = |name: &str| priority(pod(name, "400m"), 2_000_000_000);
    let mut world = world();
    world.pod(&critical("critical"));
    assert_eq!(world.judge(&binding("critical", "n1")), BindVerdict::Exempt);
    assert!(world.refusal("middle").is_some(), "the room behind a critical pod");
    world.pod(&priority(daemon_pod("d", "n1"), 10));
    assert_eq!(world.judge(&binding("d-n1", "n1")), BindVerdict::Allowed);
}

/// No scheduler binds a pod to a node that its own spec excludes, so somebody has forged the review.
#[test]
fn a_pod_counts_on_no_node_that_its_spec_excludes() {
    let mut world = world();
    world.pod(&tried(with(pod("elsewhere", "400m"), json!({"spec": {"nodeSelector": {"pool": "others"}}}))));
    world.pod(&priority(daemon_pod("d", "n2"), 10));
    for forged in ["elsewhere", "d-n2"] {
        assert!(matches!(world.judge(&binding(forged, "n1")), BindVerdict::Refused(_)), "{forged}");
    }
    world.pass(2);
    for forged in ["elsewhere", "d-n2"] {
        assert_eq!(world.judge(&binding(forged, "n1")), BindVerdict::Unknown, "{forged}: for two seconds");
    }
    assert_eq!(world.view.reservation.assumed_len(), 0);
    assert_eq!(world.judge(&binding("middle", "n1")), BindVerdict::Allowed);
}

/// A reference to a DaemonSet that does not own the pod gains nothing.
#[test]
fn a_forged_owner_gains_nothing() {
    let mut world = world();
    let forged =
        with(daemon_pod("d", "n1"), json!({"metadata": {"name": "f", "uid": "f", "labels": {"app": "x"}}}));
    let large = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "800m"}}}]}});
    world.pod(&tried(with(forged, large)));
    assert!(world.refusal("f").is_some());
}

#[test]
fn audit_mode_allows_and_says_so() {
    let mut world = TestCluster::with(|policy| policy.reservation.mode = ReservationMode::Audit);
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&tried(pod("large", "800m")));
    let BindVerdict::WouldRefuse(refusal) = world.judge(&binding("large", "n1")) else {
        panic!("would refuse")
    };
    assert!(refusal.message.contains("default/d (300m cpu)"), "{}", refusal.message);
    assert_eq!(world.view.reservation.bind_assumed_len(), 1);
}

#[test]
fn a_dry_run_is_remembered_nowhere() {
    let mut world = world();
    assert!(matches!(world.judge_dry_run(&binding("large", "n1")), BindVerdict::Refused(_)));
    assert_eq!(world.judge_dry_run(&binding("middle", "n1")), BindVerdict::Allowed);
    assert_eq!(world.judge_dry_run(&binding("none", "n1")), BindVerdict::Unknown);
    assert_eq!(world.view.reservation.assumed_len(), 0);
    assert_eq!(world.writes(), [], "no Event either");
    let name = json!({"metadata": {"namespace": "default"}});
    world.pod(&on(with(pod("large", "800m"), name), "n2"));
    assert_eq!(world.view.reservation.take_waits(), []);
}

#[test]
fn a_clock_runs_for_a_pod_that_a_scheduler_has_tried() {
    let begin = || {
        let mut world = TestCluster::with(|policy| policy.reservation.hold_timeout = Duration::from_secs(60));
        world.node("n1", json!({}));
        world.daemon_set("d", json!({}));
        world
    };
    let refused_for = |world: &mut TestCluster, every: u64| {
        let seconds = (0..600).step_by(every as usize).find(|_| {
            let is_allowed = world.refusal("p").is_none();
            world.pass(every);
            is_allowed
        });
        seconds.expect("the hold ends")
    };
    let mut world = begin();
    world.pod(&tried(pod("p", "800m")));
    assert_eq!(refused_for(&mut world, 1), 60);
    // A scheduler that writes no condition, and backs off for ten seconds.
    let mut world = begin();
    world.pod(&pod("p", "800m"));
    assert_eq!(refused_for(&mut world, 10), 80);
    // A review of a pod that nobody tries.
    let mut world = begin();
    world.pod(&pod("p", "800m"));
    assert!(world.refusal("p").is_some());
    world.pass(600);
    assert!(world.refusal("p").is_some());
}

/// No scheduler tries a node that is full, so somebody has forged the review.
#[test]
fn a_review_of_a_node_that_is_full_moves_nothing() {
    let mut world = TestCluster::with(|policy| policy.reservation.hold_timeout = Duration::from_secs(60));
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&on(pod("there", "600m"), "n1"));
    world.pod(&tried(pod("p", "800m")));
    world.pod(&tried(pod("huge", "9999")));
    world.pod(&priority(pod("critical", "800m"), 2_000_000_000));
    assert!(world.refusal("p").is_some() && world.refusal("huge").is_some());
    assert_eq!(world.judge(&binding("critical", "n1")), BindVerdict::Exempt);
    assert_eq!(world.view.reservation.assumed_len(), 0);
    world.pass(600);
    assert!(world.refusal("p").is_some(), "the clock of the hold has not run");
    world.pod(&on(priority(pod("critical", "800m"), 2_000_000_000), "n1"));
    assert_eq!(world.view.reservation.take_unjudged(), 0);

    // Nor is the watch of a node behind because somebody says so.
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&on(daemon_pod("d", "n1"), "n1"));
    world.pod(&on(pod("there", "700m"), "n1"));
    world.pod(&tried(pod("huge", "9999")));
    world.pod(&tried(pod("p", "100m")));
    assert!(world.refusal("huge").is_none());
    assert!(world.refusal("p").is_some(), "the node is full: a pod must have left that is counted still");
    world.pass(2);
    assert!(world.refusal("p").is_none(), "for two seconds");
    world.pass(30);
    assert!(world.refusal("p").is_none());
    world.pass(30);
    assert!(world.refusal("p").is_some(), "once a minute");
}

/// After an outage of the apiserver the cache may lack the pod, and the end of a daemon pod on the node.
#[test]
fn an_unknown_pod_waits_while_events_are_awaited() {
    let mut world = world();
    world.pod(&on(priority(daemon_pod("d", "n1"), 10), "n1"));
    world.refresh_all();
    world.observe_freshness(CacheFreshness::CatchingUp);
    assert!(world.refusal("none").unwrap().contains("events of the apiserver are awaited"));
}

#[test]
fn pods_of_kube_system_are_never_refused_and_count() {
    let mut world = world();
    let of_system = json!({"metadata": {"namespace": "kube-system"}});
    world.pod(&tried(with(pod("dns", "800m"), of_system)));
    let system = Binding { namespace: "kube-system".into(), ..binding("dns", "n1") };
    assert_eq!(world.judge(&system), BindVerdict::Exempt);
    assert!(world.refusal("small").is_some());
}

#[test]
fn a_gate_refuses_bindings_for_a_minute() {
    let gate = json!({"metadata": {"annotations": {"daemonset-warden.io/ready-before-pods": "Always"}}});
    let mut world =
        TestCluster::with(|policy| policy.readiness_gates.namespace_selector = Default::default());
    world.node("n1", json!({}));
    world.daemon_set("d", gate);
    world.pod(&on(daemon_pod("d", "n1"), "n1"));
    world.pod(&tried(pod("p", "1m")));
    assert_eq!(world.refusal("p").unwrap(), r#"node "n1" waits until daemon pods are ready: default/d"#);
    world.pass(58);
    assert!(world.refusal("p").is_some());
    world.pass(3);
    assert!(world.refusal("p").is_none(), "bindings do not wait any longer");
    assert!(world.writes().contains(&ExpectedWrite::GateExpiredForBindings("d".into())), "and it is said");
    assert!(world.ask_one(&pod("q", "1m"), "n1").is_some(), "the filter steers pods to other nodes");
}

#[test]
fn pods_that_were_bound_without_a_judgement_are_counted() {
    let mut world = world();
    let elect = |world: &mut TestCluster, is_judging: bool| {
        let View { cache, reservation } = &mut world.view;
        reservation.set_judging(cache, is_judging, world.now);
    };
    elect(&mut world, true);
    world.pod(&on(pod("large", "800m"), "n2"));
    assert_eq!(world.view.reservation.take_unjudged(), 1);
    world.judge(&binding("small", "n1"));
    world.pod(&on(pod("small", "300m"), "n1"));
    assert_eq!(world.view.reservation.take_unjudged(), 0);
    // Created with its node, or exempt: no binding is reviewed.
    world.pod(&on(pod("static", "1m"), "n1"));
    world.pod(&priority(pod("critical", "1m"), 2_000_000_000));
    world.pod(&on(priority(pod("critical", "1m"), 2_000_000_000), "n1"));
    assert_eq!(world.view.reservation.take_unjudged(), 0);
    elect(&mut world, false);
    world.pod(&on(pod("middle", "400m"), "n1"));
    assert_eq!(world.view.reservation.take_unjudged(), 0, "another replica judges");
}

#[test]
fn the_wait_of_a_refused_pod_is_measured_until_it_is_bound() {
    let mut world = world();
    assert!(world.refusal("large").is_some());
    world.pass(7);
    assert!(world.refusal("large").is_some());
    world.pod(&on(pod("large", "800m"), "n2"));
    let [wait] = world.view.reservation.take_waits()[..] else { panic!("one wait") };
    assert_eq!((wait.reason, wait.time), (FilterReason::Reserved, Duration::from_secs(7)));
}

/// A change of the judge refunds nothing.
#[test]
fn the_next_judge_goes_on_with_the_spent_time() {
    let spends = |world: &mut TestCluster, seconds: u64| {
        let mut refused = 0;
        for _ in 0..seconds {
            refused += u64::from(world.refusal("p").is_some());
            world.pass(1);
        }
        refused
    };
    let begin = || {
        let mut world = TestCluster::with_default_limits(|_| {});
        // The controller has just created a pod, so that the author's word is good for as long as it goes on.
        world.view.reservation.basis_limits.idle_controller = Duration::from_secs(1_000_000);
        world.node("n1", json!({}));
        world.daemon_set("d", json!({}));
        world.pod(&tried(pod("p", "800m")));
        world
    };
    let mut first = begin();
    assert_eq!(spends(&mut first, 40), 40);
    let View { cache, reservation } = &mut first.view;
    let note = reservation.spent_note(cache, first.now);
    assert!(note.len() < 16 * 1024 && note.contains("default"), "{note}");

    let mut second = begin();
    let View { cache, reservation } = &mut second.view;
    reservation.restore_spent(cache, &note, second.now);
    let more = spends(&mut second, 60);
    assert!((18..=21).contains(&more), "{more}: 60 s of an hour in all");
    for bad in ["", "{", "[]", r#"{"holds":[{"node":"n9"}],"namespaces":{"x":[[0,18446744073709551615]]}}"#] {
        let View { cache, reservation } = &mut second.view;
        reservation.restore_spent(cache, bad, second.now);
    }

    // It gives the Lease back to the first, which has its own seconds still.
    let View { cache, reservation } = &mut first.view;
    reservation.set_judging(cache, true, first.now);
    reservation.set_judging(cache, false, first.now);
    let before = reservation.spent_note(cache, first.now);
    for _ in 0..5 {
        reservation.restore_spent(cache, &before, first.now);
    }
    assert_eq!(reservation.spent_note(cache, first.now), before, "five hand-overs charge nothing twice");

    // The daemon pod lands: what both have charged for it is refunded.
    let mut third = begin();
    let View { cache, reservation } = &mut third.view;
    reservation.restore_spent(cache, &note, third.now);
    third.pod(&on(daemon_pod("d", "n1"), "n1"));
    third.refresh_all();
    let View { cache, reservation } = &mut third.view;
    assert_eq!(reservation.spent_note(cache, third.now), "");
}

/// Neither does it give a hold or a gate back whose time was up.
#[test]
fn the_next_judge_knows_what_has_expired() {
    let gate = json!({"metadata": {"annotations": {"daemonset-warden.io/ready-before-pods": "Always"}}});
    for (what, daemon_set, landed, cpu) in
        [("a hold", json!({}), false, "800m"), ("a gate", gate, true, "1m")]
    {
        let begin = || {
            let mut world = TestCluster::with(|policy| {
                policy.reservation.hold_timeout = Duration::from_secs(60);
                policy.readiness_gates.namespace_selector = Default::default();
            });
            world.node("n1", json!({}));
            world.daemon_set("d", daemon_set.clone());
            if landed {
                world.pod(&on(daemon_pod("d", "n1"), "n1"));
            }
            world.pod(&tried(pod("p", cpu)));
            world
        };
        let mut first = begin();
        for _ in 0..62 {
            first.refusal("p");
            first.pass(1);
        }
        assert!(first.refusal("p").is_none(), "{what}: its time is up");
        let View { cache, reservation } = &mut first.view;
        let note = reservation.spent_note(cache, first.now);
        let mut second = begin();
        assert!(second.refusal("p").is_some(), "{what}");
        let View { cache, reservation } = &mut second.view;
        reservation.restore_spent(cache, &note, second.now);
        assert!(second.refusal("p").is_none(), "{what}: {note}");
    }
}
