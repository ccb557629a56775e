//! Nominations: their pods, their times, and the ones that are taken back.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use proptest::prelude::*;

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

/// A hold has ended and its nomination is taken back: the possible answers to that write.
#[test]
fn a_nomination_is_taken_back_until_that_is_done() {
    let ending = || {
        let mut world = Stage::nominated_by_us();
        world.end_holds();
        assert_eq!(world.nominations(), [clears("d-n1")]);
        world
    };
    for outcome in [NominationOutcome::Outdated, NominationOutcome::Unknown] {
        let mut world = ending();
        world.answer("d-n1", &outcome);
        assert_eq!(world.nominated_now(), 1, "{outcome:?}: still ours");
        world.wait(2.0);
        assert_eq!(world.nominations(), [clears("d-n1")], "{outcome:?}: once more");
    }
    // There is no answer.
    let mut world = ending();
    world.wait(15.0);
    assert_eq!(world.nominations(), [clears("d-n1")]);

    // The watch is first, and the scheduler nominates the pod before the answer comes.
    let mut world = ending();
    world.pod(&failed("d", "n1", 3));
    world.written("d-n1", 3);
    assert_eq!(world.nominated_now(), 0);
    world.pod(&nominated(failed("d", "n1", 3), "n1", 4));
    world.wait(10.0);
    assert_eq!(world.nominations(), [], "not ours");
}

#[test]
fn only_the_answer_to_the_last_write_counts() {
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    let first = world.asked["d-n1"].clone();
    world.wait(15.0);
    world.pod(&failed("d", "n1", 2));
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.nomination_done(&first, &NominationOutcome::Outdated);
    world.written("d-n1", 3);
    world.pod(&nominated(failed("d", "n1", 2), "n1", 3));
    assert_eq!(world.nominated_now(), 1);
    world.nomination_done(&first, &NominationOutcome::Outdated);
    assert_eq!(world.nominated_now(), 1);
    world.nomination_done(&Nomination { uid: "nobody".into(), ..first }, &NominationOutcome::Unknown);
}

