//! Nominations: their pods, their times, and the ones that are taken back.

mod answers;
mod any_order;
mod equals;
mod rate;

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use super::*;
use crate::policy::{Policy, ReservationMode};

/// Returns a pod of `daemon_set` for `node` that the scheduler has tried and failed, with this version.
fn failed(daemon_set: &str, node: &str, version: u64) -> Value {
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    with(
        daemon_pod(daemon_set, node),
        json!({"metadata": {"resourceVersion": version.to_string()}, "status": {"conditions": [condition]}}),
    )
}

fn because(pod: Value, reason: &str) -> Value {
    with(
        pod,
        json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason}]}}),
    )
}

fn nominated(pod: Value, node: &str, version: u64) -> Value {
    with(
        pod,
        json!({"metadata": {"resourceVersion": version.to_string()}, "status": {"nominatedNodeName": node}}),
    )
}

fn sized(base: Value, cpu: &str) -> Value {
    with(base, json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
}

/// A cluster with the nominations that were decided, to answer them.
struct Stage {
    world: TestCluster,
    asked: BTreeMap<String, Nomination>,
}

impl Deref for Stage {
    type Target = TestCluster;

    fn deref(&self) -> &TestCluster {
        &self.world
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut TestCluster {
        &mut self.world
    }
}

/// Returns nodes with 100m left each, on which the scheduler has failed a pod of `d` that needs 300m.
fn waiting_on(names: &[&str], change: impl FnOnce(&mut Policy)) -> Stage {
    let mut world = TestCluster::with(change);
    world.daemon_set("d", json!({}));
    for name in names {
        world.node(name, json!({}));
        world.pod(&on(pod(&format!("o-{name}"), "900m"), name));
        world.pod(&failed("d", name, 1));
    }
    Stage::of(world)
}

fn waiting() -> Stage {
    waiting_on(&["n1"], |_| {})
}

impl Stage {
    fn of(world: TestCluster) -> Self {
        Self { world, asked: BTreeMap::new() }
    }

    /// Returns the nominations of a tick, and the number of pods that were left out.
    fn nominate(&mut self) -> (Vec<Nomination>, usize) {
        self.tick();
        let dropped = self.world.nominate();
        let writes = self.view.reservation.take_writes().into_iter();
        let of = |write| if let ClusterWrite::Nominate(nomination) = write { Some(nomination) } else { None };
        let nominations: Vec<Nomination> = writes.filter_map(of).collect();
        self.asked.extend(nominations.iter().map(|asked| (asked.uid.to_string(), asked.clone())));
        (nominations, dropped)
    }

    /// Returns the pods and nodes of a tick's nominations; no node for one that is taken back.
    fn nominations(&mut self) -> Vec<(String, Option<String>)> {
        let (nominations, _) = self.nominate();
        let short = |nomination: &Nomination| {
            (nomination.uid.to_string(), nomination.node.as_deref().map(str::to_owned))
        };
        nominations.iter().map(short).collect()
    }

    fn delete_pod(&mut self, uid: &str) {
        self.world.delete_pod(uid);
    }

    fn delete_node(&mut self, name: &str) {
        self.world.delete_node(name);
    }

    fn delete_daemon_set(&mut self, uid: &str) {
        self.world.delete_daemon_set(uid);
    }

    fn refresh(&mut self) {
        self.world.refresh_all();
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// Answers the last nomination of a pod.
    fn answer(&mut self, uid: &str, outcome: &NominationOutcome) {
        self.world.nomination_done(&self.asked[uid], outcome);
    }

    fn written(&mut self, uid: &str, version: u64) {
        self.answer(uid, &NominationOutcome::Written { resource_version: version.to_string() });
    }

    fn nominated_now(&self) -> usize {
        self.view.reservation.stats().nominated
    }

    /// Returns a node where this process has nominated the pod of `d`, and the watch has brought that.
    fn nominated_by_us() -> Self {
        let mut stage = waiting();
        assert_eq!(stage.nominations(), [sets("d-n1", "n1")]);
        stage.written("d-n1", 2);
        stage.pod(&nominated(failed("d", "n1", 1), "n1", 2));
        assert_eq!(stage.nominated_now(), 1);
        stage.wait(10.0);
        assert_eq!(stage.nominations(), []);
        stage
    }

    /// Makes no DaemonSet desired on n1 any more.
    fn end_holds(&mut self) {
        self.daemon_set("d", template(json!({"nodeSelector": {"none": "here"}})));
    }
}

fn sets(uid: &str, node: &str) -> (String, Option<String>) {
    (uid.to_owned(), Some(node.to_owned()))
}

fn clears(uid: &str) -> (String, Option<String>) {
    (uid.to_owned(), None)
}

#[test]
fn the_pod_is_named_with_its_version() {
    let (nominations, dropped) = waiting().nominate();
    let expected = Nomination {
        namespace: "default".into(),
        name: "d-n1".into(),
        uid: "d-n1".into(),
        resource_version: "1".into(),
        node: Some("n1".into()),
    };
    assert_eq!((nominations, dropped), (vec![expected], 0));
}

#[test]
fn who_is_nominated() {
    let gone = |version| with(daemon_pod("d", "n1"), json!({"metadata": {"resourceVersion": version}}));
    let of_forger = with(failed("d", "n1", 1), json!({"metadata": {"labels": {"app": "x"}}}));
    let ignored = json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}});
    let cases = [
        ("failed", failed("d", "n1", 1), true),
        (
            "failed by an error, a refused binding among them",
            because(failed("d", "n1", 1), "SchedulerError"),
            true,
        ),
        ("waits for its gates", because(failed("d", "n1", 1), "SchedulingGated"), false),
        ("not tried yet", gone("1"), false),
        ("on its way out", terminating(failed("d", "n1", 1)), false),
        ("bound", on(failed("d", "n1", 1), "n1"), false),
        ("nominated by the scheduler, which preempts", nominated(failed("d", "n1", 1), "n1", 1), false),
        ("ignored", with(failed("d", "n1", 1), ignored), false),
        ("a forger's", of_forger, false),
        ("an ordinary pod", because(pod("p", "300m"), "Unschedulable"), false),
    ];
    for (what, pod, expected) in cases {
        let mut world = waiting();
        world.delete_pod("d-n1");
        world.pod(&pod);
        assert_eq!(!world.nominations().is_empty(), expected, "{what}");
    }
}

#[test]
fn when_nobody_is_nominated() {
    let modes = [
        (ReservationMode::Enforce, true, 1),
        (ReservationMode::Enforce, false, 0),
        (ReservationMode::Audit, true, 0),
        (ReservationMode::Off, true, 0),
    ];
    for (mode, nominate, expected) in modes {
        let mut world = waiting_on(&["n1"], |policy| {
            (policy.reservation.mode, policy.reservation.nominate) = (mode, nominate);
        });
        assert_eq!(world.nominations().len(), expected, "{mode:?}, nominate: {nominate}");
    }

    let mut world = waiting();
    world.node("n1", json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}));
    assert_eq!(world.nominations(), [], "an ignored node");

    let mut world = waiting();
    let now = world.now;
    world.observe_freshness(CacheFreshness::Stale { since: now });
    assert_eq!(world.nominations(), [], "a watch is broken");
    world.observe_freshness(CacheFreshness::Fresh);
    assert_eq!(world.nominations().len(), 1);

    let mut world = waiting();
    world.view.reservation.permit_nomination(false);
    assert_eq!(world.nominations(), [], "no right");
    world.view.reservation.permit_nomination(true);
    assert_eq!(world.nominations().len(), 1);
}

#[test]
fn a_node_in_doubt_waits() {
    // The scheduler offers the node to a pod that does not fit by the cache: a pod has left whose end the watch has not brought.
    let mut world = Stage::of(TestCluster::new());
    world.daemon_set("d", template(json!({"priority": 0})));
    world.daemon_set("landed", template(json!({"priority": 100})));
    world.node("n1", json!({}));
    world.pod(&on(priority(daemon_pod("landed", "n1"), 100), "n1"));
    world.pod(&on(pod("o", "600m"), "n1"));
    world.pod(&failed("d", "n1", 1));
    assert_eq!(world.ask_one(&priority(pod("p", "200m"), 1), "n1"), Some(FilterReason::StaleCache));
    assert_eq!(world.nominations(), []);
    world.wait(2.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")], "the doubt has a clock");
}

/// The scheduler itself keeps pods off a full node, and a nomination would only cost it time.
#[test]
fn only_where_others_would_be_refused() {
    let memory = |amount: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "300m", "memory": amount}}}]}});
    let full = |world: &mut Stage| world.pod(&on(pod("rest", "100m"), "n1"));
    let mut world = waiting();
    full(&mut world);
    assert_eq!(world.nominations(), [], "no CPU is left");
    world.delete_pod("rest");
    assert_eq!(world.nominations(), [sets("d-n1", "n1")], "as soon as some is");

    // A daemon that requests memory too: a pod that requests memory alone is refused, and after that others would be.
    let mut world = waiting();
    full(&mut world);
    world.pod(&with(failed("d", "n1", 1), memory("1Gi")));
    assert_eq!(world.nominations(), [], "no pod is known that requests memory alone");
    let asks = with(
        pod("p", "0"),
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "3500Mi"}}}]}}),
    );
    assert_eq!(world.ask_one(&asks, "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);

    let mut world = waiting();
    world.node("n1", json!({"status": {"allocatable": {"pods": "1"}}}));
    assert_eq!(world.nominations(), [], "no slot for a pod is left");

    let mut world = waiting();
    world.pod(&terminating(on(with(daemon_pod("d", "n1"), json!({"metadata": {"uid": "old"}})), "n1")));
    assert_eq!(world.nominations(), [], "its predecessor still holds the room: it would count twice");
    world.delete_pod("old");
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
}

#[test]
fn again_when_the_scheduler_has_cleared_it_but_not_at_once() {
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    assert_eq!(world.nominations(), [], "under way");
    world.written("d-n1", 2);
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.pod(&failed("d", "n1", 3));
    assert_eq!(world.nominated_now(), 0, "cleared by the scheduler");
    world.wait(1.9);
    assert_eq!(world.nominations(), []);
    world.wait(0.1);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    // No answer comes: it is written again after the timeout of a write.
    world.wait(14.9);
    assert_eq!(world.nominations(), []);
    world.wait(0.1);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.answer("d-n1", &NominationOutcome::Refused);
    world.wait(59.0);
    assert_eq!(world.nominations(), [], "refused for a reason that will not go in two seconds");
    world.wait(1.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.answer("d-n1", &NominationOutcome::Outdated);
    world.wait(2.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
}

#[test]
fn taken_back_when_the_hold_ends() {
    let mut world = Stage::nominated_by_us();
    world.end_holds();
    assert_eq!(world.nominations(), [clears("d-n1")]);
    world.written("d-n1", 3);
    world.pod(&failed("d", "n1", 3));
    world.wait(10.0);
    assert_eq!(world.nominations(), [], "once");

    let mut world = Stage::nominated_by_us();
    world.pod(&priority(on(pod("vip", "800m"), "n1"), 5));
    assert_eq!(world.nominations(), [clears("d-n1")], "it cannot fit any more");

    let mut world = Stage::nominated_by_us();
    world.delete_node("n1");
    assert_eq!(world.nominations(), [clears("d-n1")], "the node is gone");

    let mut world = Stage::nominated_by_us();
    world.pod(&on(failed("d", "n1", 9), "n1"));
    assert_eq!((world.nominations(), world.nominated_now()), (vec![], 0), "bound");

    let mut world = Stage::nominated_by_us();
    world.delete_pod("d-n1");
    assert_eq!((world.nominations(), world.nominated_now()), (vec![], 0), "gone");

    let mut world = waiting_on(&["n1"], |policy| policy.reservation.wait_timeout = Duration::from_secs(5));
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.written("d-n1", 2);
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.pod(&pod("p", "100m"));
    assert_eq!(world.ask_one(&pod("p", "100m"), "n1"), Some(FilterReason::Reserved));
    world.wait(5.0);
    assert_eq!(world.nominations(), [clears("d-n1")], "its time is up");
    world.wait(100.0);
    world.written("d-n1", 3);
    world.pod(&failed("d", "n1", 3));
    assert_eq!(world.nominations(), [], "room is held no longer");
}

#[test]
fn what_others_nominated_is_theirs() {
    // One of a predecessor process, or of the scheduler.
    let mut world = waiting();
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.end_holds();
    assert_eq!(world.nominations(), []);

    // The scheduler cleared the warden's nomination, and then nominated the pod itself.
    let mut world = Stage::nominated_by_us();
    world.pod(&failed("d", "n1", 3));
    world.pod(&nominated(failed("d", "n1", 3), "n1", 4));
    world.end_holds();
    assert_eq!(world.nominations(), []);

    // The same, and the answer to the warden's patch comes last.
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.pod(&failed("d", "n1", 3));
    world.pod(&nominated(failed("d", "n1", 3), "n1", 4));
    world.written("d-n1", 2);
    world.end_holds();
    world.wait(10.0);
    assert_eq!(world.nominations(), []);

    // The answer comes before the watch brings the write.
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.written("d-n1", 2);
    world.pod(&with(failed("d", "n1", 1), json!({"spec": {"priority": 0}})));
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.end_holds();
    world.wait(10.0);
    assert_eq!(world.nominations(), [clears("d-n1")], "ours");

    // The scheduler preempts for a pod that the warden nominated before.
    let mut world = Stage::nominated_by_us();
    world.pod(&priority(terminating(on(pod("victim", "50m"), "n1")), -1));
    world.end_holds();
    assert_eq!(world.nominations(), [], "victims are leaving for it");
    world.delete_pod("victim");
    assert_eq!(world.nominations(), [clears("d-n1")]);
}

/// The scheduler keeps pods off instead of the warden, and the time of the hold runs all the same.
#[test]
fn a_hold_whose_pod_is_nominated_ends_while_a_pod_is_kept_off() {
    let after_a_while = |waits: Option<Value>| {
        let mut world =
            waiting_on(&["n1"], |policy| policy.reservation.wait_timeout = Duration::from_secs(5));
        waits.iter().for_each(|waits| world.pod(waits));
        assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
        world.written("d-n1", 2);
        world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
        assert_eq!(world.nominations(), []);
        world.wait(6.0);
        world.nominations()
    };
    let ends = vec![clears("d-n1")];
    let tried = |cpu: &str| because(pod("p", cpu), "Unschedulable");
    let elsewhere = json!({"spec": {"nodeSelector": {"zone": "elsewhere"}}});
    for (what, waits, expected) in [
        ("no pod waits", None, vec![]),
        ("a pod that would fit", Some(tried("100m")), ends),
        ("one that would not", Some(tried("200m")), vec![]),
        ("one that was not tried yet", Some(pod("p", "100m")), vec![]),
        ("one that may not use the node", Some(with(tried("100m"), elsewhere)), vec![]),
        ("one that the daemon does not stand before", Some(priority(tried("100m"), 1)), vec![]),
        ("one that is bound", Some(on(tried("100m"), "elsewhere")), vec![]),
    ] {
        assert_eq!(after_a_while(waits), expected, "{what}");
    }
}

/// `kubectl delete daemonset --cascade=orphan`: it is no daemon pod any more.
#[test]
fn an_orphan_is_left_to_the_scheduler() {
    let mut world = Stage::nominated_by_us();
    let orphan =
        with(nominated(failed("d", "n1", 1), "n1", 3), json!({"metadata": {"ownerReferences": null}}));
    world.pod(&orphan);
    world.delete_daemon_set("ds-d");
    assert_eq!((world.nominations(), world.nominated_now()), (vec![], 0));
}

/// Returns a node with this much taken, on which pods of DaemonSets of equal priority have failed.
/// Returns a node with failed daemon pods; each DaemonSet is older than the one before it, and goes first.
fn world_of(used: &str, daemons: &[(&str, &str)]) -> Stage {
    let mut world = Stage::of(TestCluster::new());
    world.node("n1", json!({}));
    world.pod(&on(pod("o", used), "n1"));
    for (age, (name, cpu)) in daemons.iter().enumerate() {
        let created = format!("{}-01-01T00:00:00Z", 2020 - age);
        world.daemon_set(name, json!({"metadata": {"creationTimestamp": created}}));
        world.pod(&sized(failed(name, "n1", 1), cpu));
    }
    world
}