/// Another pod of the node was deleted, and the node is dirty since.
#[test]
fn an_answer_may_come_between_an_event_and_what_follows_from_it() {
    let mut world = world_of("900m", &[("a", "300m"), ("b", "300m")]);
    assert_eq!(world.nominations().len(), 2);
    world.delete_pod("b-n1");
    world.written("a-n1", 2);
    assert_eq!(world.nominated_now(), 1);
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

/// The scheduler counts a nominated pod against pods of equal priority: it must not keep out a daemon pod that would land without it.
#[test]
fn no_daemon_pod_is_kept_out_by_an_equal() {
    // 400m are left: the small one fits, the large one does not.
    let world = |large: i32, small: i32| {
        let mut world = Stage::of(TestCluster::new());
        world.node("n1", json!({}));
        world.daemon_set("a-large", template(json!({"priority": large})));
        world.daemon_set("small", template(json!({"priority": small})));
        world.pod(&on(pod("o", "600m"), "n1"));
        world.pod(&priority(sized(failed("a-large", "n1", 1), "500m"), large));
        world
    };
    let cases = [
        ("equals", 0, 0, vec![]),
        ("the large one is more important", 1, 0, vec![sets("a-large-n1", "n1")]),
        ("the small one is more important", 0, 1, vec![sets("a-large-n1", "n1")]),
    ];
    for (what, large, small, expected) in cases {
        assert_eq!(world(large, small).nominations(), expected, "{what}");
    }

    // The small one has landed, and is deleted in a rolling update while the large one is nominated.
    let mut world = world(0, 0);
    let landed = sized(on(daemon_pod("small", "n1"), "n1"), "300m");
    world.pod(&landed);
    assert_eq!(world.nominations(), [sets("a-large-n1", "n1")]);
    world.written("a-large-n1", 2);
    world.pod(&nominated(sized(failed("a-large", "n1", 1), "500m"), "n1", 2));
    world.wait(10.0);
    assert_eq!(world.nominations(), []);
    world.delete_pod("small-n1");
    assert_eq!(world.nominations(), [clears("a-large-n1")], "its place is its own");

    // No room is reserved for the small one, which would not fit beside the large one on an empty node; yet it would land now.
    let mut world = world_of("600m", &[("a-large", "800m"), ("small", "300m")]);
    assert_eq!(world.nominations(), [], "cannot fit beside it");
    let mut world = world_of("600m", &[("a-large", "500m"), ("small", "300m")]);
    assert_eq!(world.nominations(), [sets("small-n1", "n1")], "has room");

    let mut world = world_of("700m", &[("a", "400m"), ("b", "100m")]);
    assert_eq!(world.nominations(), [sets("b-n1", "n1")], "the second has room");
    let mut world = world_of("700m", &[("a", "400m"), ("b", "350m")]);
    assert_eq!(world.nominations().len(), 2, "neither fits");
    // Two that want the same port of the host.
    let port = json!({"spec": {"containers": [{
        "name": "c", "ports": [{"containerPort": 1, "hostPort": 9100}], "resources": {"requests": {"cpu": "10m"}},
    }]}});
    let mut world = world_of("995m", &[("a", "10m"), ("b", "10m")]);
    for name in ["a", "b"] {
        world.pod(&with(failed(name, "n1", 2), port.clone()));
    }
    world.pod(&on(pod("o", "985m"), "n1"));
    assert_eq!(world.nominations(), [], "the port would keep the second out, which fits");

    // Two that do not fit either are nominated together.
    let mut world = Stage::of(TestCluster::new());
    world.node("n1", json!({}));
    world.pod(&on(pod("o", "900m"), "n1"));
    for name in ["a", "b"] {
        world.daemon_set(name, json!({}));
        world.pod(&failed(name, "n1", 1));
    }
    assert_eq!(world.nominations(), [sets("a-n1", "n1"), sets("b-n1", "n1")]);
}

/// Returns 200 nodes on which a pod of `d` has failed; the last node has the oldest hold.
fn two_hundred() -> (Stage, Vec<String>) {
    let names: Vec<String> = (0..200).rev().map(|number| format!("n{number:03}")).collect();
    let mut world = Stage::of(TestCluster::new());
    world.daemon_set("d", json!({}));
    for name in &names {
        world.node(name, json!({}));
        world.pod(&on(pod(&format!("o-{name}"), "900m"), name));
        world.refresh();
        world.wait(0.001);
    }
    for name in names.iter().rev() {
        world.pod(&failed("d", name, 1));
    }
    (world, names)
}

fn nodes((nominations, dropped): (Vec<Nomination>, usize)) -> (Vec<String>, usize) {
    let node = |nomination: Nomination| nomination.node.unwrap().to_string();
    (nominations.into_iter().map(node).collect(), dropped)
}

#[test]
fn within_a_rate_and_the_oldest_holds_first() {
    let (mut world, names) = two_hundred();
    assert_eq!(nodes(world.nominate()), (names[..50].to_vec(), 150), "a burst");
    let nothing_written = |world: &mut Stage, names: &[String]| {
        for name in names {
            world.answer(&format!("d-{name}"), &NominationOutcome::Outdated);
        }
    };
    nothing_written(&mut world, &names[..50]);
    world.wait(1.0);
    assert_eq!(nodes(world.nominate()), (names[50..75].to_vec(), 0), "a second later; counted once in two");
    nothing_written(&mut world, &names[50..75]);

    // The scheduler places ten pods in a second: it is busy.
    for number in 0..10 {
        let name = format!("web-{number}");
        world.pod(&pod(&name, "1m"));
        world.pod(&on(pod(&name, "1m"), "elsewhere"));
    }
    world.wait(1.0);
    // The first are due again, and come first.
    assert_eq!(nodes(world.nominate()), (names[..5].to_vec(), 170), "a fifth of the rate");
    world.wait(1.0);
    nothing_written(&mut world, &names[..5]);
    assert_eq!(nodes(world.nominate()).0.len(), 25, "idle again");
}

#[test]
fn within_a_number() {
    let (mut world, names) = two_hundred();
    for _ in 0..10 {
        for name in nodes(world.nominate()).0 {
            world.written(&format!("d-{name}"), 2);
            world.pod(&nominated(failed("d", &name, 1), &name, 2));
        }
        world.wait(2.0);
    }
    assert_eq!((world.nominated_now(), nodes(world.nominate())), (100, (vec![], 100)), "no more at once");
    world.pod(&on(failed("d", &names[7], 3), &names[7]));
    assert_eq!(nodes(world.nominate()).0, [names[100].clone()], "one has landed, and the next is nominated");
}

/// Returns a node with this much taken, on which pods of DaemonSets of equal priority have failed.
fn world_of(used: &str, daemons: &[(&str, &str)]) -> Stage {
    let mut world = Stage::of(TestCluster::new());
    world.node("n1", json!({}));
    world.pod(&on(pod("o", used), "n1"));
    for (name, cpu) in daemons {
        world.daemon_set(name, json!({}));
        world.pod(&sized(failed(name, "n1", 1), cpu));
    }
    world
}

/// An admission policy refuses every pod: the pods behind them in the queue have their turn all the same.
#[test]
fn nobody_waits_behind_pods_that_are_refused() {
    let (mut world, names) = two_hundred();
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for name in nodes(world.nominate()).0 {
            world.answer(&format!("d-{name}"), &NominationOutcome::Refused);
            asked.insert(name);
        }
        world.wait(0.5);
    }
    assert_eq!(asked.len(), names.len());
}

/// One of two nodes.
fn a_node(dice: u64) -> &'static str {
    ["n1", "n2"][usize::from(dice & 1 == 1)]
}

/// Applies an event of one of four daemon pods, the nodes, or the DaemonSets.
fn happens(world: &mut Stage, kind: u8, dice: u64) {
    let (set, node, version) = (["a", "b"][usize::from(dice & 2 == 2)], a_node(dice), dice >> 2 & 7);
    let uid = format!("{set}-{node}");
    match kind {
        0..=5 => world.pod(&failed(set, node, version)),
        6 | 7 => world.pod(&nominated(failed(set, node, version), a_node(dice >> 5), version)),
        8 => world.pod(&on(failed(set, node, version), node)),
        9 => world.pod(&with(failed(set, node, version), json!({"metadata": {"ownerReferences": null}}))),
        10 | 11 => world.delete_pod(&uid),
        12 => world.delete_node(node),
        13 => world.node(node, json!({})),
        14 => world.pod(&on(pod(&format!("o-{node}"), ["900m", "500m"][usize::from(dice & 8 == 8)]), node)),
        15 => world.delete_pod(&format!("o-{node}")),
        16 => world.delete_daemon_set(&format!("ds-{set}")),
        17 => world.daemon_set(set, template(json!({"nodeSelector": {"none": "here"}}))),
        _ => world.daemon_set(set, json!({})),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 300 } else { 5000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nominations_and_their_answers_may_come_between_any_events(events in prop::collection::vec((0_u8..30, any::<u64>()), 1..150)) {
        let mut world = Stage::of(TestCluster::new());
        for dice in 0..4 {
            happens(&mut world, 13, dice);
            happens(&mut world, 18, dice);
        }
        let mut asked: Vec<Nomination> = Vec::new();
        for (kind, dice) in events {
            match kind {
                20..=24 => {
                    world.wait([0.0, 0.3, 2.0, 16.0][usize::try_from(dice & 3).unwrap()]);
                    world.world.nominate();
                    let writes = world.view.reservation.take_writes().into_iter();
                    asked.extend(writes.filter_map(|write| if let ClusterWrite::Nominate(one) = write { Some(one) } else { None }));
                }
                25..=29 if !asked.is_empty() => {
                    let at = usize::try_from(dice % asked.len() as u64).unwrap();
                    let nomination = if dice & 64 == 64 { asked[at].clone() } else { asked.swap_remove(at) };
                    let outcome = match dice >> 8 & 7 {
                        0 => NominationOutcome::Outdated,
                        1 => NominationOutcome::Refused,
                        2 => NominationOutcome::Unknown,
                        version => NominationOutcome::Written { resource_version: version.to_string() },
                    };
                    world.nomination_done(&nomination, &outcome);
                }
                kind => happens(&mut world, kind % 20, dice),
            }
        }
        for dice in 0..4 {
            happens(&mut world, 10, dice);
            happens(&mut world, 12, dice);
        }
        world.wait(100.0);
        world.nominate();
        prop_assert!(world.view.reservation.nominations.remembers_nothing());
    }
}
